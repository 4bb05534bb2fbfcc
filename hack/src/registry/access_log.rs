//! What the registry saw: its access log, one entry per request. It never holds a token or a password.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

/// One request, as the registry saw it.
#[derive(Debug, Clone, Deserialize)]
pub struct AccessEntry {
    /// RFC 3339, UTC.
    pub time: String,
    /// HTTP method.
    pub method: String,
    /// The request's `Host`.
    pub host: String,
    /// Path without query.
    pub path: String,
    /// HTTP status of the answer.
    pub status: u16,
    /// `anonymous`, `bearer`, `mtls`, `basic` or `token` (one of the registry's own realm).
    pub kind: String,
    /// Who it was; empty when that was not established.
    pub subject: String,
    /// Why it was refused.
    #[serde(default)]
    pub reason: String,
    /// The client's address.
    pub remote: String,
    /// Number of the connection, from 1.
    pub connection: u64,
    /// URI SAN of the connection's client certificate, whatever the request presented.
    #[serde(default)]
    pub certificate: String,
    /// Whether the TLS session was resumed.
    pub resumed: bool,
    /// The client's `User-Agent`.
    pub user_agent: String,
}

pub(super) fn read(path: &Path) -> Result<Vec<AccessEntry>> {
    let text = std::fs::read_to_string(path).context("cannot read the registry's access log")?;
    // A line without its end is still being written.
    let complete = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    complete
        .lines()
        .map(|line| serde_json::from_str(line).context("unreadable access log line"))
        .collect()
}
