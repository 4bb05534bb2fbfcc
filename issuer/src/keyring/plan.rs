//! What should be stored next: a pure function of what is stored, what the signing Secrets hold, the revocations and the
//! time. Calling it again with its own result changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::event::{KeyUses, NoSigner, Notice};
use super::state::{Entry, JwtMaterial, KeyState, MAX_KEYS_PER_USE, RingPolicy, RingState, X509Material};
use crate::authority::{Authority, AuthorityError};
use crate::keys::PrivateKey;
use crate::{JwtAuthority, X509Authority};

/// What the signing Secrets hold, last good per use, and why a use has nothing.
#[derive(Debug)]
pub(super) struct Candidates {
    pub(super) jwt: Option<Candidate<JwtAuthority>>,
    pub(super) x509: Option<Candidate<X509Authority>>,
    pub(super) jwt_failure: NoSigner,
    pub(super) x509_failure: NoSigner,
    /// Ids to revoke that may not be stored yet.
    pub(super) revoked: BTreeSet<String>,
}

/// An authority with the private key that has to be stored before it signs.
#[derive(Debug, Clone)]
pub(super) struct Candidate<A> {
    pub(super) authority: Arc<A>,
    pub(super) key: Option<Arc<PrivateKey>>,
}

/// The rules that decide about one planned step.
pub(super) struct Step<'a> {
    pub(super) policy: &'a RingPolicy,
    pub(super) wall: Timestamp,
    /// Whether a retired key has stayed long enough by the monotonic clock.
    pub(super) retired_for: &'a dyn Fn(&str, Duration) -> bool,
}

impl Default for Candidates {
    fn default() -> Self {
        Self {
            jwt: None,
            x509: None,
            jwt_failure: NoSigner::NotRead,
            x509_failure: NoSigner::NotRead,
            revoked: BTreeSet::new(),
        }
    }
}

impl Candidates {
    /// Takes in what a Secret holds. A use that it cannot serve keeps its last good key.
    /// Whoever has no issuer mints no tokens and is not told about keys that could not sign any.
    pub(super) fn take(
        &mut self,
        uses: KeyUses,
        outcome: Result<Arc<Authority>, AuthorityError>,
        mints_tokens: bool,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        let authority = match outcome {
            Ok(authority) => authority,
            Err(error) => {
                if uses != KeyUses::X509 {
                    self.jwt_failure = NoSigner::Secret(error.clone());
                }
                if uses != KeyUses::Jwt {
                    self.x509_failure = NoSigner::Secret(error.clone());
                }
                return vec![Notice::NotUsable(error)];
            }
        };
        let key = Some(Arc::clone(&authority.key));
        if uses != KeyUses::X509 {
            match authority.jwt() {
                Ok(jwt) => {
                    self.jwt = Some(Candidate {
                        authority: Arc::clone(jwt),
                        key: key.clone(),
                    });
                }
                Err(reason) => {
                    self.jwt_failure = NoSigner::Jwt(reason.clone());
                    notices.extend(mints_tokens.then(|| Notice::NoJwt(reason.clone())));
                }
            }
        }
        if uses != KeyUses::Jwt {
            match authority.x509() {
                Ok(x509) => {
                    self.x509 = Some(Candidate {
                        authority: Arc::clone(x509),
                        key,
                    });
                }
                Err(reason) => {
                    self.x509_failure = NoSigner::X509(reason.clone());
                    notices.push(Notice::NoX509(reason.clone()));
                }
            }
        }
        notices
    }
}

/// The state that should follow `stored`.
pub(super) fn next(
    stored: &RingState,
    candidates: &Candidates,
    step: &Step<'_>,
    notices: &mut Vec<Notice>,
) -> RingState {
    let mut state = stored.clone();
    state.revoked.extend(candidates.revoked.iter().cloned());
    let mut jwt = Uses {
        kind: "JWT",
        entries: &mut state.jwt,
        revoked: &state.revoked,
        notices,
    };
    jwt.drop_revoked();
    jwt.drop_over(step, step.policy.jwt_retention());
    if let Some(next) = &candidates.jwt {
        let material = JwtMaterial {
            key: next.authority.public_key().jwk().clone(),
            not_after: next.authority.not_after(),
        };
        jwt.arrive(next.authority.kid(), material, None, step.wall);
    }
    let mut x509 = Uses {
        kind: "X.509",
        entries: &mut state.x509,
        revoked: &state.revoked,
        notices,
    };
    x509.drop_revoked();
    x509.drop_over(step, step.policy.x509_retention());
    if let Some(next) = &candidates.x509 {
        let not_before = Some(next.authority.not_before()).filter(|start| *start > step.wall);
        x509.arrive(
            next.authority.id(),
            X509Material::of(&next.authority),
            not_before,
            step.wall,
        );
    }
    state.number_after(stored, step.policy.bundle_root, step.wall);
    state
}

/// The entries of one use while they are planned.
struct Uses<'a, M> {
    kind: &'static str,
    entries: &'a mut Vec<Entry<M>>,
    revoked: &'a BTreeSet<String>,
    notices: &'a mut Vec<Notice>,
}

impl<M: PartialEq> Uses<'_, M> {
    fn drop_revoked(&mut self) {
        let revoked = self.revoked;
        self.drop_where(|entry| revoked.contains(&entry.id));
    }

    /// A retired key goes when both clocks say that nothing it signed can still be valid.
    fn drop_over(&mut self, step: &Step<'_>, retention: Duration) {
        self.drop_where(|entry| entry.is_over(retention, step.wall) && (step.retired_for)(&entry.id, retention));
    }

    fn drop_where(&mut self, gone: impl Fn(&Entry<M>) -> bool) {
        let kind = self.kind;
        self.notices
            .extend(self.entries.iter().filter(|entry| gone(entry)).map(|entry| {
                let id = entry.id.clone();
                Notice::Gone { kind, id }
            }));
        self.entries.retain(|entry| !gone(entry));
    }

    /// The key of the signing Secret signs at once; what signed before is retired. A certificate that is not valid yet is
    /// published meanwhile, as long as another one signs.
    fn arrive(&mut self, id: &str, material: M, not_before: Option<Timestamp>, wall: Timestamp) {
        if self.revoked.contains(id) {
            self.notices.push(Notice::Revoked(id.to_owned()));
            return;
        }
        if !self.entries.iter().any(|entry| entry.id == id) {
            if self.entries.len() >= MAX_KEYS_PER_USE {
                self.notices.push(Notice::Full {
                    kind: self.kind,
                    id: id.to_owned(),
                });
                return;
            }
            self.entries.push(Entry::published(id.to_owned(), material, wall));
        } else if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            // The same key with new dates is replaced at once.
            entry.material = material;
        }
        let others_sign = self
            .entries
            .iter()
            .any(|entry| entry.state == KeyState::Signing && entry.id != id);
        if let Some(at) = not_before.filter(|_| others_sign) {
            self.notices.push(Notice::NotYetValid { id: id.to_owned(), at });
            return;
        }
        for entry in self.entries.iter_mut() {
            match entry.state {
                KeyState::Published | KeyState::Retired if entry.id == id => {
                    entry.sign(wall);
                    self.notices.push(Notice::Signs {
                        kind: self.kind,
                        id: id.to_owned(),
                    });
                }
                KeyState::Published | KeyState::Signing if entry.id != id => entry.retire(wall),
                _ => {}
            }
        }
    }
}
