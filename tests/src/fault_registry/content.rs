//! In-memory repositories, and builders for what Flux pushes: one gzipped tar layer with a small config.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use tar::EntryType;

/// Media type of an OCI image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of the layer that `flux push artifact` makes.
pub const FLUX_LAYER: &str = "application/vnd.cncf.flux.content.v1.tar+gzip";
/// Media type of the config that `flux push artifact` makes.
pub const FLUX_CONFIG: &str = "application/vnd.cncf.flux.config.v1+json";

/// `sha256:<hex>` of some bytes.
pub fn sha256(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    hash.as_ref()
        .iter()
        .fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// A manifest with the blobs it needs.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// The manifest document.
    pub manifest: Bytes,
    /// Its media type, also its `Content-Type`.
    pub media_type: String,
    /// Blobs (and child manifests of an index) by content.
    pub blobs: Vec<Bytes>,
    /// Child manifests, when it is an index.
    pub children: Vec<Artifact>,
}

impl Artifact {
    /// What `flux push artifact` makes of these files.
    pub fn flux(files: &[(&str, &str)]) -> Self {
        let entries: Vec<_> = files
            .iter()
            .map(|(path, content)| Entry::File(path, content.as_bytes()))
            .collect();
        Self::with_layer(&layer(&entries))
    }

    /// A Flux artifact with these bytes as its layer, whatever they are.
    pub fn with_layer(layer: &[u8]) -> Self {
        Self::with_layer_and_annotations(layer, &BTreeMap::new())
    }

    /// A Flux artifact with annotations on its manifest.
    pub fn with_layer_and_annotations(layer: &[u8], annotations: &BTreeMap<String, String>) -> Self {
        let config = b"{}";
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": FLUX_CONFIG, "digest": sha256(config), "size": config.len()},
            "layers": [{"mediaType": FLUX_LAYER, "digest": sha256(layer), "size": layer.len()}],
        });
        if !annotations.is_empty() {
            manifest["annotations"] = json!(annotations);
        }
        let blobs = vec![Bytes::from_static(config), Bytes::copy_from_slice(layer)];
        Self {
            blobs,
            ..Self::document(MANIFEST, &manifest)
        }
    }

    /// An index over artifacts, each with `os/architecture` or none.
    pub fn index(children: &[(Artifact, Option<(&str, &str)>)]) -> Self {
        let entries: Vec<_> = children
            .iter()
            .map(|(child, platform)| {
                let mut entry =
                    json!({"mediaType": child.media_type, "digest": child.digest(), "size": child.manifest.len()});
                if let Some((os, architecture)) = platform {
                    entry["platform"] = json!({"os": os, "architecture": architecture});
                }
                entry
            })
            .collect();
        let document = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries});
        Self {
            children: children.iter().map(|(child, _)| child.clone()).collect(),
            ..Self::document(INDEX, &document)
        }
    }

    /// Any JSON document as a manifest.
    pub fn document(media_type: &str, document: &serde_json::Value) -> Self {
        Self {
            manifest: document.to_string().into(),
            media_type: media_type.to_owned(),
            blobs: Vec::new(),
            children: Vec::new(),
        }
    }

    /// Digest of the manifest.
    pub fn digest(&self) -> String {
        sha256(&self.manifest)
    }

    /// The layer's bytes, the last blob.
    pub fn layer(&self) -> Bytes {
        self.blobs.last().cloned().unwrap_or_default()
    }
}

/// One entry of a layer, whatever it is: nothing is checked or made safe.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// A regular file with its path and content.
    File(&'a str, &'a [u8]),
    /// A hard link with its path and target.
    HardLink(&'a str, &'a str),
    /// A character device.
    Device(&'a str),
}

/// Gzipped tar of these entries.
pub fn layer(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for entry in entries {
        let (kind, path, target, content) = match *entry {
            Entry::File(path, content) => (EntryType::Regular, path, "", content),
            Entry::HardLink(path, target) => (EntryType::Link, path, target, [].as_slice()),
            Entry::Device(path) => (EntryType::Char, path, "", [].as_slice()),
        };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // Past the library's setters, which refuse what these tests are about.
        let gnu = header.as_gnu_mut().unwrap();
        gnu.name[..path.len()].copy_from_slice(path.as_bytes());
        gnu.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        archive.append(&header, content).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// All repositories of one registry.
#[derive(Debug, Default)]
pub struct Repositories {
    repositories: HashMap<String, Repository>,
}

#[derive(Debug, Default)]
struct Repository {
    tags: BTreeMap<String, String>,
    manifests: HashMap<String, (String, Bytes)>,
    blobs: HashMap<String, Bytes>,
}

impl Repositories {
    /// Stores an artifact and points a tag to it.
    pub fn push(&mut self, repository: &str, tag: &str, artifact: &Artifact) {
        let repository = self.repositories.entry(repository.to_owned()).or_default();
        repository.store(artifact);
        repository.tags.insert(tag.to_owned(), artifact.digest());
    }

    /// A manifest by tag or digest: its digest, media type and bytes.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, String, Bytes)> {
        let repository = self.repositories.get(repository)?;
        let digest = repository.tags.get(reference).map_or(reference, String::as_str);
        let (media_type, bytes) = repository.manifests.get(digest)?;
        Some((digest.to_owned(), media_type.clone(), bytes.clone()))
    }

    /// Up to `n` tags after `last`, in their order, and whether there are more; none when there is no such repository.
    pub fn tags(&self, repository: &str, n: usize, last: &str) -> Option<(Vec<String>, bool)> {
        let tags = &self.repositories.get(repository)?.tags;
        let mut after = tags.keys().filter(|tag| tag.as_str() > last).cloned();
        let page = after.by_ref().take(n).collect();
        Some((page, after.next().is_some()))
    }

    /// A blob by digest.
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        self.repositories.get(repository)?.blobs.get(digest).cloned()
    }

    /// Removes a tag.
    pub fn untag(&mut self, repository: &str, tag: &str) {
        if let Some(repository) = self.repositories.get_mut(repository) {
            repository.tags.remove(tag);
        }
    }
}

impl Repository {
    fn store(&mut self, artifact: &Artifact) {
        self.manifests.insert(
            artifact.digest(),
            (artifact.media_type.clone(), artifact.manifest.clone()),
        );
        for blob in &artifact.blobs {
            self.blobs.insert(sha256(blob), blob.clone());
        }
        for child in &artifact.children {
            self.store(child);
        }
    }
}
