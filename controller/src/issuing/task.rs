//! The task that owns the key ring. Reading and writing the two Secrets runs beside it, one request at a time, so that
//! revocations, documents and signing never wait for the API server; failures are repeated with growing delays.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use mintmark_issuer::{Action, Clocks, Event, KeyRing, KeyUses, Notice, RingPolicy, StoreWrite};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    Change, Issuing, News, OnNews, Reading, RingStore, SecretIo, ServerClock, StoreError, outlet::Outlet, retry::Retry,
    signing::SigningSecrets, skew::is_skewed,
};
use crate::{
    runtime::{
        lease::{LeaderState, Leadership},
        metrics::Metrics,
    },
    watch::SigningReading,
};

/// The longest time without a look at our clocks.
const TICK: Duration = Duration::from_secs(30);
/// The shortest time between two looks that change nothing.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest time without a look at the API server's clock: what the gauge shows is not older.
const CLOCK_LOOK: Duration = Duration::from_mins(10);

/// How long after a change of leader a write of the former one may still arrive: one request's time and more.
const HANDOVER: Duration = Duration::from_secs(15);

/// Where the task learns what happened.
pub struct Inputs {
    /// Readings of the signing Secrets. The first one is taken after the stored ring was read.
    pub readings: mpsc::Receiver<SigningReading>,
    /// Changes of the two Secrets.
    pub changes: mpsc::Receiver<Change>,
    /// Who may write.
    pub leadership: Leadership,
    /// The API server's clock, as the requests of the store show it.
    pub clock: Arc<ServerClock>,
    /// The wall clock of this process.
    pub wall: WallClock,
}

/// Tells wall time.
pub type WallClock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The task that owns the key ring.
pub struct IssuingTask<I> {
    ring: KeyRing,
    inputs: Inputs,
    leaders: watch::Receiver<LeaderState>,
    outlet: Outlet,
    /// `None` while a request is under way.
    store: Option<RingStore<I>>,
    work: Option<BoxFuture<'static, Done<I>>>,
    wants: Wants,
    retry: Retry,
    /// Whether the stored ring was ever read.
    begun: bool,
    /// What the ring was told last.
    leading: bool,
    skewed: bool,
    /// When this process took over from another one.
    took_over: Option<Instant>,
    /// What was attempted last and failed, and how; told once.
    trouble: Option<(Operation, StoreError)>,
    signing_secrets: SigningSecrets,
    start: Instant,
    ticked: Instant,
}

/// What is to be done next at the API server.
#[derive(Default)]
struct Wants {
    /// Read both Secrets; always tell the ring if `tell`.
    read: bool,
    tell: bool,
    write: Option<Box<StoreWrite>>,
    /// Look at the API server's clock.
    clock: bool,
    /// Changes that nobody has looked at yet.
    changes: Vec<Change>,
}

/// What a failure keeps from happening.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Read,
    Write,
}

/// How a request ended.
struct Done<I> {
    store: RingStore<I>,
    outcome: Outcome,
}

enum Outcome {
    /// And whether this process led when it began.
    Read(Result<Reading, StoreError>, bool),
    Written(u64, Result<(), StoreError>),
    Asked(Result<(), StoreError>),
}

impl<I: SecretIo> IssuingTask<I> {
    /// A task with an empty ring, kept by `store`.
    pub fn new(
        policy: RingPolicy,
        store: RingStore<I>,
        inputs: Inputs,
        on_news: OnNews,
        metrics: Metrics,
    ) -> (Self, Issuing) {
        let (outlet, issuing) = Outlet::new(on_news, metrics);
        let task = Self {
            ring: KeyRing::new(policy),
            leaders: inputs.leadership.subscribe(),
            inputs,
            outlet,
            store: Some(store),
            work: None,
            wants: Wants {
                read: true,
                ..Wants::default()
            },
            retry: Retry::default(),
            begun: false,
            leading: false,
            skewed: false,
            took_over: None,
            trouble: None,
            signing_secrets: SigningSecrets::default(),
            start: Instant::now(),
            ticked: Instant::now(),
        };
        (task, issuing)
    }

    /// Runs until nobody feeds it any more.
    pub async fn run(mut self) {
        loop {
            self.follow_leadership();
            self.begin_work();
            let wake = self.wake();
            tokio::select! {
                done = work(&mut self.work) => self.finish(done),
                reading = self.inputs.readings.recv(), if self.begun => match reading {
                    Some(reading) => self.take_reading(reading),
                    None => return,
                },
                change = self.inputs.changes.recv() => match change {
                    Some(change) => self.wants.changes.push(change),
                    None => return,
                },
                changed = self.leaders.changed() => if changed.is_err() {
                    return;
                },
                () = tokio::time::sleep_until(wake) => self.tick(),
            }
            self.outlet
                .show_ring(self.ring.state(), &self.signing_secrets.revoked());
        }
    }

