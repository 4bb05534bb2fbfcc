//! Fills the registry with artifacts, as its administrator: blobs, manifests, and whole artifacts in Flux's form.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use reqwest::{Method, Response, StatusCode, header};
use serde_json::{Value, json};

use super::{ADMIN, RegistryServer};
use crate::digest;

/// The empty config of an artifact.
pub const CONFIG: &[u8] = b"{}";
/// Media type of an OCI image manifest.
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI image index.
pub const INDEX_MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of the layer that `flux push artifact` writes.
pub const CONTENT_MEDIA_TYPE: &str = "application/vnd.cncf.flux.content.v1.tar+gzip";
/// Media type of the config that `flux push artifact` writes.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.cncf.flux.config.v1+json";

/// One layer of an artifact.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its media type.
    pub media_type: String,
    /// Its bytes, as stored.
    pub data: Vec<u8>,
}

/// What is pushed: an OCI image manifest with these layers and annotations.
#[derive(Debug, Clone, Default)]
pub struct Artifact {
    /// At least one.
    pub layers: Vec<Layer>,
    /// Annotations of the manifest.
    pub annotations: BTreeMap<String, String>,
}

impl Artifact {
    /// An artifact as `flux push artifact` makes it: one layer with these files.
    pub fn from_files(files: &[(&str, &[u8])]) -> Result<Self> {
        let layer = Layer {
            media_type: CONTENT_MEDIA_TYPE.to_owned(),
            data: tar_gz(files)?,
        };
        Ok(Self {
            layers: vec![layer],
            annotations: BTreeMap::new(),
        })
    }

    /// The same with one more annotation.
    #[must_use]
    pub fn annotate(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }
}

impl Artifact {
    /// The image manifest over [`CONFIG`] and the layers, as it is pushed.
    pub fn manifest(&self) -> Result<Vec<u8>> {
        let describe = |layer: &Layer| descriptor(&layer.media_type, &digest::oci(&layer.data), layer.data.len());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_MEDIA_TYPE,
            "config": descriptor(CONFIG_MEDIA_TYPE, &digest::oci(CONFIG), CONFIG.len()),
            "layers": self.layers.iter().map(describe).collect::<Vec<_>>(),
            "annotations": self.annotations,
        });
        Ok(serde_json::to_vec(&manifest)?)
    }
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Digest of the manifest, `sha256:<hex>`.
    pub digest: String,
    /// Size of the manifest in bytes.
    pub size: usize,
    /// Digests of the layers, in their order.
    pub layers: Vec<String>,
}

/// Packs files into a gzipped tar whose bytes depend on nothing but the files.
pub fn tar_gz(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::fast());
    let mut archive = tar::Builder::new(gzip);
    for (path, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        archive.append_data(&mut header, path, *contents)?;
    }
    Ok(archive.into_inner()?.finish()?)
}

impl RegistryServer {
    /// Pushes an artifact and tags it.
    pub async fn push(&self, repository: &str, tag: &str, artifact: &Artifact) -> Result<Pushed> {
        self.push_blob(repository, CONFIG).await?;
        let mut layers = Vec::new();
        for layer in &artifact.layers {
            layers.push(self.push_blob(repository, &layer.data).await?);
        }
        let bytes = artifact.manifest()?;
        let digest = self.push_manifest(repository, tag, MANIFEST_MEDIA_TYPE, &bytes).await?;
        Ok(Pushed {
            digest,
            size: bytes.len(),
            layers,
        })
    }

    /// Pushes an index over manifests that are there already, one per platform (`os/architecture`), and tags it.
    pub async fn push_index(&self, repository: &str, tag: &str, children: &[(&str, &Pushed)]) -> Result<String> {
        let mut manifests = Vec::new();
        for (platform, child) in children {
            let (os, architecture) = platform.split_once('/').context("a platform is os/architecture")?;
            let mut entry = descriptor(MANIFEST_MEDIA_TYPE, &child.digest, child.size);
            if let Some(fields) = entry.as_object_mut() {
                fields.insert("platform".to_owned(), json!({ "os": os, "architecture": architecture }));
            }
            manifests.push(entry);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": manifests });
        self.push_manifest(repository, tag, INDEX_MEDIA_TYPE, &serde_json::to_vec(&index)?)
            .await
    }

    /// Pushes a manifest of any kind under a tag or its digest, and returns its digest.
    pub async fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<String> {
        let url = format!("{}/v2/{repository}/manifests/{reference}", self.origin());
        let request = self
            .admin(Method::PUT, &url)
            .header(header::CONTENT_TYPE, media_type)
            .body(bytes.to_vec());
        expect(request.send().await?, StatusCode::CREATED).await?;
        Ok(digest::oci(bytes))
    }

    /// Pushes a blob and returns its digest.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Result<String> {
        let digest = digest::oci(bytes);
        let start = self.admin(
            Method::POST,
            &format!("{}/v2/{repository}/blobs/uploads/", self.origin()),
        );
        let started = expect(start.send().await?, StatusCode::ACCEPTED).await?;
        let location = started
            .headers()
            .get(header::LOCATION)
            .context("an upload without Location")?;
        let mut url = url::Url::parse(self.origin())?.join(location.to_str()?)?;
        url.query_pairs_mut().append_pair("digest", &digest);
        let finish = self.admin(Method::PUT, url.as_str()).body(bytes.to_vec());
        expect(finish.send().await?, StatusCode::CREATED).await?;
        Ok(digest)
    }

    /// Deletes a manifest by its digest.
    pub async fn delete_manifest(&self, repository: &str, digest: &str) -> Result<()> {
        let url = format!("{}/v2/{repository}/manifests/{digest}", self.origin());
        expect(self.admin(Method::DELETE, &url).send().await?, StatusCode::ACCEPTED).await?;
        Ok(())
    }

    fn admin(&self, method: Method, url: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, url)
            .basic_auth(ADMIN, Some(self.admin_password()))
    }
}

async fn expect(answer: Response, status: StatusCode) -> Result<Response> {
    if answer.status() != status {
        let (url, got) = (answer.url().path().to_owned(), answer.status());
        bail!(
            "the registry answered {got} to {url}: {}",
            answer.text().await.unwrap_or_default()
        );
    }
    Ok(answer)
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_deterministic() {
        let files: &[(&str, &[u8])] = &[("a.yaml", b"a: 1\n"), ("b/c.yaml", b"c: 2\n")];
        assert_eq!(tar_gz(files).unwrap(), tar_gz(files).unwrap());
    }
}
