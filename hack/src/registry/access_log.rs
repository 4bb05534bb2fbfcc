//! What the registry saw: its access log, one entry per request. It never holds a token or a password.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

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
    /// What signed the credential that was presented, taken or not: the `kid` of a JWT, or the authority key id of a client
    /// certificate in hexadecimal; empty for everything else.
    #[serde(default)]
    pub key: String,
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

/// A position in the access log.
#[derive(Debug, Clone, Copy, Default)]
pub struct AccessMark(u64);

/// The end of the log, for who does not want what came before.
pub(super) fn end(path: &Path) -> Result<AccessMark> {
    let metadata = path.metadata().context("cannot open the registry's access log")?;
    Ok(AccessMark(metadata.len()))
}

/// The entries since `mark`, which moves to the end of the last complete one.
pub(super) fn read(path: &Path, mark: &mut AccessMark) -> Result<Vec<AccessEntry>> {
    let mut file = File::open(path).context("cannot open the registry's access log")?;
    file.seek(SeekFrom::Start(mark.0))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    // A line without its end is still being written.
    let complete = text.rfind('\n').map_or("", |end| text.get(..=end).unwrap_or_default());
    mark.0 += u64::try_from(complete.len())?;
    complete
        .lines()
        .map(|line| serde_json::from_str(line).context("unreadable access log line"))
        .collect()
}
