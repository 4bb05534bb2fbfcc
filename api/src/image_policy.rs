//! The kind `ImagePolicy`, version v1 of group `image.toolkit.fluxcd.io`, as Flux has it: selects one of the tags that an
//! ImageRepository found.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{condition::Condition, duration::GoDuration, schema::CelRule};

/// The kind's name.
pub const KIND: &str = "ImagePolicy";
/// Plural of the kind, used in API paths.
pub const PLURAL: &str = "imagepolicies";

/// `spec.interval` belongs to the policy that looks digests up again and again. The messages are Flux's.
pub const INTERVAL_WITHOUT_ALWAYS: CelRule = CelRule {
    rule: "!has(self.interval) || (has(self.digestReflectionPolicy) && self.digestReflectionPolicy == 'Always')",
    message: "spec.interval is only accepted when spec.digestReflectionPolicy is set to 'Always'",
};

/// Looking digests up again and again needs an interval.
pub const ALWAYS_WITHOUT_INTERVAL: CelRule = CelRule {
    rule: "has(self.interval) || !has(self.digestReflectionPolicy) || self.digestReflectionPolicy != 'Always'",
    message: "spec.interval must be set when spec.digestReflectionPolicy is set to 'Always'",
};

/// Which tag to select, and whether its digest is looked up.
#[expect(
    clippy::duplicated_attributes,
    reason = "the columns are told apart by what stands beside the equal words"
)]
#[derive(CustomResource, Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "image.toolkit.fluxcd.io",
    version = "v1",
    kind = "ImagePolicy",
    plural = "imagepolicies",
    singular = "imagepolicy",
    shortname = "imgpol",
    shortname = "imagepol",
    category = "all",
    category = "fluxcd",
    category = "fluxcd-images",
    namespaced,
    status = "ImagePolicyStatus",
    derive = "PartialEq",
    doc = "A rule that selects the latest of an image repository's tags.",
    annotation("kustomize.toolkit.fluxcd.io/substitute", "disabled"),
    annotation("kustomize.toolkit.fluxcd.io/ssa", "Ignore"),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.latestRef.name"),
    printcolumn(name = "Tag", type_ = "string", json_path = ".status.latestRef.tag"),
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
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::schema::add_interval_rules)]
pub struct ImagePolicySpec {
    /// The ImageRepository whose tags are selected from.
    pub image_repository_ref: NamespacedObjectReference,
    /// How the tags are ordered. One of the fields is set; of several the first counts.
    pub policy: PolicyChoice,
    /// Which tags are considered, and what of them; all of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_tags: Option<TagFilterSpec>,
    /// Whether `status.latestRef.digest` tells the digest of the selected tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::digest_reflection_policy")]
    pub digest_reflection_policy: Option<DigestReflectionPolicy>,
    /// Time between two looks at the digest. Only, and always, with `digestReflectionPolicy: Always`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::interval")]
    pub interval: Option<GoDuration>,
    /// Leave the object alone; what was selected stays.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

/// Name of an object in this or another namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct NamespacedObjectReference {
    /// Name of the object.
    pub name: String,
    /// Its namespace; the one of the referring object by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl NamespacedObjectReference {
    /// The namespace that is named; an empty one counts as absent.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref().filter(|namespace| !namespace.is_empty())
    }
}

/// How tags are ordered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyChoice {
    /// As versions, within a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semver: Option<SemverPolicy>,
    /// Byte by byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alphabetical: Option<OrderPolicy>,
    /// As numbers, which all of them have to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numerical: Option<OrderPolicy>,
}

/// The newest version within a range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SemverPolicy {
    /// Range of versions, for example `1.x`.
    pub range: String,
}

/// The last in an order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderPolicy {
    /// `asc` selects the greatest, `desc` the least. Default: `asc`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::order")]
    pub order: Option<Order>,
}

/// Direction of an order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Ascending: the last is the greatest.
    #[default]
    Asc,
    /// Descending: the last is the least.
    Desc,
    /// A word of another version.
    #[serde(other)]
    Unknown,
}

/// Which tags are considered, and what of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TagFilterSpec {
    /// Regular expression, found anywhere in the tag unless it is anchored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// What is ordered in place of the tag: a text with the groups of `pattern` as `$1`, `${1}` or `$name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extract: Option<String>,
}

/// Whether the digest of the selected tag is looked up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DigestReflectionPolicy {
    /// In every pass.
    Always,
    /// When the selected tag changed or has no digest yet.
    IfNotPresent,
    /// Not at all.
    #[default]
    Never,
    /// A word of another version.
    #[serde(other)]
    Unknown,
}

impl ImagePolicySpec {
    /// The policy for digests, `Never` when the object names none.
    pub fn digest_reflection_policy(&self) -> DigestReflectionPolicy {
        self.digest_reflection_policy.unwrap_or_default()
    }

    /// Which of the two rules about `interval` the object breaks, for one that is older than the rules.
    pub fn interval_contradiction(&self) -> Option<CelRule> {
        let is_always = self.digest_reflection_policy() == DigestReflectionPolicy::Always;
        match (&self.interval, is_always) {
            (Some(_), false) => Some(INTERVAL_WITHOUT_ALWAYS),
            (None, true) => Some(ALWAYS_WITHOUT_INTERVAL),
            _ => None,
        }
    }
}

/// What was selected. Tenants can write it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImagePolicyStatus {
    /// Generation of the object that the status speaks about; -1 before the first pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// State of the object, one condition per aspect; `Ready` sums them up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    pub conditions: Vec<Condition>,
    /// The selected image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_ref: Option<ImageRef>,
    /// What was selected before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_previous_ref: Option<ImageRef>,
    /// Last value of the annotation `reconcile.fluxcd.io/requestedAt` that a pass has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
}

/// An image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageRef {
    /// Name of the image as the ImageRepository has it.
    pub name: String,
    /// The tag.
    pub tag: String,
    /// Digest of the tag's manifest when it was looked up.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
}

#[cfg(test)]
mod tests;
