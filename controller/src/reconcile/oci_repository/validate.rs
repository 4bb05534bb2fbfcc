//! From `spec` to a value that cannot hold a bad one: everything after [`ValidatedOciRepository::new`] relies on it and
//! checks no string again. Pure: what the spec refers to is fetched by [`super::dereference`] afterwards.

use std::{sync::Arc, time::Duration};

use mintmark_api::{
    condition::reason,
    credential::CredentialKind,
    credential_contradictions,
    digest::Digest,
    oci_repository::{LayerOperation, LayerSelector, OciRepository, OciRepositoryRef, OciRepositorySpec, Provider},
    reference::{DEFAULT_TAG, Selection, Tag},
};

use crate::{
    credential::{Audience, Wanted},
    reconcile::{Settings, StepError},
    registry::{Origin, RepositoryUrl},
    semver::{Constraint, TagFilter, TagForm, TagRange},
};

/// Media type of the layer with a Helm chart, as `helm push` makes it.
const HELM_CHART_LAYER: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";

/// An OCIRepository whose every value is usable.
#[derive(Debug, Clone)]
pub struct ValidatedOciRepository {
    /// Where to pull from.
    pub url: RepositoryUrl,
    /// The registry.
    pub origin: Origin,
    /// What to pull.
    pub reference: Reference,
    /// Media type of the layer to take; the first layer when absent.
    pub layer_media_type: Option<String>,
    /// What becomes of the layer.
    pub layer_operation: LayerOperation,
    /// As the object has it, for the record.
    pub layer_selector: Option<LayerSelector>,
    /// What to present.
    pub credential: Wanted,
    /// Where a login comes from when there is no credential.
    pub login: LoginFrom,
    /// Secret with the registry's CA and a client certificate, or either.
    pub cert_secret: Option<String>,
    /// Secret with the proxy.
    pub proxy_secret: Option<String>,
    /// Time between passes, before jitter.
    pub interval: Duration,
    /// Bound of all registry I/O of a pass.
    pub timeout: Duration,
}

/// Who says which login is presented, in an object without a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginFrom {
    /// Nobody: the pull is anonymous, or the credential is another one.
    Nobody,
    /// The Secret of `secretRef`, which has to have one.
    SecretRef(String),
    /// The imagePullSecrets of this account, if one of them has one.
    Account(String),
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

impl ValidatedOciRepository {
    /// Checks every field. Every error but an unusable range, which Flux retries, is terminal: nothing but an edit of the
    /// object or of the flags mends it.
    pub fn new(object: &OciRepository, settings: &Settings) -> Result<Self, StepError> {
        let spec = &object.spec;
        unsupported_fields(spec)?;
        credential_contradictions(spec)
            .map_err(|rule| StepError::terminal(reason::CREDENTIAL_INVALID, rule.to_string()))?;
        let url = RepositoryUrl::parse(&spec.url, spec.credential.is_some()).map_err(|error| {
            StepError::terminal(
                reason::URL_INVALID,
                format!("URL validation failed for '{}': {error}", spec.url),
            )
        })?;
        let credential = wanted(object, settings)?;
        let origin = url.origin(spec.insecure);
        check_issuer_secret(object, settings)?;
        Ok(Self {
            reference: reference(spec)?,
            layer_media_type: spec
                .layer_selector
                .as_ref()
                .and_then(LayerSelector::media_type)
                .map(str::to_owned),
            layer_operation: layer_operation(spec),
            layer_selector: spec.layer_selector.clone(),
            login: login_from(spec, settings),
            cert_secret: spec.cert_secret_ref.as_ref().map(|reference| reference.name.clone()),
            proxy_secret: spec.proxy_secret_ref.as_ref().map(|reference| reference.name.clone()),
            interval: spec.interval.to_std().max(settings.min_interval),
            timeout: spec.timeout().to_std().min(settings.max_timeout),
            url,
            origin,
            credential,
        })
    }
}

/// Fields whose behaviour this version lacks are refused by name, never ignored.
fn unsupported_fields(spec: &OciRepositorySpec) -> Result<(), StepError> {
    if spec.provider() != Provider::Generic {
        let message = "spec.provider: only generic is supported";
        return Err(StepError {
            condition: None,
            ..StepError::terminal(reason::PROVIDER_NOT_SUPPORTED, message)
        });
    }
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

fn wanted(object: &OciRepository, settings: &Settings) -> Result<Wanted, StepError> {
    let audiences = || -> Result<Arc<[Audience]>, StepError> {
        let mut audiences = object
            .spec
            .audiences
            .iter()
            .flatten()
            .map(|audience| {
                Audience::new(audience.as_str()).map_err(|error| {
                    StepError::terminal(reason::CREDENTIAL_INVALID, format!("spec.audiences: {error}"))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        audiences.sort();
        Ok(audiences.into())
    };
    match object.spec.credential {
        None => Ok(Wanted::Anonymous),
        Some(CredentialKind::SpiffeCertificate) => Ok(Wanted::SpiffeCertificate),
        Some(CredentialKind::SpiffeJwt) => Ok(Wanted::SpiffeJwt {
            audiences: audiences()?,
            life: None,
        }),
        Some(CredentialKind::ServiceAccountToken) => {
            let account = object
                .spec
                .service_account_name()
                .or(settings.default_service_account.as_deref());
            Ok(Wanted::ServiceAccountToken {
                account: account.map(Into::into),
                audiences: audiences()?,
                life: None,
            })
        }
        // Refused by `credential_contradictions` before.
        Some(CredentialKind::Unknown) => Err(StepError::terminal(
            reason::CREDENTIAL_INVALID,
            "spec.credential is unknown",
        )),
    }
}

/// `secretRef` alone decides where there is one: a login is not replaced by another. With a credential there is none.
fn login_from(spec: &OciRepositorySpec, settings: &Settings) -> LoginFrom {
    if spec.credential.is_some() {
        return LoginFrom::Nobody;
    }
    let account = spec
        .service_account_name()
        .or(settings.default_service_account.as_deref());
    match (&spec.secret_ref, account) {
        (Some(secret), _) => LoginFrom::SecretRef(secret.name.clone()),
        (None, Some(account)) => LoginFrom::Account(account.to_owned()),
        (None, None) => LoginFrom::Nobody,
    }
}

/// The issuer's own Secrets hold private keys: no object may point at them.
fn check_issuer_secret(object: &OciRepository, settings: &Settings) -> Result<(), StepError> {
    let spec = &object.spec;
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let references = [
        ("certSecretRef", &spec.cert_secret_ref),
        ("proxySecretRef", &spec.proxy_secret_ref),
        ("secretRef", &spec.secret_ref),
    ];
    for (field, reference) in references {
        if let Some(reference) = reference
            && settings.is_issuer_secret(namespace, &reference.name)
        {
            let message = format!("spec.{field} names a Secret of the issuer");
            return Err(StepError::terminal(reason::CREDENTIAL_INVALID, message));
        }
    }
    Ok(())
}
