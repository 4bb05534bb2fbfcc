//! From the spec of an ImageRepository to a value that cannot hold a bad one. Pure.

use std::time::Duration;

use mintmark_api::{condition::reason, image_repository::ImageRepository};

use crate::{
    reconcile::{
        Settings, StepError,
        access::{self, ValidatedAccess},
    },
    tags::{Exclusions, ImageName},
};

/// An ImageRepository whose every value is usable.
#[derive(Debug, Clone)]
pub struct ValidatedImageRepository {
    /// Where to ask, and as whom.
    pub access: ValidatedAccess,
    /// The image's name, spelt out.
    pub canonical: String,
    /// Tags to leave out.
    pub exclusions: Exclusions,
    /// Time between scans, before jitter.
    pub interval: Duration,
}

impl ValidatedImageRepository {
    /// Checks every field. Every error but a bad exclusion pattern, which Flux retries, is terminal.
    pub fn new(object: &ImageRepository, settings: &Settings) -> Result<Self, StepError> {
        let spec = &object.spec;
        access::check_provider(spec)?;
        access::check_contradictions(spec)?;
        let name = ImageName::parse(&spec.image, spec.credential.is_some())
            .map_err(|error| StepError::terminal(reason::IMAGE_URL_INVALID, error.to_string()))?;
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let access = ValidatedAccess::new(spec, name.url, namespace, spec.timeout(), settings)?;
        let exclusions = Exclusions::new(spec.exclusion_list())
            .map_err(|error| StepError::fetch(reason::READ_OPERATION_FAILED, error.to_string()))?;
        Ok(Self {
            access,
            canonical: name.canonical,
            exclusions,
            interval: spec.interval.to_std().max(settings.min_interval),
        })
    }
}
