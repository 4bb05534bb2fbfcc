//! What the port is served from besides code: Secrets that are followed, of which the last good content is kept. One
//! [`Input`] tells, for its Secret, the log, the gauge and the readiness gate what it is worth.

use std::fmt::Display;

use crate::runtime::{
    health::Gate,
    metrics::{Metrics, SigningSecretState},
};

/// What is told about one followed Secret.
pub(super) struct Input {
    /// `state` or `tls`: the label of the gauge.
    pub(super) label: &'static str,
    /// The Secret's name, for the log.
    pub(super) secret: String,
    pub(super) metrics: Metrics,
    /// Opened by the first good content, never closed again.
    pub(super) gate: Option<Gate>,
    pub(super) is_loaded: bool,
}

impl Input {
    pub(super) fn new(label: &'static str, secret: &str, metrics: Metrics, gate: Option<Gate>) -> Self {
        metrics.set_issuer_input(label, SigningSecretState::Absent);
        Self {
            label,
            secret: secret.to_owned(),
            metrics,
            gate,
            is_loaded: false,
        }
    }

    pub(super) fn accepted(&mut self) {
        self.is_loaded = true;
        self.metrics.set_issuer_input(self.label, SigningSecretState::Valid);
        if let Some(gate) = &self.gate {
            gate.open();
        }
    }

    pub(super) fn refused(&self, error: &dyn Display) {
        let secret = &self.secret;
        if self.is_loaded {
            self.metrics.set_issuer_input(self.label, SigningSecretState::LastGood);
            tracing::error!(%secret, %error, "cannot be used; what it held before stays in force");
        } else {
            tracing::error!(%secret, %error, "cannot be used; waiting for another");
            if let Some(gate) = &self.gate {
                gate.close(format!("Secret {secret}: {error}"));
            }
        }
    }
}
