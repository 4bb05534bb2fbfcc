//! What an object's status says about its artifact, held against what is served.

use std::{collections::BTreeMap, io::Read};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use flate2::read::GzDecoder;
use mintmark_api::{artifact::Artifact, oci_repository::OciRepository};

use crate::fault_registry::sha256;

/// The artifact in the object's status.
pub fn artifact(object: &OciRepository) -> Result<Artifact> {
    let status = object.status.as_ref();
    status
        .and_then(|status| status.artifact.clone())
        .with_context(|| format!("no artifact in {status:?}"))
}

/// Fetches an artifact by its URL as a consumer does, and checks digest and size.
pub async fn fetch(artifact: &Artifact) -> Result<Bytes> {
    let body = reqwest::get(&artifact.url).await?.error_for_status()?.bytes().await?;
    ensure!(
        artifact.digest == sha256(&body),
        "{} serves {}",
        artifact.url,
        sha256(&body)
    );
    ensure!(
        artifact.size == i64::try_from(body.len()).ok(),
        "size {:?}",
        artifact.size
    );
    Ok(body)
}

/// The regular files of a served archive.
pub fn files(archive: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(GzDecoder::new(archive)).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            files.insert(entry.path()?.to_string_lossy().into_owned(), content);
        }
    }
    Ok(files)
}