    /// Tells the ring at once that it must not write any more; that it may, only after a fresh reading.
    fn follow_leadership(&mut self) {
        let leads = self.inputs.leadership.is_leading();
        if self.leading && !leads {
            self.leading = false;
            self.handle(Event::Leading(false), None);
        }
        if !self.leading && leads && self.begun && self.store.is_some() {
            self.wants.read = true;
        }
        if !leads && let Some(write) = self.wants.write.take() {
            self.handle(Event::StoreFailed { write: write.id }, None);
        }
    }

    /// When to look at the clocks next, or to try again what failed.
    fn wake(&self) -> Instant {
        let now = Instant::now();
        let is_waiting = self.work.is_none() && (self.wants.read || self.wants.clock || self.wants.write.is_some());
        if let Some(retry) = self
            .retry
            .wait_until(now)
            .filter(|_| is_waiting || self.trouble.is_some())
        {
            return retry;
        }
        let due = self.ring.next_due(self.clocks()).unwrap_or(TICK).min(TICK);
        (now + due).max(self.ticked + PAUSE)
    }

    fn tick(&mut self) {
        self.ticked = Instant::now();
        self.see_clock();
        // With a wrong clock nothing is due, and what was waits for a look at it.
        let is_due = self.skewed || self.ring.next_due(self.clocks()).is_some_and(|due| due <= TICK);
        let clock = &self.inputs.clock;
        if clock.age().is_none_or(|age| age >= CLOCK_LOOK) || (self.leading && is_due && !clock.is_known()) {
            // The tick follows the answer.
            self.wants.clock = true;
        }
        if !self.wants.clock {
            self.handle(Event::Tick, None);
        }
    }

    fn take_reading(&mut self, reading: SigningReading) {
        let (uses, outcome) = (reading.uses, reading.outcome.clone());
        let annotations = reading.annotations.clone();
        let before = self.signing_secrets.take(reading);
        if before.is_none_or(|before| before.annotations.malformed != annotations.malformed) {
            for news in News::malformed(&annotations, uses) {
                self.outlet.tell(&news);
            }
        }
        if let Ok(authority) = &outcome
            && uses != KeyUses::Jwt
        {
            self.outlet.show_advisories(authority.advisories());
        }
        self.see_clock();
        // A revoked key is not accepted for a moment, and a key that its owner wants at once does not wait first.
        self.handle(Event::Revoked(self.signing_secrets.revoked()), None);
        self.handle(Event::Activated(self.signing_secrets.activated()), None);
        self.handle(Event::Secret { uses, outcome }, Some(uses));
        self.outlet.show_readings(&self.signing_secrets.outcomes());
    }

    /// Begins the next request, unless one is under way or it is too early after a failure.
    fn begin_work(&mut self) {
        let Some(mut store) = self.store.take() else { return };
        for change in std::mem::take(&mut self.wants.changes) {
            self.look_at(&store, &change);
        }
        if self.retry.wait_until(Instant::now()).is_some() {
            self.store = Some(store);
            return;
        }
        if self.wants.read {
            self.wants.read = false;
            self.wants.clock = false;
            let (led, now) = (self.inputs.leadership.is_leading(), (self.inputs.wall)());
            self.work = Some(
                async move {
                    let outcome = Outcome::Read(store.read(now).await, led);
                    Done { store, outcome }
                }
                .boxed(),
            );
        } else if self.wants.clock || (self.wants.write.is_some() && !self.inputs.clock.is_known()) {
            self.wants.clock = false;
            self.work = Some(
                async move {
                    let outcome = Outcome::Asked(store.ask().await);
                    Done { store, outcome }
                }
                .boxed(),
            );
        } else if let Some(write) = self.wants.write.take() {
            self.work = Some(
                async move {
                    let outcome = Outcome::Written(write.id, store.write(&write).await);
                    Done { store, outcome }
                }
                .boxed(),
            );
        } else {
            self.store = Some(store);
        }
    }

    /// A Secret changed: it is read again, unless this process itself wrote or read that version last.
    fn look_at(&mut self, store: &RingStore<I>, change: &Change) {
        if store.version(change.which) == change.version.as_deref() {
            return;
        }
        self.wants.read = true;
        if store.version(change.which).is_none() {
            // What was missing is there: nothing is waited for.
            self.retry.at_once();
        }
    }

