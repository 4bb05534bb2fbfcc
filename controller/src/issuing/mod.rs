//! Runs the key ring: feeds it with what the signing Secret became and with time, and performs what it asks for, in order:
//! keep, publish, sign, tell. The ring itself is pure and lives in `mintmark-issuer`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use mintmark_issuer::{Action, Clocks, Documents, Event, KeyRing, KeyState, KeyUses, Notice, RingPolicy, SigningSet};
use tokio::sync::{mpsc, watch};

use crate::{
    credential::SigningReceiver,
    runtime::metrics::{Metrics, SigningSecretState},
    watch::Reading,
};

/// The documents of the ring's stored state; none before the first key.
pub type DocumentsReceiver = watch::Receiver<Option<Arc<Documents>>>;

/// Told every notice of the ring: bad updates, new signers, keys that are gone. `true` marks one that needs somebody.
pub type OnNotice = Box<dyn Fn(&Notice, bool) + Send>;

/// The longest time without a look at the clocks.
const TICK: Duration = Duration::from_secs(30);

/// The task that owns the key ring.
pub struct IssuingTask {
    ring: KeyRing,
    readings: mpsc::Receiver<Reading>,
    signing: watch::Sender<Arc<SigningSet>>,
    documents: watch::Sender<Option<Arc<Documents>>>,
    on_notice: OnNotice,
    metrics: Metrics,
    start: Instant,
}

/// Where the results of an [`IssuingTask`] are seen.
pub struct Issuing {
    /// Who signs.
    pub signing: SigningReceiver,
    /// What is published.
    pub documents: DocumentsReceiver,
}

impl IssuingTask {
    /// A task with an empty ring, fed by `readings`.
    pub fn new(
        policy: RingPolicy,
        readings: mpsc::Receiver<Reading>,
        on_notice: OnNotice,
        metrics: Metrics,
    ) -> (Self, Issuing) {
        let (signing, signing_receiver) = watch::channel(Arc::new(nobody_signs()));
        let (documents, documents_receiver) = watch::channel(None);
        metrics.set_signing_secret(SigningSecretState::Absent);
        let task = Self {
            ring: KeyRing::new(policy),
            readings,
            signing,
            documents,
            on_notice,
            metrics,
            start: Instant::now(),
        };
        (
            task,
            Issuing {
                signing: signing_receiver,
                documents: documents_receiver,
            },
        )
    }

    /// Runs until nobody feeds it any more.
    pub async fn run(mut self) {
        loop {
            let wait = self.ring.next_due(self.clocks()).unwrap_or(TICK).min(TICK);
            let event = tokio::select! {
                reading = self.readings.recv() => match reading {
                    Some(outcome) => {
                        self.show_reading(&outcome);
                        Event::Secret { uses: KeyUses::Both, outcome }
                    }
                    None => return,
                },
                () = tokio::time::sleep(wait) => Event::Tick,
            };
            self.handle(event);
            self.show_keys();
        }
    }

    fn clocks(&self) -> Clocks {
        Clocks {
            wall: Timestamp::now(),
            monotonic: self.start.elapsed(),
        }
    }

    /// Handles `event` and everything that follows from it.
    fn handle(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let clocks = self.clocks();
            for action in self.ring.handle(event, clocks) {
                match action {
                    // The state lives as long as this process: it is kept the moment it is handed over.
                    Action::Store(write) => events.push(Event::Stored { write: write.id }),
                    Action::Publish(documents) => {
                        self.documents.send_replace(Some(documents));
                    }
                    Action::Sign(set) => {
                        self.signing.send_replace(set);
                    }
                    Action::Notify(notice) => self.tell(&notice),
                }
            }
        }
    }

    fn tell(&self, notice: &Notice) {
        let is_warning = !matches!(
            notice,
            Notice::Signs { .. } | Notice::Gone { .. } | Notice::NotYetValid { .. }
        );
        if is_warning {
            tracing::error!(error = %notice, "signing Secret");
        } else {
            tracing::info!("{notice}");
        }
        (self.on_notice)(notice, is_warning);
    }

    fn show_reading(&self, reading: &Reading) {
        let state = match reading {
            Ok(authority) => {
                for advisory in authority.advisories() {
                    tracing::info!("{advisory}");
                }
                self.show_advisories(authority.advisories());
                SigningSecretState::Valid
            }
            Err(_) if can_sign(&self.signing.borrow()) => SigningSecretState::LastGood,
            Err(_) => SigningSecretState::Absent,
        };
        self.metrics.set_signing_secret(state);
    }

    fn show_advisories(&self, given: &[mintmark_issuer::Advisory]) {
        use mintmark_issuer::Advisory::{NameConstraints, PathLength};
        for (label, advisory) in [("path_len_zero", PathLength), ("name_constraints", NameConstraints)] {
            self.metrics.set_signing_advisory(label, given.contains(&advisory));
        }
    }

    fn show_keys(&self) {
        let state = self.ring.state();
        let label = |state: KeyState| match state {
            KeyState::Published => "published",
            KeyState::Signing => "signing",
            KeyState::Retired => "retired",
        };
        let jwt = state.jwt.iter().map(|entry| (entry.id.as_str(), label(entry.state)));
        let x509 = state.x509.iter().map(|entry| (entry.id.as_str(), label(entry.state)));
        self.metrics.set_key_states(jwt.chain(x509));
    }
}

/// Whether anything signs.
pub fn can_sign(set: &SigningSet) -> bool {
    set.jwt.is_ok() || set.x509.is_ok()
}

/// Whether the signing Secret was looked at, whatever came of it.
pub fn is_read(set: &SigningSet) -> bool {
    use mintmark_issuer::NoSigner::{NotRead, NotStored};
    !matches!(
        (&set.jwt, &set.x509),
        (Err(NotRead | NotStored), Err(NotRead | NotStored))
    )
}

/// The set before the first reading.
pub fn nobody_signs() -> SigningSet {
    use mintmark_issuer::NoSigner::NotRead;
    SigningSet {
        jwt: Err(NotRead),
        x509: Err(NotRead),
    }
}
