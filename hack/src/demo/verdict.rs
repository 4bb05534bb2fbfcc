//! What became of each sample: its status, what the registry's access log says about it, its artifact as it is served;
//! and every point in which that is not what a mark for one object must lead to.

use std::{io::Read, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use kube::{Api, Client, runtime::watcher::watch_object};
use mintmark_api::{
    artifact::Artifact,
    condition,
    credential::CredentialKind,
    oci_repository::{OciRepository, OciRepositoryStatus},
};

use super::{
    registries::{Registries, SEEDED_FILE, contents},
    samples::Sample,
};
use crate::{digest, registry::AccessEntry};

/// Bound of fetching one artifact.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// One object, as it turned out.
#[derive(Debug)]
pub struct Verdict {
    /// `<namespace>/<name>`.
    pub object: String,
    /// `spec.credential`.
    pub credential: CredentialKind,
    /// Who it was, by its status.
    pub subject: Option<String>,
    /// Subject, kind of identity and answers, by the registry's access log.
    pub seen: Seen,
    /// `status.artifact`.
    pub artifact: Option<Artifact>,
    /// Bytes of the artifact as fetched from its URL, once they had the digest of the status.
    pub fetched: Option<usize>,
    /// Status and message of the condition Ready.
    pub ready: (String, String),
    /// What is not as it must be, in whole sentences.
    pub deviations: Vec<String>,
}

/// What a registry's access log says about one object.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The subject; empty when the registry did not find out.
    pub subject: String,
    /// `bearer`, `mtls`; empty when nothing arrived.
    pub kind: String,
    /// HTTP statuses, in their order.
    pub statuses: Vec<u16>,
}

impl Seen {
    /// The requests of `subject`; else those of nobody that the registry knows.
    fn of(entries: &[AccessEntry], subject: &str) -> Self {
        let wanted = if entries.iter().any(|it| it.subject == subject) {
            subject
        } else {
            ""
        };
        let mine: Vec<_> = entries.iter().filter(|it| it.subject == wanted).collect();
        Self {
            subject: wanted.to_owned(),
            kind: mine.last().map(|it| it.kind.clone()).unwrap_or_default(),
            statuses: mine.iter().map(|it| it.status).collect(),
        }
    }
}

/// Waits on a watch until Ready has the wanted status for the current generation, for at most `patience`; returns the
/// status as it was last seen.
pub async fn settle(client: Client, sample: &Sample, patience: Duration) -> OciRepositoryStatus {
    let wanted = if sample.is_owner() { "True" } else { "False" };
    let api: Api<OciRepository> = Api::namespaced(client, &sample.namespace);
    let mut last = OciRepositoryStatus::default();
    let settled = async {
        let mut objects = std::pin::pin!(watch_object(api, &sample.name));
        while let Some(object) = objects.next().await {
            // Errors of the watch are retried by it.
            let Ok(Some(object)) = object else { continue };
            let generation = object.metadata.generation;
            last = object.status.unwrap_or_default();
            let ready = last.conditions.iter().find(|it| it.type_ == condition::READY);
            if ready.is_some_and(|it| it.status == wanted && it.observed_generation == generation) {
                return;
            }
        }
    };
    // The comparison with what is wanted comes later, on whatever was reached.
    let _ = tokio::time::timeout(patience, settled).await;
    last
}

/// Compares everything that can be seen of a sample with what it must be.
pub async fn judge(sample: &Sample, status: OciRepositoryStatus, registries: &Registries) -> Result<Verdict> {
    let entries = registries.asked(&sample.host, &sample.repository)?;
    let ready = status.conditions.iter().find(|it| it.type_ == condition::READY);
    let mut verdict = Verdict {
        object: sample.id(),
        credential: sample.credential,
        subject: status.credential.map(|it| it.subject),
        seen: Seen::of(&entries, &sample.subject),
        artifact: status.artifact,
        fetched: None,
        ready: ready.map_or_else(
            || ("Unknown".to_owned(), "no pass has ended".to_owned()),
            |it| (it.status.clone(), it.message.clone()),
        ),
        deviations: Vec::new(),
    };
    verdict.compare_identity(sample);
    if sample.is_owner() {
        verdict
            .compare_owner(sample, registries.revision(&sample.repository))
            .await;
    } else {
        verdict.compare_intruder();
    }
    Ok(verdict)
}

impl Verdict {
    fn deviates(&mut self, what: impl AsRef<str>) {
        self.deviations.push(format!("{}: {}", self.object, what.as_ref()));
    }

    fn expect(&mut self, holds: bool, otherwise: impl FnOnce(&Self) -> String) {
        if !holds {
            let text = otherwise(self);
            self.deviates(text);
        }
    }

