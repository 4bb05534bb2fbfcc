//! What should be stored next: a pure function of what is stored, what the signing Secrets hold, the revocations and the
//! time. Calling it again with its own result and nothing else changed changes nothing.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::candidates::Candidates;
use super::notice::{KeyUse, Notice};
use super::phases::{Due, Phases, Rules};
use super::state::{Entry, JwtMaterial, RingPolicy, RingState, X509Material, root_id};
use super::timer::Timer;

/// What decides about one planned step.
pub(super) struct Step<'a> {
    pub(super) policy: &'a RingPolicy,
    pub(super) timer: &'a Timer<'a>,
    /// The wall clock is wrong: only the first key of a use and the successor of a revoked signer move on.
    pub(super) frozen: bool,
    /// Whether there is a private key for this id.
    pub(super) can_sign: &'a dyn Fn(&str) -> bool,
}

/// What should be stored, and what to tell.
#[derive(Debug)]
pub(super) struct Planned {
    /// The state; its sequence is still the one before.
    pub(super) state: RingState,
    /// To tell when it is stored.
    pub(super) notices: Vec<Notice>,
    /// To tell once, as long as it lasts.
    pub(super) conditions: Vec<Notice>,
}

/// The state that should follow `stored`.
pub(super) fn next(stored: &RingState, candidates: &Candidates, step: &Step<'_>) -> Planned {
    let mut state = stored.clone();
    state.revoked.extend(candidates.revoked.iter().cloned());
    let (mut notices, mut conditions) = (Vec::new(), Vec::new());
    let jwt = candidates.jwt.as_ref().map(|next| {
        let material = JwtMaterial {
            key: next.authority.public_key().jwk().clone(),
            not_after: next.authority.not_after(),
        };
        (next.authority.kid(), material)
    });
    let x509 = candidates
        .x509
        .as_ref()
        .map(|next| (next.authority.id(), X509Material::of(&next.authority)));
    Phases {
        rules: Rules {
            kind: KeyUse::Jwt,
            overlap: step.policy.jwt_overlap,
            retention: step.policy.jwt_retention(),
            starts: &|_| None,
            due: &|pending, _| jwt_due(pending, step),
        },
        entries: &mut state.jwt,
        revoked: &state.revoked,
        step,
        notices: &mut notices,
        conditions: &mut conditions,
    }
    .advance(jwt);
    Phases {
        rules: Rules {
            kind: KeyUse::X509,
            overlap: step.policy.x509_overlap,
            retention: step.policy.x509_retention(),
            starts: &|entry: &Entry<X509Material>| Some(entry.material.validity().0),
            due: &|pending, signer| x509_due(pending, signer, stored, candidates, step),
        },
        entries: &mut state.x509,
        revoked: &state.revoked,
        step,
        notices: &mut notices,
        conditions: &mut conditions,
    }
    .advance(x509);
    state.list_roots(step.policy.bundle_root, step.timer.wall());
    Planned {
        state,
        notices,
        conditions,
    }
}

fn jwt_due(pending: &Entry<JwtMaterial>, step: &Step<'_>) -> Due {
    let (timer, overlap) = (step.timer, step.policy.jwt_overlap);
    if timer.passed(timer.since.published(&pending.id), pending.published_at, overlap) {
        Due::Now
    } else {
        Due::From(later(pending.published_at, overlap))
    }
}

/// A CA has waited when it was published for the overlap itself, when its root was, when somebody activated it, or when
/// the CA that signs now is about to end. It is stored and published before in any case.
fn x509_due(
    pending: &Entry<X509Material>,
    signer: &Entry<X509Material>,
    stored: &RingState,
    candidates: &Candidates,
    step: &Step<'_>,
) -> Due {
    let (timer, overlap) = (step.timer, step.policy.x509_overlap);
    let end = signer.material.validity().1;
    let ttl = SignedDuration::try_from(step.policy.x509_ttl).unwrap_or(SignedDuration::MAX);
    let last = end.checked_sub(ttl).unwrap_or(Timestamp::MIN);
    let root = pending.material.root.as_ref().map(|root| root_id(root));
    let by_root = root.is_some_and(|root| {
        let at = stored.roots.get(&root).filter(|_| step.policy.bundle_root);
        at.is_some_and(|at| timer.passed(timer.since.root(&root), *at, overlap))
    });
    let known = timer.since.published(&pending.id);
    let by_itself = timer.passed(known, pending.published_at, overlap);
    let by_end = timer.reached(last);
    let activated = candidates.activated.contains(&pending.id);
    let waits = !(by_root || by_itself || by_end);
    match known {
        Some(_) if !waits => Due::Now,
        Some(_) if activated => Due::Activated,
        None if !waits || activated => Due::From(timer.wall()),
        _ => Due::From(later(pending.published_at, overlap).min(last)),
    }
}

pub(super) fn later(at: Timestamp, wait: Duration) -> Timestamp {
    at.saturating_add(wait).unwrap_or(Timestamp::MAX)
}
