//! The kind `OCIRepository`, version v1 of group `source.toolkit.fluxcd.io`: Flux's schema plus `spec.credential`,
//! `spec.audiences` and `status.credential`.
//!
//! The API server enforces patterns, enums and rules. Decoding is lenient where a stored object may come from another
//! version of the definition: an unknown word in an enum becomes `Unknown`, for the controller to refuse by name.

use std::ops::Deref;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    artifact::Artifact, condition::Condition, credential::CredentialStatus, duration::GoDuration,
    registry_access::RegistryAccess,
};

pub use crate::{
    reference::OciRepositoryRef,
    registry_access::{LocalObjectReference, Provider},
};

/// API group of the kind.
pub const GROUP: &str = "source.toolkit.fluxcd.io";
/// Version of the kind.
pub const VERSION: &str = "v1";
/// The kind's name.
pub const KIND: &str = "OCIRepository";
/// Plural of the kind, used in API paths and in SPIFFE IDs.
pub const PLURAL: &str = "ocirepositories";

/// Bound of all registry requests of a pass when `spec.timeout` is absent.
pub const DEFAULT_TIMEOUT: GoDuration = GoDuration::from_secs(60);

/// What to pull, from where, how often, and as whom.
#[expect(
    clippy::duplicated_attributes,
    reason = "the columns are told apart by what stands beside the equal words"
)]
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "source.toolkit.fluxcd.io",
    version = "v1",
    kind = "OCIRepository",
    root = "OciRepository",
    plural = "ocirepositories",
    singular = "ocirepository",
    shortname = "ocirepo",
    category = "all",
    category = "fluxcd",
    category = "fluxcd-sources",
    namespaced,
    status = "OciRepositoryStatus",
    derive = "PartialEq",
    doc = "An OCI repository whose content is pulled and served as an artifact.",
    annotation("kustomize.toolkit.fluxcd.io/substitute", "disabled"),
    annotation("kustomize.toolkit.fluxcd.io/ssa", "Ignore"),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Credential", type_ = "string", json_path = ".spec.credential", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::add_credential_rules)]
pub struct OciRepositorySpec {
    /// Address of the repository, `oci://<host>[:<port>]/<path>`, without tag and digest.
    #[schemars(schema_with = "crate::schema::url")]
    pub url: String,
    /// Which version to pull; the tag `latest` by default.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<OciRepositoryRef>,
    /// Which layer to take and what to do with it. By default the first layer is extracted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_selector: Option<LayerSelector>,
    /// As whom and how the registry is asked.
    #[serde(flatten)]
    pub access: RegistryAccess,
    /// Signature that the artifact must carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// Time between two looks at the registry, for example `5m`. Some jitter is added.
    #[schemars(schema_with = "crate::schema::interval")]
    pub interval: GoDuration,
    /// Bound of all registry requests of one pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::timeout")]
    pub timeout: Option<GoDuration>,
    /// Patterns in gitignore syntax of files to leave out of the artifact. Absent means a built-in list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<String>,
    /// Leave the object alone; what is stored stays served.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// Which layer of the manifest becomes the artifact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LayerSelector {
    /// Media type of the layer; the first that matches is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// `extract` unpacks the layer and archives its files anew, `copy` keeps the layer's bytes. Default: `extract`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::layer_operation")]
    pub operation: Option<LayerOperation>,
}

impl LayerSelector {
    /// The wanted media type; `None` (or empty) takes the first layer.
    pub fn media_type(&self) -> Option<&str> {
        self.media_type.as_deref().filter(|text| !text.is_empty())
    }

    /// The operation, `extract` by default.
    pub fn operation(&self) -> LayerOperation {
        self.operation.unwrap_or_default()
    }
}

/// What happens to the selected layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerOperation {
    /// Unpack and archive anew.
    #[default]
    Extract,
    /// Keep the bytes.
    Copy,
    /// A word of another version.
    #[serde(other)]
    Unknown,
}

/// How the artifact's signature is verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// Signing technology.
    #[schemars(schema_with = "crate::schema::verify_provider")]
    pub provider: VerifyProvider,
    /// Secret with the trusted public keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalObjectReference>,
    /// Secret with a Sigstore trusted root under the key `trusted_root.json`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_root_secret_ref: Option<LocalObjectReference>,
    /// Identities accepted for a keyless signature; one that matches is enough.
    #[serde(default, rename = "matchOIDCIdentity", skip_serializing_if = "Vec::is_empty")]
    pub match_oidc_identity: Vec<OidcIdentityMatch>,
}

/// Signing technology.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyProvider {
    /// Sigstore Cosign.
    #[default]
    Cosign,
    /// Notary Project.
    Notation,
    /// A word of another version.
    #[serde(other)]
    Unknown,
}

/// Identity of a keyless signature. Both are regular expressions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OidcIdentityMatch {
    /// Issuer in the signing certificate.
    pub issuer: String,
    /// Subject of the signing certificate.
    pub subject: String,
}

/// What was found and stored. Tenants can write it, so nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OciRepositoryStatus {
    /// Generation of the object that the status speaks about; -1 before the first pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// State of the object, one condition per aspect; `Ready` sums them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Address under which the newest artifact can always be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The artifact that is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// Value of `spec.ignore` that the artifact was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_ignore: Option<String>,
    /// Value of `spec.layerSelector` that the artifact was made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_layer_selector: Option<LayerSelector>,
    /// Last value of the annotation `reconcile.fluxcd.io/requestedAt` that a pass has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// Fingerprint of the verification settings that the artifact was verified with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_verification_fingerprint: Option<String>,
    /// The credential that was presented last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialStatus>,
}

impl OciRepositorySpec {
    /// The timeout of a pass, [`DEFAULT_TIMEOUT`] when the object names none.
    pub fn timeout(&self) -> GoDuration {
        self.timeout.unwrap_or(DEFAULT_TIMEOUT)
    }
}

/// The shared fields read like the spec's own, as they stand in manifests.
impl Deref for OciRepositorySpec {
    type Target = RegistryAccess;

    fn deref(&self) -> &RegistryAccess {
        &self.access
    }
}

#[cfg(test)]
mod tests;
