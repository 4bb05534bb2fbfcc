//! Images: scans of their tags, as sequences that an observer sees, on the real API server.

mod access;
mod credentials;
mod paging;
mod policies;
mod policy_access;
mod policy_crowd;
mod policy_image;
mod policy_repository;
mod quiet;
mod restart;
mod scans;
mod separate;

use anyhow::{Context, Result};
use mintmark_api::image_repository::{ImageRepository, ScanResult};
use mintmark_tests::fault_registry::{Artifact, FaultRegistry, sha256};

/// What a scan shows, of the object's status.
fn result(object: &ImageRepository) -> Result<ScanResult> {
    let status = object.status.as_ref().context("a status")?;
    status.last_scan_result.clone().context("the result of a scan")
}

/// The stored text of these tags: descending by bytes, a line each.
fn text(tags: &[&str]) -> String {
    let mut tags = tags.to_vec();
    tags.sort_unstable();
    tags.iter().rev().flat_map(|tag| [*tag, "\n"]).collect()
}

/// `status.lastScanResult.revision` of these tags.
fn revision(tags: &[&str]) -> String {
    sha256(text(tags).as_bytes())
}

/// The message of a scan that found these tags.
fn message(tags: &[&str]) -> String {
    let count = tags.len();
    format!("successful scan: found {count} tags with checksum {}", revision(tags))
}

/// Puts tags of repository `app` into the registry.
fn push(registry: &FaultRegistry, tags: &[&str]) {
    for tag in tags {
        registry.push("app", tag, &Artifact::flux(&[("a.yaml", tag)]));
    }
}

/// How often a first page of tags was asked for.
fn scans(registry: &FaultRegistry) -> usize {
    let requests = registry.requests();
    let pages = requests.iter().filter(|page| page.path().ends_with("/tags/list"));
    pages.filter(|page| !page.query().contains("last=")).count()
}