    fn compare_identity(&mut self, sample: &Sample) {
        let subject = &sample.subject;
        self.expect(self.subject.as_ref() == Some(subject), |it| {
            format!(
                "its status names {} and not {subject}",
                it.subject.as_deref().unwrap_or("nobody")
            )
        });
        let kind = match sample.credential {
            CredentialKind::SpiffeCertificate => "mtls",
            _ => "bearer",
        };
        self.expect(self.seen.subject == *subject && self.seen.kind == kind, |it| {
            format!("the registry saw {it} and not {subject} by {kind}", it = it.seen)
        });
    }

    async fn compare_owner(&mut self, sample: &Sample, revision: Option<&str>) {
        self.expect(self.ready.0 == "True", |it| {
            format!("Ready is {}: {}", it.ready.0, it.ready.1)
        });
        self.expect(self.seen.statuses.contains(&200), |_| {
            "the registry gave it nothing".to_owned()
        });
        let Some(artifact) = self.artifact.clone() else {
            return self.deviates("it has no artifact");
        };
        self.expect(Some(artifact.revision.as_str()) == revision, |_| {
            format!(
                "its revision is {} and not {}",
                artifact.revision,
                revision.unwrap_or("none")
            )
        });
        match fetch(&artifact, &sample.repository).await {
            Ok(size) => self.fetched = Some(size),
            Err(error) => self.deviates(format!("{error:#}")),
        }
    }

    fn compare_intruder(&mut self) {
        let refused = self.ready.0 == "False" && self.ready.1.contains("403");
        self.expect(refused, |it| {
            format!("Ready is {} and not False with a 403: {}", it.ready.0, it.ready.1)
        });
        self.expect(self.artifact.is_none(), |_| {
            "it got an artifact that is not its own".to_owned()
        });
        let only_refusals = !self.seen.statuses.is_empty() && self.seen.statuses.iter().all(|&status| status == 403);
        self.expect(only_refusals, |it| {
            format!("the registry did not answer 403 alone but {}", it.seen)
        });
    }
}

/// Fetches an artifact as kustomize-controller would: by its URL, checked against its digest. Also looks for the file
/// that the repository was seeded with.
async fn fetch(artifact: &Artifact, repository: &str) -> Result<usize> {
    let http = reqwest::Client::builder().no_proxy().timeout(FETCH_TIMEOUT).build()?;
    let answer = http
        .get(&artifact.url)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status);
    let body = answer.context("its artifact cannot be fetched")?.bytes().await?;
    let digest = digest::oci(&body);
    ensure!(
        digest == artifact.digest,
        "its artifact has the digest {digest} and not {}",
        artifact.digest
    );
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(body.as_ref()));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.as_ref() == std::path::Path::new(SEEDED_FILE) {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            ensure!(text == contents(repository), "its artifact holds another {SEEDED_FILE}");
            return Ok(body.len());
        }
    }
    bail!("its artifact holds no {SEEDED_FILE}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(subject: &str, kind: &str, status: u16) -> AccessEntry {
        serde_json::from_value(serde_json::json!({
            "time": "", "method": "GET", "host": "", "path": "/v2/team-b/api/manifests/v1", "status": status,
            "kind": kind, "subject": subject, "remote": "", "connection": 1, "resumed": false, "user_agent": "",
        }))
        .unwrap()
    }

    #[test]
    fn each_object_is_shown_its_own_requests() {
        let log = [
            entry("api", "bearer", 200),
            entry("intruder", "bearer", 403),
            entry("api", "bearer", 206),
        ];
        let seen = Seen::of(&log, "api");
        assert_eq!((seen.subject.as_str(), seen.statuses), ("api", vec![200, 206]));
        assert_eq!(Seen::of(&log, "intruder").statuses, [403]);
    }

    fn refused(status: u16, message: &str) -> Verdict {
        Verdict {
            object: "team-d/intruder".to_owned(),
            credential: CredentialKind::SpiffeJwt,
            subject: Some("intruder".to_owned()),
            seen: Seen::of(&[entry("intruder", "bearer", status)], "intruder"),
            artifact: None,
            fetched: None,
            ready: ("False".to_owned(), message.to_owned()),
            deviations: Vec::new(),
        }
    }

    #[test]
    fn an_intruder_must_be_known_and_refused() {
        let mut as_it_must_be = refused(403, "not authorised (403)");
        as_it_must_be.compare_intruder();
        assert_eq!(as_it_must_be.deviations, Vec::<String>::new());
        for (mut other, what) in [
            (
                refused(403, "connection refused"),
                "Ready is False and not False with a 403",
            ),
            (refused(200, "not authorised (403)"), "did not answer 403 alone"),
        ] {
            other.compare_intruder();
            assert!(
                other.deviations.iter().any(|it| it.contains(what)),
                "{:?}",
                other.deviations
            );
        }
    }

    #[test]
    fn a_stranger_is_shown_as_nobody() {
        let log = [entry("", "bearer", 401), entry("other", "bearer", 200)];
        let seen = Seen::of(&log, "api");
        assert_eq!((seen.subject.as_str(), seen.statuses), ("", vec![401]));
        assert_eq!(Seen::of(&[], "api"), Seen::default());
    }
}
