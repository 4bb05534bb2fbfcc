//! Settings of the reconcile loop that come from flags and hold for every object.

use std::{sync::Arc, time::Duration};

use crate::content::Limits;

/// Limits and defaults of every pass.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The controller's own namespace.
    pub runtime_namespace: Arc<str>,
    /// Secrets in that namespace that hold the issuer's keys.
    pub issuer_secrets: Vec<String>,
    /// `--default-service-account`.
    pub default_service_account: Option<String>,
    /// `--min-interval`.
    pub min_interval: Duration,
    /// `--max-timeout`.
    pub max_timeout: Duration,
    /// `--interval-jitter-percentage`.
    pub interval_jitter_percent: u8,
    /// `--requeue-dependency`.
    pub requeue_dependency: Duration,
    /// `--no-cross-namespace-refs`.
    pub no_cross_namespace_refs: bool,
    /// `--allow-cross-namespace-credentials`.
    pub allow_cross_namespace_credentials: bool,
    /// `--artifact-max-size` in bytes; 0 = no limit.
    pub artifact_max_size: u64,
    /// What a layer may unpack to.
    pub extract_limits: Limits,
}

impl Settings {
    /// Whether a reference to `name` in `namespace` points at the issuer's keys.
    pub fn is_issuer_secret(&self, namespace: &str, name: &str) -> bool {
        namespace == &*self.runtime_namespace && self.issuer_secrets.iter().any(|secret| secret == name)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The defaults, in namespace `mintmark-system` with a signing Secret `mintmark-signing`.
    pub(in crate::reconcile) fn settings() -> Settings {
        Settings {
            runtime_namespace: "mintmark-system".into(),
            issuer_secrets: vec!["mintmark-signing".to_owned()],
            default_service_account: None,
            min_interval: Duration::from_secs(1),
            max_timeout: Duration::from_mins(10),
            interval_jitter_percent: 5,
            requeue_dependency: Duration::from_secs(30),
            no_cross_namespace_refs: false,
            allow_cross_namespace_credentials: false,
            artifact_max_size: 0,
            extract_limits: Limits::default(),
        }
    }
}
