//! The audit log of credentials: one line per minting and one per first presentation to an origin, at every log level.
//! Everything in a line is public; the token and the key never are part of it.

use jiff::Timestamp;

use super::{Audience, ObjectIdentity};
use crate::{
    registry::{Observer, Outcome, Presentation},
    runtime::{log::AUDIT, metrics::Metrics},
};

/// A credential was minted here or issued by the API server. `id` is a JWT's `jti` or a certificate's serial number.
pub(super) fn minted(
    object: &ObjectIdentity,
    subject: &str,
    audiences: &[Audience],
    id: &str,
    key_id: &str,
    expires_at: Timestamp,
) {
    let audiences = audiences.iter().map(Audience::as_str).collect::<Vec<_>>().join(" ");
    tracing::info!(target: AUDIT, controllerKind = object.kind, namespace = &*object.namespace, name = &*object.name,
        uid = &*object.uid, subject, audiences, id, keyID = key_id, expires = %expires_at, "credential issued");
}

/// Counts registry requests and writes first presentations to the audit log.
#[derive(Debug, Clone)]
pub struct AuditObserver(Metrics);

impl AuditObserver {
    /// Counts into `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        Self(metrics)
    }
}

impl Observer for AuditObserver {
    fn request(&self, host: &str, outcome: Outcome) {
        self.0.registry_request(host, outcome.as_str());
    }

    fn invalid_tags(&self, count: usize) {
        self.0.invalid_tags(count);
    }

    fn presented(&self, presentation: Presentation<'_>) {
        tracing::info!(target: AUDIT, namespace = presentation.namespace, uid = presentation.object_uid,
            credential = &*presentation.generation.0, origin = %presentation.origin, outcome = presentation.outcome.as_str(),
            "credential presented");
    }
}