    fn finish(&mut self, done: Done<I>) {
        self.work = None;
        self.store = Some(done.store);
        self.see_clock();
        match done.outcome {
            Outcome::Read(Ok(reading), led) => self.take_found(reading, led),
            Outcome::Read(Err(error), _) => {
                self.wants.read = true;
                self.failed(Operation::Read, error);
            }
            Outcome::Written(write, Ok(())) => {
                self.succeeded(Operation::Write);
                self.handle(Event::Stored { write }, None);
            }
            Outcome::Written(write, Err(error)) => {
                self.wants.read |= error.needs_reading();
                self.wants.tell |= error.is_partial();
                if error != StoreError::NotLeading {
                    self.failed(Operation::Write, error);
                }
                self.handle(Event::StoreFailed { write }, None);
            }
            Outcome::Asked(Ok(())) => self.handle(Event::Tick, None),
            Outcome::Asked(Err(error)) => {
                self.wants.clock = true;
                self.failed(Operation::Read, error);
            }
        }
    }

    /// Hands what was read to the ring, if it is new to it, and lets it write if this process led before it was read.
    fn take_found(&mut self, reading: Reading, led: bool) {
        let leads = led && self.inputs.leadership.is_leading();
        let must_tell = std::mem::take(&mut self.wants.tell);
        if self.leading && reading.is_news && self.took_over.is_some_and(|since| since.elapsed() < HANDOVER) {
            // The last write of the one who led before arrived late: what it published goes on.
            self.leading = false;
            self.handle(Event::Leading(false), None);
        }
        if self.leading && reading.is_news && !must_tell && !reading.was_missing {
            // Whoever else writes is not answered faster and faster.
            self.retry.failed(Instant::now());
        } else {
            self.succeeded(Operation::Read);
        }
        if reading.is_news || must_tell || !self.begun || (leads && !self.leading) {
            if let Some(write) = self.wants.write.take() {
                // It was planned without knowing this.
                self.handle(Event::StoreFailed { write: write.id }, None);
            }
            self.handle(Event::Found(reading.found), None);
        }
        if leads && !self.leading {
            self.took_over = self.begun.then(Instant::now);
            self.leading = true;
            self.handle(Event::Leading(true), None);
        }
        self.begun = true;
        self.handle(Event::Tick, None);
    }

    /// Takes over what the last answer said about the API server's clock, and every step of ours since.
    fn see_clock(&mut self) {
        let Some(skew) = self.inputs.clock.skew((self.inputs.wall)()) else {
            return;
        };
        self.outlet.metrics.set_clock_skew(skew.as_secs_f64());
        let skewed = is_skewed(skew);
        if skewed != self.skewed {
            self.skewed = skewed;
            self.handle(Event::ClockSkew(skewed), None);
        }
    }

    fn failed(&mut self, operation: Operation, error: StoreError) {
        self.retry.failed(Instant::now());
        self.outlet.metrics.key_store_failed(operation.label(), error.label());
        let known = self
            .trouble
            .as_ref()
            .map(|(operation, error)| (*operation, error.label()));
        if known != Some((operation, error.label())) {
            self.outlet.tell(&News::not_stored(&error));
        }
        self.trouble = Some((operation, error));
    }

    fn succeeded(&mut self, operation: Operation) {
        self.retry.succeeded(Instant::now());
        // That it can be read says nothing about writing.
        let is_over = |(failed, _): &mut (Operation, StoreError)| operation == Operation::Write || *failed == operation;
        if self.trouble.take_if(is_over).is_some() {
            tracing::info!(
                operation = operation.label(),
                "the key ring's Secrets can be used again"
            );
        }
    }

    fn clocks(&self) -> Clocks {
        Clocks {
            wall: (self.inputs.wall)(),
            monotonic: self.start.elapsed(),
        }
    }

    /// Handles `event` and performs what follows from it, except for writing, which is begun later.
    fn handle(&mut self, event: Event, reading: Option<KeyUses>) {
        for action in self.ring.handle(event, self.clocks()) {
            match action {
                // A newer write holds everything that an older one was to bring.
                Action::Store(write) => self.wants.write = Some(write),
                Action::Publish(documents) => self.outlet.publish(documents),
                Action::Sign(set) => self.outlet.sign(set),
                Action::Notify(notice) => {
                    match notice {
                        Notice::StateRefused(_) => self.outlet.metrics.key_store_replaced("refused"),
                        Notice::StateOverwritten => self.outlet.metrics.key_store_replaced("changed"),
                        Notice::StateMissing => self.outlet.metrics.key_store_replaced("missing"),
                        _ => {}
                    }
                    self.outlet.tell(&News::of_ring(&notice, reading));
                }
            }
        }
    }
}

impl Operation {
    const fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// The request under way; waits for ever when there is none.
async fn work<I>(work: &mut Option<BoxFuture<'static, Done<I>>>) -> Done<I> {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}
