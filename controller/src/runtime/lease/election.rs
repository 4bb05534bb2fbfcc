//! The rules of leader election, as client-go has them: pure, every time is an argument. A lease of another holder counts
//! as expired when this process has seen it unchanged for its whole duration by its own monotonic clock; the wall times in
//! it are never compared with ours.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::{api::coordination::v1::LeaseSpec, apimachinery::pkg::apis::meta::v1::MicroTime};

use super::{
    LeaseSettings,
    leadership::{LeaderState, Term},
};

/// How an attempt to renew or acquire failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// No answer, or one that says that the API server cannot work now (429, 5xx).
    Unreachable,
    /// It answered and refused.
    Refused,
}

/// The lease as last read.
#[derive(Debug, Clone, PartialEq)]
struct Observed {
    spec: LeaseSpec,
    /// When this content was seen first.
    since: Instant,
}

/// What is to be done with the lease as it was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Write this: it is free, expired, or ours.
    Write(LeaseSpec),
    /// It is somebody else's.
    Wait,
}

/// One candidate's view.
#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    lease_duration: Duration,
    renew_deadline: Duration,
    /// How long a holder that was cut off from the API server like us needs to be heard again.
    patience: Duration,
    observed: Option<Observed>,
    /// The API server did not answer the newest attempt.
    is_cut_off: bool,
    /// Nobody's lease is taken before.
    patient_until: Option<Instant>,
    state: LeaderState,
    /// While leading: when the last acknowledged renewal was sent.
    renewed: Option<Instant>,
    /// What was wrong with the newest attempts since, and from when on.
    failure: Option<(Failure, Instant)>,
}

impl Election {
    pub(super) fn new(settings: &LeaseSettings) -> Self {
        Self {
            identity: settings.identity.clone(),
            lease_duration: settings.lease_duration,
            renew_deadline: settings.renew_deadline,
            patience: settings.retry_period * 2,
            observed: None,
            is_cut_off: false,
            patient_until: None,
            state: LeaderState::Standby,
            renewed: None,
            failure: None,
        }
    }

    /// What the rest of the process is told.
    pub(super) fn term(&self) -> Term {
        Term {
            state: self.state,
            until: self.deadline(),
        }
    }

    /// When the term ends unless it is renewed; `None` unless leading.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let renewed = self.renewed.filter(|_| self.state == LeaderState::Leading)?;
        Some(renewed + self.renew_deadline)
    }

    /// When the lease of another holder is over, if it stays as it is. After an outage of the API server a holder that was
    /// detached meanwhile has the time of two attempts to renew: it still works under the lease.
    pub(super) fn expiry(&self) -> Option<Instant> {
        let observed = self.observed.as_ref()?;
        let holder = holder(&observed.spec)?;
        if holder == self.identity {
            return None;
        }
        let expiry = observed.since + duration(&observed.spec).unwrap_or(self.lease_duration);
        Some(self.patient_until.map_or(expiry, |until| expiry.max(until)))
    }

    /// The lease was read (`None`: there is none). Whoever finds another holder in it leads no more, that moment.
    pub(super) fn read(&mut self, spec: Option<LeaseSpec>, now: Instant, wall: Timestamp) -> Step {
        if std::mem::take(&mut self.is_cut_off) {
            self.patient_until = Some(now + self.patience);
        }
        self.observe(spec, now);
        let is_held_by_another = self.expiry().is_some();
        if is_held_by_another {
            self.stand_by();
        }
        let held = self.observed.as_ref().map(|observed| &observed.spec);
        let is_ours = held.and_then(holder) == Some(&*self.identity);
        if self.expiry().is_some_and(|expiry| now < expiry) {
            return Step::Wait;
        }
        let wall = MicroTime(wall);
        let transitions = held.and_then(|held| held.lease_transitions).unwrap_or(0);
        let acquired = held.and_then(|held| held.acquire_time.clone()).filter(|_| is_ours);
        Step::Write(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(whole_seconds(self.lease_duration)),
            acquire_time: acquired.or_else(|| Some(wall.clone())),
            renew_time: Some(wall),
            lease_transitions: Some(match held {
                Some(_) if !is_ours => transitions.saturating_add(1),
                _ => transitions,
            }),
            ..LeaseSpec::default()
        })
    }

    /// What a renewal writes without reading first: only while the lease as last seen is ours.
    pub(super) fn renewal(&self, wall: Timestamp) -> Option<LeaseSpec> {
        let observed = self.observed.as_ref()?;
        let is_ours = self.state != LeaderState::Standby && holder(&observed.spec) == Some(&*self.identity);
        is_ours.then(|| LeaseSpec {
            lease_duration_seconds: Some(whole_seconds(self.lease_duration)),
            renew_time: Some(MicroTime(wall)),
            ..observed.spec.clone()
        })
    }

    /// The API server acknowledged what was written; `sent` is from before the request.
    pub(super) fn written(&mut self, spec: LeaseSpec, sent: Instant) {
        self.observe(Some(spec), sent);
        self.state = LeaderState::Leading;
        self.renewed = Some(sent);
        self.failure = None;
        self.is_cut_off = false;
    }

    /// An attempt came to nothing.
    pub(super) fn failed(&mut self, failure: Failure, now: Instant) {
        let since = self.failure.filter(|(former, _)| *former == failure);
        self.failure = Some((failure, since.map_or(now, |(_, since)| since)));
        self.is_cut_off |= failure == Failure::Unreachable;
        self.judge(now);
    }

    /// Ends a term whose deadline has passed, by what is known about the reason; without any, the next attempt tells. An
    /// API server that is back and refuses for as long as that ends detachment: it may need a moment to know our rights.
    pub(super) fn judge(&mut self, now: Instant) {
        let Some((failure, since)) = self.failure else { return };
        let is_over = match self.state {
            LeaderState::Standby => false,
            LeaderState::Leading => self.deadline().is_some_and(|deadline| now >= deadline),
            LeaderState::Detached => failure == Failure::Refused && now >= since + self.renew_deadline,
        };
        match failure {
            Failure::Unreachable if is_over => self.state = LeaderState::Detached,
            Failure::Refused if is_over => self.stand_by(),
            _ => {}
        }
    }

    /// Leads no more. Returns what gives the lease back, if it is ours.
    pub(super) fn release(&mut self, wall: Timestamp) -> Option<LeaseSpec> {
        let held = self.renewal(wall);
        self.stand_by();
        held.map(|held| LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(MicroTime(wall)),
            renew_time: Some(MicroTime(wall)),
            lease_transitions: held.lease_transitions,
            ..LeaseSpec::default()
        })
    }

    fn stand_by(&mut self) {
        self.state = LeaderState::Standby;
        self.renewed = None;
        self.failure = None;
    }

    fn observe(&mut self, spec: Option<LeaseSpec>, now: Instant) {
        let is_known = self.observed.as_ref().map(|observed| &observed.spec) == spec.as_ref();
        if !is_known {
            self.observed = spec.map(|spec| Observed { spec, since: now });
        }
    }
}

/// Who holds the lease; a released one has an empty name.
fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

fn duration(spec: &LeaseSpec) -> Option<Duration> {
    let seconds = u64::try_from(spec.lease_duration_seconds?).ok()?;
    Some(Duration::from_secs(seconds))
}

/// The field takes whole seconds and at least one.
fn whole_seconds(duration: Duration) -> i32 {
    let up = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(up.max(1)).unwrap_or(i32::MAX)
}
