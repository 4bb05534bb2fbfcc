//! From the spec of an ImagePolicy to a value that cannot hold a bad one. Pure.

use std::{sync::Arc, time::Duration};

use mintmark_api::{
    condition::reason,
    image_policy::{DigestReflectionPolicy, ImagePolicy},
};

use crate::{
    policy::TagPolicy,
    reconcile::{Settings, StepError},
    watch::ObjectKey,
};

/// An ImagePolicy whose every value is usable.
#[derive(Debug, Clone)]
pub struct ValidatedImagePolicy {
    /// The repository whose tags are selected from.
    pub repository: ObjectKey,
    /// How a tag is selected.
    pub policy: Arc<TagPolicy>,
    /// When its digest is looked up.
    pub digest: DigestReflectionPolicy,
    /// Time between two looks at the digest, before jitter.
    pub interval: Option<Duration>,
}

impl ValidatedImagePolicy {
    /// Checks every field. Every error is terminal.
    pub fn new(object: &ImagePolicy, settings: &Settings) -> Result<Self, StepError> {
        let spec = &object.spec;
        let digest = spec.digest_reflection_policy();
        if digest == DigestReflectionPolicy::Unknown {
            let message = "spec.digestReflectionPolicy is one of Always, IfNotPresent, Never";
            return Err(StepError::terminal(reason::INVALID_POLICY, message));
        }
        if let Some(rule) = spec.interval_contradiction() {
            return Err(StepError::terminal(reason::INTERVAL_NOT_CONFIGURED, rule.message));
        }
        let policy = TagPolicy::new(&spec.policy, spec.filter_tags.as_ref())
            .map_err(|error| StepError::terminal(reason::INVALID_POLICY, error.to_string()))?;
        let interval = spec
            .interval
            .map(|interval| interval.to_std().max(settings.min_interval));
        Ok(Self {
            repository: repository(object),
            policy: Arc::new(policy),
            digest,
            interval,
        })
    }
}

/// The repository that the policy names, whatever else is wrong with it.
pub(super) fn repository(object: &ImagePolicy) -> ObjectKey {
    let reference = &object.spec.image_repository_ref;
    let own = object.metadata.namespace.as_deref().unwrap_or_default();
    ObjectKey {
        namespace: reference.namespace().unwrap_or(own).into(),
        name: reference.name.as_str().into(),
    }
}
