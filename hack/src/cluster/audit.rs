//! Reads the API server's audit log: who asked what, and what the answer was.
//!
//! A line is written before a short answer is sent; that of a long list may follow it. A watch stands here twice, when
//! it begins and when it ends.

use std::{
    fs::File,
    io::{ErrorKind, Read, Seek, SeekFrom},
    path::PathBuf,
};

use anyhow::{Context, Result};
use serde::Deserialize;

/// The audit log of one cluster.
#[derive(Debug, Clone)]
pub struct AuditLog {
    path: PathBuf,
}

/// A position in the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuditMark(u64);

/// One line (`audit.k8s.io/v1` Event, the fields used here).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEvent {
    /// The same for the lines of one request.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// `ResponseStarted` (watches only), `ResponseComplete` or `Panic`.
    pub stage: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, …
    pub verb: String,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    user: AuditUser,
    /// What the client calls itself.
    #[serde(default)]
    pub user_agent: String,
    /// The object, absent for requests like `/readyz`.
    pub object_ref: Option<AuditObject>,
    response_status: Option<AuditStatus>,
    response_object: Option<AuditAnswer>,
}

/// The object of a request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuditObject {
    /// Plural name.
    pub resource: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// Empty for lists.
    pub name: String,
    /// Empty for the core group.
    pub api_group: String,
    /// `status`, `token`, … or empty.
    pub subresource: String,
}

#[derive(Debug, Clone, Deserialize)]
struct AuditUser {
    #[serde(default)]
    username: String,
}

#[derive(Debug, Clone, Deserialize)]
struct AuditAnswer {
    kind: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
struct AuditStatus {
    #[serde(default)]
    code: u16,
}

impl AuditEvent {
    /// The user, as RBAC saw it: `system:serviceaccount:<namespace>:<name>` for a ServiceAccount.
    pub fn username(&self) -> &str {
        &self.user.username
    }

    /// The HTTP status of the answer, 0 when unknown.
    pub fn code(&self) -> u16 {
        self.response_status.as_ref().map_or(0, |status| status.code)
    }

    /// The kind of the answer to a list of Secrets: `SecretList`, `PartialObjectMetadataList`, or `Status` of a refusal.
    pub fn answer(&self) -> Option<&str> {
        self.response_object.as_ref()?.kind.as_deref()
    }
}

impl AuditLog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The current end of the log.
    pub fn mark(&self) -> Result<AuditMark> {
        match self.path.metadata() {
            Ok(metadata) => Ok(AuditMark(metadata.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(AuditMark::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Every event since `mark` (from the start with the default mark) of one user.
    pub fn events_of(&self, user: &str, mark: AuditMark) -> Result<Vec<AuditEvent>> {
        let mut events = self.events(mark)?;
        events.retain(|event| event.username() == user);
        Ok(events)
    }

    /// Every event since `mark`.
    pub fn events(&self, mark: AuditMark) -> Result<Vec<AuditEvent>> {
        let mut file = File::open(&self.path).context("cannot open the audit log")?;
        file.seek(SeekFrom::Start(mark.0))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        // A line being written has no end yet: it belongs to a request without answer.
        let complete = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
        complete
            .lines()
            .map(|line| serde_json::from_str(line).context("unreadable audit event"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_filtered_by_mark_and_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let line = |id: &str, user: &str| {
            format!(
                r#"{{"auditID":"{id}","stage":"ResponseComplete","verb":"get","requestURI":"/api/v1/secrets",
                "user":{{"username":"{user}"}},"responseStatus":{{"code":403}}}}"#
            )
            .replace('\n', "")
                + "\n"
        };
        std::fs::write(&path, line("1", "a")).unwrap();
        let log = AuditLog::new(path.clone());
        let mark = log.mark().unwrap();
        std::fs::write(&path, line("1", "a") + &line("2", "a") + &line("3", "b") + "{\"half").unwrap();

        let ids = |events: Vec<AuditEvent>| events.into_iter().map(|event| event.audit_id).collect::<Vec<_>>();
        assert_eq!(ids(log.events(mark).unwrap()), ["2", "3"]);
        assert_eq!(ids(log.events_of("a", AuditMark::default()).unwrap()), ["1", "2"]);
        assert_eq!(log.events(mark).unwrap()[0].code(), 403);
    }
}
