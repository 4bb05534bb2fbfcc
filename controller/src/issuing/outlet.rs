//! Everything that leaves the issuing task towards the rest of the process: who signs, what is published, what is revoked,
//! the gauges, the news.

use std::{collections::BTreeSet, sync::Arc};

use mintmark_issuer::{Advisory, Authority, AuthorityError, Documents, KeyState, RingState, SigningSet};
use tokio::sync::watch;

use super::{Issuing, News, OnNews, can_sign, nobody_signs};
use crate::runtime::metrics::{Metrics, SigningSecretState};

/// The senders, and what was shown last.
pub(super) struct Outlet {
    signing: watch::Sender<Arc<SigningSet>>,
    documents: watch::Sender<Option<Arc<Documents>>>,
    revoked: watch::Sender<Arc<BTreeSet<String>>>,
    on_news: OnNews,
    pub(super) metrics: Metrics,
    /// The gauges' content: they are touched only when it changes, for a scrape in between would see none.
    shown: Vec<(String, &'static str)>,
}

impl Outlet {
    pub(super) fn new(on_news: OnNews, metrics: Metrics) -> (Self, Issuing) {
        let (signing, signing_receiver) = watch::channel(Arc::new(nobody_signs()));
        let (documents, documents_receiver) = watch::channel(None);
        let (revoked, revoked_receiver) = watch::channel(Arc::default());
        metrics.set_signing_secret(SigningSecretState::Absent);
        let outlet = Self {
            signing,
            documents,
            revoked,
            on_news,
            metrics,
            shown: Vec::new(),
        };
        let issuing = Issuing {
            signing: signing_receiver,
            documents: documents_receiver,
            revoked: revoked_receiver,
        };
        (outlet, issuing)
    }

    pub(super) fn publish(&self, documents: Arc<Documents>) {
        self.documents.send_replace(Some(documents));
    }

    pub(super) fn sign(&self, set: Arc<SigningSet>) {
        self.signing.send_replace(set);
    }

    pub(super) fn tell(&self, news: &News) {
        news.log();
        (self.on_news)(news);
    }

    /// Shows what the signing Secrets are worth: `readings` of all of them.
    pub(super) fn show_readings<'a>(
        &self,
        readings: &(impl Iterator<Item = &'a Result<Arc<Authority>, AuthorityError>> + Clone),
    ) {
        let state = if readings.clone().all(Result::is_ok) {
            SigningSecretState::Valid
        } else if can_sign(&self.signing.borrow()) {
            SigningSecretState::LastGood
        } else {
            SigningSecretState::Absent
        };
        self.metrics.set_signing_secret(state);
    }

    /// Shows and logs what a CA lacks although SPIFFE advises it.
    pub(super) fn show_advisories(&self, given: &[Advisory]) {
        for advisory in given {
            tracing::info!("{advisory}");
        }
        for (label, advisory) in [
            ("path_len_zero", Advisory::PathLength),
            ("name_constraints", Advisory::NameConstraints),
        ] {
            self.metrics.set_signing_advisory(label, given.contains(&advisory));
        }
    }

    /// Shows the keys of the ring and hands on what is revoked: by the stored state, or by an annotation that is not
    /// stored yet.
    pub(super) fn show_ring(&mut self, state: &RingState, annotated: &BTreeSet<String>) {
        let label = |state: KeyState| match state {
            KeyState::Published => "published",
            KeyState::Signing => "signing",
            KeyState::Retired => "retired",
        };
        let jwt = state.jwt.iter().map(|entry| (entry.id.clone(), label(entry.state)));
        let x509 = state.x509.iter().map(|entry| (entry.id.clone(), label(entry.state)));
        let keys: Vec<_> = jwt.chain(x509).collect();
        if keys != self.shown {
            self.metrics
                .set_key_states(keys.iter().map(|(id, state)| (id.as_str(), *state)));
            self.shown = keys;
        }
        let revoked: BTreeSet<String> = state.revoked.union(annotated).cloned().collect();
        self.revoked.send_if_modified(|held| {
            let changed = **held != revoked;
            if changed {
                *held = Arc::new(revoked);
            }
            changed
        });
    }
}
