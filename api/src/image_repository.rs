//! The kind `ImageRepository`, version v1 of group `image.toolkit.fluxcd.io`: Flux's schema plus `spec.credential`,
//! `spec.audiences` and `status.credential`. It lists the tags of an image, for image policies to select from.
//!
//! Decoding is lenient as in [`crate::oci_repository`]; the controller checks what it needs.

use std::{collections::BTreeMap, ops::Deref, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    condition::Condition, credential::CredentialStatus, duration::GoDuration, registry_access::RegistryAccess,
};

/// The kind's name.
pub const KIND: &str = "ImageRepository";
/// Plural of the kind, used in API paths and in SPIFFE IDs.
pub const PLURAL: &str = "imagerepositories";

/// The exclusion list of an object that has none: signatures that Cosign stores beside images.
pub const DEFAULT_EXCLUSION_LIST: [&str; 1] = [r"^.*\.sig$"];

/// Most items in `exclusionList`.
pub const MAX_EXCLUSIONS: usize = 25;

/// Tags shown in `status.lastScanResult.latestTags`, at most.
pub const MAX_LATEST_TAGS: usize = 10;

/// The shortest timeout of a scan.
const MIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Which image to look at, how often, as whom, and who may use the result.
#[expect(
    clippy::duplicated_attributes,
    reason = "the columns are told apart by what stands beside the equal words"
)]
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "image.toolkit.fluxcd.io",
    version = "v1",
    kind = "ImageRepository",
    plural = "imagerepositories",
    singular = "imagerepository",
    shortname = "imgrepo",
    shortname = "imagerepo",
    category = "all",
    category = "fluxcd",
    category = "fluxcd-images",
    namespaced,
    status = "ImageRepositoryStatus",
    derive = "PartialEq",
    doc = "An image repository whose tags are listed.",
    annotation("kustomize.toolkit.fluxcd.io/substitute", "disabled"),
    annotation("kustomize.toolkit.fluxcd.io/ssa", "Ignore"),
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image"),
    printcolumn(name = "Tags", type_ = "string", json_path = ".status.lastScanResult.tagCount"),
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
    printcolumn(
        name = "Last scan",
        type_ = "string",
        json_path = ".status.lastScanResult.scanTime",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::add_credential_rules, transform = crate::schema::limit_account_name)]
pub struct ImageRepositorySpec {
    /// Name of the image, `[<host>[:<port>]/]<path>`, without scheme, tag and digest.
    pub image: String,
    /// Time between two scans, for example `5m`.
    #[schemars(schema_with = "crate::schema::interval")]
    pub interval: GoDuration,
    /// Bound of a whole scan; the interval by default, at least a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::scan_timeout")]
    pub timeout: Option<GoDuration>,
    /// As whom and how the registry is asked.
    #[serde(flatten)]
    pub access: RegistryAccess,
    /// Who may use the result from another namespace; nobody by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_from: Option<AccessFrom>,
    /// Regular expressions of tags to leave out, found anywhere in the tag unless they are anchored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::exclusion_list")]
    pub exclusion_list: Option<Vec<String>>,
    /// Scan no more; what was found stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// Namespaces from which an object may be referred to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccessFrom {
    /// A namespace is let in when one of them selects it.
    pub namespace_selectors: Vec<NamespaceSelector>,
}

/// Selects namespaces by their labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// Labels a namespace must have, all of them. None selects every namespace.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

impl AccessFrom {
    /// Whether a namespace with these labels is let in.
    pub fn admits(&self, labels: &BTreeMap<String, String>) -> bool {
        self.namespace_selectors.iter().any(|selector| {
            let mut wanted = selector.match_labels.iter();
            wanted.all(|(name, value)| labels.get(name) == Some(value))
        })
    }
}

impl ImageRepositorySpec {
    /// The bound of a scan: the timeout, else the interval, and a second at least.
    pub fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(self.interval).to_std().max(MIN_TIMEOUT)
    }

    /// The patterns in force; an empty list counts as absent.
    pub fn exclusion_list(&self) -> Vec<&str> {
        match self.exclusion_list.as_deref() {
            None | Some([]) => DEFAULT_EXCLUSION_LIST.to_vec(),
            Some(patterns) => patterns.iter().map(String::as_str).collect(),
        }
    }
}

/// The shared fields read like the spec's own, as they stand in manifests.
impl Deref for ImageRepositorySpec {
    type Target = RegistryAccess;

    fn deref(&self) -> &RegistryAccess {
        &self.access
    }
}

/// What was found. Tenants can write it, so nothing is decided by it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageRepositoryStatus {
    /// Generation of the object that the status speaks about; -1 before the first pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// State of the object, one condition per aspect; `Ready` sums them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// Name of the image with everything spelt out, for example `index.docker.io/library/alpine` for `alpine`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canonical_image_name: Option<String>,
    /// What the last successful scan found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_scan_result: Option<ScanResult>,
    /// Value of `spec.exclusionList` that the last scan was made with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub observed_exclusion_list: Vec<String>,
    /// Last value of the annotation `reconcile.fluxcd.io/requestedAt` that a pass has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// The credential that was presented last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialStatus>,
}

/// Outcome of a scan.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScanResult {
    /// Digest of the tags, `sha256:<hex>`: it changes when they do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// How many tags there are, without those left out.
    #[schemars(schema_with = "crate::schema::integer")]
    pub tag_count: i64,
    /// When the scan was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::date_time")]
    pub scan_time: Option<Time>,
    /// The last ten tags by bytes, in descending order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub latest_tags: Vec<String>,
}

#[cfg(test)]
mod tests;
