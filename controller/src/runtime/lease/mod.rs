//! Leader election over a Lease (`coordination.k8s.io/v1`), compatible with client-go's. Needs get and update on the one
//! Lease, and create on leases if it is not there yet.
//!
//! Losing the lease never ends the process. Two processes that reach the API server lead at no time both: a term ends at
//! the renew deadline, counted from before the last acknowledged renewal was sent, and is shorter than the lease duration
//! that others wait from when they saw that renewal.

mod election;
mod leadership;
#[cfg(test)]
mod tests;

use std::{future::Future, time::Duration, time::Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio_util::sync::CancellationToken;

use self::election::{Election, Failure, Step};
pub use self::leadership::{LeaderState, Leadership};
use crate::runtime::{
    api_server::{TIMEOUT, is_unreachable, within},
    metrics::Metrics,
    supervise::chain,
};

/// The longest wait for the answer to the release, when the process stops.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Up to this share of the retry period is added to it, so that candidates do not ask in step.
const JITTER: f64 = 0.2;

/// One lease and how it is held.
#[derive(Debug, Clone)]
pub struct LeaseSettings {
    /// The Lease's namespace.
    pub namespace: String,
    /// The Lease's name.
    pub name: String,
    /// Who this process is; no other process may have the same.
    pub identity: String,
    /// How long others wait after the last renewal that they saw; whole seconds, rounded up.
    pub lease_duration: Duration,
    /// How long the holder leads on after the last renewal that was acknowledged.
    pub renew_deadline: Duration,
    /// Time between attempts.
    pub retry_period: Duration,
    /// Whether the lease is given back when the process stops.
    pub release_on_cancel: bool,
}

/// Why three durations make no leader election, in client-go's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// A holder could lead on after others may take over.
    #[error("must be longer than the renew deadline ({0:?})")]
    LeaseDuration(Duration),
    /// There would not be two attempts before the deadline.
    #[error("must be longer than 1.2 times the retry period ({0:?})")]
    RenewDeadline(Duration),
    /// The API server would be asked without a pause.
    #[error("must be longer than 0")]
    RetryPeriod,
}

impl LeaseSettings {
    /// Checks the durations against each other.
    pub fn check(&self) -> Result<(), LeaseError> {
        let (lease, renew, retry) = (self.lease_duration, self.renew_deadline, self.retry_period);
        if retry.is_zero() {
            return Err(LeaseError::RetryPeriod);
        }
        if renew <= retry.mul_f64(1.0 + JITTER) {
            return Err(LeaseError::RenewDeadline(retry));
        }
        if lease <= renew {
            return Err(LeaseError::LeaseDuration(renew));
        }
        Ok(())
    }
}

/// What became of one attempt.
enum Attempt {
    /// The lease was written, or is somebody else's.
    Settled,
    /// Somebody else wrote in between.
    Overtaken,
}

/// The task that acquires and renews one lease.
pub struct LeaseTask {
    api: Api<Lease>,
    settings: LeaseSettings,
    election: Election,
    /// The Lease as last read or written, whose resourceVersion the next write names.
    known: Option<Lease>,
    leadership: Leadership,
    metrics: Option<Metrics>,
    /// Whether the newest attempt failed, which was logged then.
    failing: bool,
}

impl LeaseTask {
    /// A task for the lease of `settings`, and where its result is seen. Standby until it runs.
    pub fn new(client: Client, settings: LeaseSettings) -> (Self, Leadership) {
        let leadership = Leadership::standby();
        let task = Self {
            api: Api::namespaced(client, &settings.namespace),
            election: Election::new(&settings),
            settings,
            known: None,
            leadership: leadership.clone(),
            metrics: None,
            failing: false,
        };
        (task, leadership)
    }

