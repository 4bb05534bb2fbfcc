//! The artifact as it stands in `status.artifact`: what a consumer fetches and how it checks it.
//!
//! Status can be written by anybody with rights on the object, so these are plain strings: nothing may be decided by
//! them. What is really stored is recorded beside the stored file.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A stored archive and where to fetch it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// Digest of the served file as `<algorithm>:<hex>`.
    #[schemars(schema_with = "crate::schema::artifact_digest")]
    pub digest: String,
    /// When the artifact was stored.
    #[schemars(schema_with = "crate::schema::date_time")]
    pub last_update_time: Time,
    /// Annotations of the manifest that the content was taken from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Path of the file below the root of the artifact storage.
    pub path: String,
    /// What the content is at its origin: `<tag>@sha256:<hex>`, or `sha256:<hex>` when pulled by digest.
    pub revision: String,
    /// Size of the served file in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
    /// HTTP address from which consumers fetch the file.
    pub url: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_what_flux_writes() {
        let json = serde_json::json!({
            "digest": "sha256:3b6cdcc7adcc9a84d3214ee1c029543789d90b5ae69debe9efa3f66e982875de",
            "lastUpdateTime": "2026-06-30T08:11:12Z",
            "metadata": {"org.opencontainers.image.created": "2026-06-30T08:00:00Z"},
            "path": "ocirepository/apps/podinfo/sha256:3b6c.tar.gz",
            "revision": "6.5.1@sha256:d28bcd0bb2a5e1c1ec0a2c2a1f8a2a4c1d3f1e2b8a6a3c4e5f60718293a4b5c6",
            "size": 1105,
            "url": "http://source-controller.flux-system.svc.cluster.local./ocirepository/apps/podinfo/sha256:3b6c.tar.gz",
        });
        let artifact: Artifact = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(artifact.size, Some(1105));
        assert_eq!(serde_json::to_value(&artifact).unwrap(), json);
    }

    #[test]
    fn metadata_and_size_may_be_absent() {
        let artifact: Artifact = serde_json::from_value(serde_json::json!({
            "digest": "sha256:00", "lastUpdateTime": "2026-06-30T08:11:12Z", "path": "p", "revision": "r", "url": "u",
        }))
        .unwrap();
        assert!(artifact.metadata.is_empty());
        assert_eq!(artifact.size, None);
    }
}
