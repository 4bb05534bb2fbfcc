//! What stands beside a stored file, an archive or the tags of an image: what it is, and everything it was made from. A pass is a no-op only if its own
//! [`Binding`] equals the recorded one, so a change of credential, URL or referents never inherits earlier contents.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{error::StorageError, key::file_name};

/// The format this program writes. A record of any other is treated as absent and the artifact is built anew.
const FORMAT: u32 = 1;

/// Longest record that is read: annotations are at most 64 KiB, the rest is short.
pub(super) const MAX_RECORD: u64 = 1024 * 1024;

/// Everything that decides what an object's artifact contains, but the revision that the registry answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The object's UID.
    pub uid: String,
    /// `spec.url`; of an image its canonical name.
    pub url: String,
    /// The credential that the contents were pulled with; none is anonymous.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialBinding>,
    /// Secrets and service accounts the pull depended on: a name such as `Secret/ca` to a resource version or hash.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub referents: BTreeMap<String, String>,
    /// `spec.ignore`; absent and empty differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore: Option<String>,
    /// `spec.layerSelector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_selector: Option<LayerBinding>,
    /// The patterns of an image's tags that were left out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub exclusions: BTreeSet<String>,
}

/// Type, subject and audiences of a credential: who pulled, not with which key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialBinding {
    /// The kind as in `spec.credential`, or another way of pulling.
    pub kind: String,
    /// The subject, for example a SPIFFE ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Audiences of a token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
}

/// `spec.layerSelector` as the artifact was made with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerBinding {
    /// `mediaType`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// `operation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
}

/// What a scan of an image's tags found, besides the tags.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// When it was made.
    pub time: Timestamp,
    /// How many tags there are.
    pub tag_count: usize,
    /// Bytes of the tags, each with its line feed.
    pub bytes: u64,
    /// The last ones by bytes.
    pub latest_tags: Vec<String>,
    /// The request that it answered, a value of `reconcile.fluxcd.io/requestedAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<String>,
}

/// What the caller knows of an artifact that is about to be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    /// What it was made from.
    pub binding: Binding,
    /// `<tag>@<digest>` or `<digest>`, as the registry resolved it; the digest of an image's tags.
    pub revision: String,
    /// The manifest's annotations.
    pub metadata: BTreeMap<String, String>,
    /// Of an image: the file holds its tags.
    pub scan: Option<Box<Scan>>,
}

impl Draft {
    /// The name of the file that is stored.
    pub(super) fn file_name(&self) -> Result<String, StorageError> {
        stored_name(&self.revision, self.scan.as_deref())
    }
}

/// An archive is named by what it was made from; there is one list of tags.
fn stored_name(revision: &str, scan: Option<&Scan>) -> Result<String, StorageError> {
    scan.map_or_else(|| file_name(revision), |scan| Ok(scan.file_name().to_owned()))
}

/// Lists of this size and more are stored compressed, in bytes.
const COMPRESSED_FROM: u64 = 64 * 1024;

impl Scan {
    /// Whether the tags are stored as a gzip stream.
    pub fn is_compressed(&self) -> bool {
        self.bytes >= COMPRESSED_FROM
    }

    fn file_name(&self) -> &'static str {
        if self.is_compressed() {
            "tags.txt.gz"
        } else {
            "tags.txt"
        }
    }
}

/// A file in the storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// `<algorithm>:<hex>.tar.gz`, `tags.txt` or `tags.txt.gz`.
    pub name: String,
    /// `sha256:<hex>` of the file's bytes.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Modification time as the file system tells it.
    pub mtime: Timestamp,
}

/// A stored artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format: u32,
    /// What it was made from.
    pub binding: Binding,
    /// The revision that was resolved.
    pub revision: String,
    /// The manifest's annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Of an image: what the scan found besides the tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<Box<Scan>>,
    /// The archive, or the tags.
    pub file: StoredFile,
    /// Path below the storage root, which is also the path that it is served under.
    pub path: String,
    /// When it was stored: `status.artifact.lastUpdateTime`.
    pub last_update_time: Timestamp,
}

impl Record {
    pub(super) fn new(draft: Draft, file: StoredFile, path: String, now: Timestamp) -> Self {
        let Draft {
            binding,
            revision,
            metadata,
            scan,
        } = draft;
        Self {
            format: FORMAT,
            binding,
            revision,
            metadata,
            scan,
            file,
            path,
            last_update_time: now,
        }
    }

    /// The record in `json`, if it is whole and of a format this program knows.
    pub(super) fn parse(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json)
            .ok()
            .filter(|record: &Self| record.format == FORMAT)
    }

    /// The name its file has to have.
    pub(super) fn file_name(&self) -> Result<String, StorageError> {
        stored_name(&self.revision, self.scan.as_deref())
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>, std::io::Error> {
        serde_json::to_vec(self).map_err(std::io::Error::from)
    }
}