    /// Shows the state and its changes in `metrics`.
    #[must_use]
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        metrics.set_leader_state(&self.settings.name, self.election.term().state.as_str());
        Self {
            metrics: Some(metrics),
            ..self
        }
    }

    /// Acquires and renews until `stop`, then leads no more and gives the lease back if so set. What is done under the
    /// lease must have ended before `stop` is cancelled.
    pub async fn run(mut self, stop: CancellationToken) {
        let (lease, identity) = (&self.settings.name, &self.settings.identity);
        tracing::info!(lease, identity, "running for the lease");
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.attempt() => {}
            }
            let next = Instant::now()
                + self
                    .settings
                    .retry_period
                    .mul_f64(rand::random::<f64>().mul_add(JITTER, 1.0));
            if !self.pause(next, &stop).await {
                break;
            }
        }
        self.release().await;
    }

    /// Waits for `next`, or for the moment when somebody else's lease is over; looks at the deadline in between. False
    /// if it is time to stop.
    async fn pause(&mut self, next: Instant, stop: &CancellationToken) -> bool {
        let next = self.election.expiry().map_or(next, |expiry| {
            if expiry > Instant::now() {
                next.min(expiry)
            } else {
                next
            }
        });
        loop {
            let deadline = self.election.deadline().filter(|deadline| *deadline > Instant::now());
            let until = deadline.map_or(next, |deadline| next.min(deadline));
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                () = tokio::time::sleep_until(until.into()) => {}
            }
            self.election.judge(Instant::now());
            self.tell();
            if until == next {
                return true;
            }
        }
    }

    /// One try to acquire or renew; a second look if somebody else wrote in between.
    async fn attempt(&mut self) {
        for _ in 0..2 {
            let result = self.try_once().await;
            match &result {
                Ok(_) => self.failing = false,
                Err(error) => self.note_failure(error),
            }
            self.tell();
            if !matches!(result, Ok(Attempt::Overtaken)) {
                return;
            }
        }
    }

    async fn try_once(&mut self) -> kube::Result<Attempt> {
        if let Some((spec, known)) = self.election.renewal(Timestamp::now()).zip(self.known.clone()) {
            return self.write(spec, Some(known)).await;
        }
        let read = self.timely(self.api.get_opt(&self.settings.name)).await?;
        self.known.clone_from(&read);
        let spec = read.as_ref().map(|lease| lease.spec.clone().unwrap_or_default());
        match self.election.read(spec, Instant::now(), Timestamp::now()) {
            Step::Wait => Ok(Attempt::Settled),
            Step::Write(spec) => self.write(spec, read).await,
        }
    }

    /// Writes `spec` over `known`, or creates the Lease. The resourceVersion makes it fail if somebody else was faster.
    async fn write(&mut self, spec: LeaseSpec, known: Option<Lease>) -> kube::Result<Attempt> {
        let sent = Instant::now();
        let (name, params) = (self.settings.name.clone(), PostParams::default());
        let written = if let Some(lease) = known {
            let lease = Lease {
                spec: Some(spec),
                ..lease
            };
            self.timely(self.api.replace(&name, &params, &lease)).await
        } else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(name),
                    ..ObjectMeta::default()
                },
                spec: Some(spec),
            };
            self.timely(self.api.create(&params, &lease)).await
        };
        match written {
            Ok(lease) => {
                self.election.written(lease.spec.clone().unwrap_or_default(), sent);
                self.known = Some(lease);
                Ok(Attempt::Settled)
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                self.known = None;
                Ok(Attempt::Overtaken)
            }
            Err(error) => Err(error),
        }
    }

    /// Bounds `request`, so that an API server that accepts and never answers does not hold up the judgement.
    async fn timely<T>(&self, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
        within(TIMEOUT.min(self.settings.renew_deadline / 2), request).await
    }

    fn note_failure(&mut self, error: &kube::Error) {
        let failure = if is_unreachable(error) {
            Failure::Unreachable
        } else {
            Failure::Refused
        };
        self.election.failed(failure, Instant::now());
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(
                lease = self.settings.name,
                error = chain(error),
                "lease not acquired or renewed; retrying"
            );
        }
    }

    fn tell(&self) {
        let term = self.election.term();
        if !self.leadership.set(term) {
            return;
        }
        let (lease, state) = (&self.settings.name, term.state.as_str());
        if let Some(metrics) = &self.metrics {
            metrics.set_leader_state(lease, state);
            metrics.leader_transition(lease, state);
        }
        let identity = &self.settings.identity;
        match term.state {
            LeaderState::Leading => tracing::info!(lease, identity, "leading"),
            LeaderState::Standby => tracing::info!(lease, identity, "standby: the lease is not ours"),
            LeaderState::Detached => tracing::error!(
                lease,
                identity,
                "detached: the API server could not be reached before the renew deadline; working on without writing there"
            ),
        }
    }

    async fn release(mut self) {
        let held = self.election.release(Timestamp::now());
        self.tell();
        let Some((spec, known)) = held.zip(self.known.take()).filter(|_| self.settings.release_on_cancel) else {
            return;
        };
        match within(RELEASE_TIMEOUT, self.give_back(spec, known)).await {
            Ok(()) => tracing::info!(lease = self.settings.name, "lease released"),
            Err(error) => tracing::error!(lease = self.settings.name, error = chain(&error), "lease not released"),
        }
    }

    async fn give_back(&self, spec: LeaseSpec, known: Lease) -> kube::Result<()> {
        let (name, params) = (&self.settings.name, PostParams::default());
        let mut lease = Lease {
            spec: Some(spec.clone()),
            ..known
        };
        loop {
            match self.api.replace(name, &params, &lease).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                result => return result.map(|_| ()),
            }
            // A renewal of ours may have been cut off by the stop: then the lease is newer, and still ours.
            let newer = self.api.get(name).await?;
            let holder = newer.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
            if holder != Some(&self.settings.identity) {
                return Ok(());
            }
            lease.metadata = newer.metadata;
        }
    }
}

/// A name for this process that no other has: the Pod's or host's, and chance.
pub fn identity(host: &str) -> String {
    format!("{host}_{:016x}", rand::random::<u64>())
}
