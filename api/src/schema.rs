//! Pieces of the CRD schema that no Rust type expresses: patterns, closed lists of words, defaults, CEL rules.
//!
//! Patterns and defaults are those of Flux's definition; an integration test compares the result with it.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::{
    credential::CredentialKind,
    image_policy::{ALWAYS_WITHOUT_INTERVAL, INTERVAL_WITHOUT_ALWAYS},
    image_repository::{DEFAULT_EXCLUSION_LIST, MAX_EXCLUSIONS},
    rules::{CredentialRule, MAX_AUDIENCE_LEN, MAX_AUDIENCES},
};

pub(crate) fn url(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^oci://.*$"})
}

pub(crate) fn interval(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"})
}

pub(crate) fn timeout(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m))+$", "default": "60s"})
}

/// The timeout of a scan, whose default is another field.
pub(crate) fn scan_timeout(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = timeout(generator);
    schema.remove("default");
    schema
}

pub(crate) fn exclusion_list(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {"type": "string"},
        "maxItems": MAX_EXCLUSIONS,
        "default": DEFAULT_EXCLUSION_LIST,
    })
}

pub(crate) fn order(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["asc", "desc"], "default": "asc"})
}

pub(crate) fn digest_reflection_policy(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["Always", "IfNotPresent", "Never"], "default": "Never"})
}

/// Without the bounds of a machine word, which Flux does not state.
pub(crate) fn integer(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "integer"})
}

pub(crate) fn provider(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["generic", "aws", "azure", "gcp"], "default": "generic"})
}

pub(crate) fn verify_provider(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["cosign", "notation"], "default": "cosign"})
}

pub(crate) fn layer_operation(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["extract", "copy"]})
}

pub(crate) fn credential_kind(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": CredentialKind::ALL.map(CredentialKind::as_str)})
}

/// `x-kubernetes-list-type: set` is how a structural schema says that items are unique.
pub(crate) fn audiences(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": {"type": "string", "minLength": 1, "maxLength": MAX_AUDIENCE_LEN},
        "minItems": 1,
        "maxItems": MAX_AUDIENCES,
        "x-kubernetes-list-type": "set",
    })
}

pub(crate) fn artifact_digest(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "pattern": "^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$"})
}

pub(crate) fn date_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "format": "date-time"})
}

/// The shape of `meta/v1` conditions, as every kind of Kubernetes declares it.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    let name = "([a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?";
    let kind = format!("^{name}(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$");
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "description": "State of one aspect of the object.",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "type": "string", "format": "date-time", "description": "When the condition last changed.",
                },
                "message": {"type": "string", "maxLength": 32768, "description": "Details for people; may be empty."},
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "Generation of the object that the condition speaks about.",
                },
                "reason": {
                    "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why the condition has its status, in one word for programs.",
                },
                "status": {
                    "type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether the condition holds.",
                },
                "type": {
                    "type": "string", "maxLength": 316, "pattern": kind, "description": "The aspect, in one word.",
                },
            },
        },
    })
}

/// A rule of a definition, over `spec` as `self`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CelRule {
    /// True when it is kept.
    pub rule: &'static str,
    /// What the user is told.
    pub message: &'static str,
}

/// Adds the two rules about the interval of an image policy.
pub(crate) fn add_interval_rules(schema: &mut Schema) {
    let rules = [INTERVAL_WITHOUT_ALWAYS, ALWAYS_WITHOUT_INTERVAL];
    let rules = rules.map(|rule| json!({"rule": rule.rule, "message": rule.message}));
    schema.insert("x-kubernetes-validations".to_owned(), json!(rules));
}

/// Longest name of an account, where Flux's definition limits it.
const MAX_ACCOUNT_NAME: usize = 253;

/// Limits `serviceAccountName`, which only some kinds do.
pub(crate) fn limit_account_name(schema: &mut Schema) {
    if let Some(Value::Object(name)) = schema.pointer_mut("/properties/serviceAccountName") {
        name.insert("maxLength".to_owned(), json!(MAX_ACCOUNT_NAME));
    }
}

/// Adds the rules of [`CredentialRule::CEL`] to the schema of `spec`.
pub(crate) fn add_credential_rules(schema: &mut Schema) {
    let rules: Vec<Value> = CredentialRule::CEL
        .into_iter()
        .filter_map(|rule| {
            Some(json!({
                "rule": rule.cel()?,
                "message": rule.message(),
                "fieldPath": rule.field_path(),
                "reason": rule.reason(),
            }))
        })
        .collect();
    schema.insert("x-kubernetes-validations".to_owned(), Value::Array(rules));
}
