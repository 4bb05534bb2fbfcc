//! From `spec` to a value that cannot hold a bad one: everything after [`ValidatedOciRepository::new`] relies on it and
//! checks no string again. Pure: what the spec refers to is fetched afterwards, see [`crate::reconcile::access`].

use std::{ops::Deref, sync::Arc, time::Duration};

use mintmark_api::{
    condition::reason,
    digest::Digest,
    oci_repository::{LayerOperation, LayerSelector, OciRepository, OciRepositoryRef, OciRepositorySpec},
    reference::{DEFAULT_TAG, Selection, Tag},
};

use crate::{
    reconcile::{
        Settings, StepError,
        access::{self, ValidatedAccess},
    },
    registry::RepositoryUrl,
    semver::{Constraint, TagFilter, TagForm, TagRange},
};

/// Media type of the layer with a Helm chart, as `helm push` makes it.
const HELM_CHART_LAYER: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";

/// An OCIRepository whose every value is usable.
#[derive(Debug, Clone)]
pub struct ValidatedOciRepository {
    /// Where to pull from, and as whom.
    pub access: ValidatedAccess,
    /// What to pull.
    pub reference: Reference,
    /// Media type of the layer to take; the first layer when absent.
    pub layer_media_type: Option<String>,
    /// What becomes of the layer.
    pub layer_operation: LayerOperation,
    /// As the object has it, for the record.
    pub layer_selector: Option<LayerSelector>,
    /// Time between passes, before jitter.
    pub interval: Duration,
}

/// A digest, a range of tags, or a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// The newest tag of a range, looked for in every pass.
    Semver(Arc<TagRange>),
    /// The revision is what the registry says the tag is.
    Tag(Tag),
    /// The revision is known.
    Digest(Digest),
}

impl Deref for ValidatedOciRepository {
    type Target = ValidatedAccess;

    fn deref(&self) -> &ValidatedAccess {
        &self.access
    }
}

impl ValidatedOciRepository {
    /// Checks every field. Every error but an unusable range, which Flux retries, is terminal: nothing but an edit of the
    /// object or of the flags mends it.
    pub fn new(object: &OciRepository, settings: &Settings) -> Result<Self, StepError> {
        let spec = &object.spec;
        unsupported_fields(spec)?;
        access::check_contradictions(spec)?;
        let url = RepositoryUrl::parse(&spec.url, spec.credential.is_some()).map_err(|error| {
            StepError::terminal(
                reason::URL_INVALID,
                format!("URL validation failed for '{}': {error}", spec.url),
            )
        })?;
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let access = ValidatedAccess::new(spec, url, namespace, spec.timeout().to_std(), settings)?;
        Ok(Self {
            reference: reference(spec)?,
            layer_media_type: spec
                .layer_selector
                .as_ref()
                .and_then(LayerSelector::media_type)
                .map(str::to_owned),
            layer_operation: layer_operation(spec),
            layer_selector: spec.layer_selector.clone(),
            interval: spec.interval.to_std().max(settings.min_interval),
            access,
        })
    }
}

/// Fields whose behaviour this version lacks are refused by name, never ignored.
fn unsupported_fields(spec: &OciRepositorySpec) -> Result<(), StepError> {
    access::check_provider(spec)?;
    if spec.verify.is_some() {
        let message = "spec.verify is not supported yet; nothing is pulled unverified";
        return Err(StepError {
            condition: None,
            ..StepError::terminal(reason::VERIFICATION_NOT_SUPPORTED, message)
        });
    }
    if layer_operation(spec) == LayerOperation::Unknown {
        return Err(StepError::unsupported("layerSelector.operation"));
    }
    Ok(())
}

fn layer_operation(spec: &OciRepositorySpec) -> LayerOperation {
    spec.layer_selector
        .as_ref()
        .map(LayerSelector::operation)
        .unwrap_or_default()
}

fn reference(spec: &OciRepositorySpec) -> Result<Reference, StepError> {
    let default = Selection::Tag(DEFAULT_TAG);
    let invalid = |what: &str, text: &str, error: &dyn std::fmt::Display| {
        StepError::terminal(
            reason::URL_INVALID,
            format!("spec.ref.{what} '{text}' is invalid: {error}"),
        )
    };
    match spec.reference.as_ref().map_or(default, OciRepositoryRef::selection) {
        Selection::Digest(text) => Digest::parse(text)
            .map(Reference::Digest)
            .map_err(|error| invalid("digest", text, &error)),
        Selection::Tag(text) => Tag::parse(text)
            .map(Reference::Tag)
            .map_err(|error| invalid("tag", text, &error)),
        Selection::Semver { range, filter } => {
            let undetermined = |why: String| {
                let message = format!("failed to determine the artifact tag for '{}': {why}", spec.url);
                StepError::fetch(reason::READ_OPERATION_FAILED, message)
            };
            let constraint = Constraint::parse(range)
                .map_err(|error| undetermined(format!("semver '{range}' parse error: {error}")))?;
            let filter = filter
                .map(TagFilter::new)
                .transpose()
                .map_err(|error| undetermined(format!("spec.ref.semverFilter: {error}")))?;
            let layer = spec.layer_selector.as_ref().and_then(LayerSelector::media_type);
            let form = match layer {
                Some(HELM_CHART_LAYER) => TagForm::HelmChart,
                _ => TagForm::Plain,
            };
            Ok(Reference::Semver(Arc::new(TagRange {
                constraint,
                filter,
                form,
            })))
        }
    }
}
