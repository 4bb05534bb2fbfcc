//! What became of each sample: its status, what the registry's access log says about it, its artifact as it is served or the
//! tag that its policy selected; and every point in which that is not what a mark for one object must lead to.

use std::{fmt::Debug, io::Read, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource, runtime::watcher::watch_object};
use mintmark_api::{
    artifact::Artifact,
    condition::{self, Condition},
    credential::{CredentialKind, CredentialStatus},
    image_policy::{ImagePolicy, ImagePolicyStatus},
    image_repository::ImageRepository,
    oci_repository::OciRepository,
};
use serde::de::DeserializeOwned;

use super::{
    registries::{Registries, SEEDED_FILE, contents},
    samples::{Sample, Wants},
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
    /// What the object got, in words: name and value.
    pub got: Vec<(&'static str, String)>,
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

/// Waits for a sample, at most for `patience`, and compares everything that can be seen of it with what it must be.
pub async fn judge(client: &Client, sample: &Sample, registries: &Registries, patience: Duration) -> Result<Verdict> {
    match &sample.wants {
        Wants::Artifact => judge_pull(client, sample, registries, patience).await,
        Wants::Tags { policy } => judge_image(client, sample, policy, registries, patience).await,
    }
}

async fn judge_pull(client: &Client, sample: &Sample, registries: &Registries, patience: Duration) -> Result<Verdict> {
    let wanted = if sample.is_owner() { "True" } else { "False" };
    let is_settled = |object: &OciRepository| {
        let status = object.status.as_ref();
        status.is_some_and(|it| is_ready(&it.conditions, object.metadata.generation, wanted))
    };
    let object = settle(client, &sample.namespace, &sample.name, patience, is_settled).await;
    let status = object.and_then(|object| object.status).unwrap_or_default();
    let mut verdict = Verdict::new(sample, &status.conditions, status.credential, registries)?;
    if sample.is_owner() {
        verdict.compare_owner();
        let revision = registries.revision(&sample.repository);
        verdict.compare_artifact(sample, status.artifact, revision).await;
    } else {
        verdict.compare_intruder(status.artifact.is_some());
    }
    Ok(verdict)
}

async fn judge_image(
    client: &Client,
    sample: &Sample,
    policy: &str,
    registries: &Registries,
    patience: Duration,
) -> Result<Verdict> {
    let is_scanned = |object: &ImageRepository| {
        let status = object.status.as_ref();
        status.is_some_and(|it| is_ready(&it.conditions, object.metadata.generation, "True"))
    };
    let is_selected = |object: &ImagePolicy| {
        let status = object.status.as_ref();
        status.is_some_and(|it| is_ready(&it.conditions, object.metadata.generation, "True"))
    };
    let (image, selection) = tokio::join!(
        settle(client, &sample.namespace, &sample.name, patience, is_scanned),
        settle(client, &sample.namespace, policy, patience, is_selected),
    );
    let status = image.and_then(|object| object.status).unwrap_or_default();
    let mut verdict = Verdict::new(sample, &status.conditions, status.credential, registries)?;
    verdict.compare_owner();
    let tags = status.last_scan_result.map(|result| result.tag_count);
    verdict.compare_tags(tags, sample.tags.len());
    let selection = selection.and_then(|object| object.status).unwrap_or_default();
    let address = registries.address(&sample.host).unwrap_or_default();
    let wanted = registries
        .revision(&sample.repository)
        .map(|revision| format!("{address}/{}:{revision}", sample.repository));
    verdict.compare_selection(policy, &selection, wanted.as_deref());
    Ok(verdict)
}

/// Waits on a watch until the object is settled, for at most `patience`; returns it as it was last seen.
async fn settle<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    patience: Duration,
    is_settled: impl Fn(&K) -> bool,
) -> Option<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let mut last = None;
    let settled = async {
        let mut objects = std::pin::pin!(watch_object(api, name));
        while let Some(object) = objects.next().await {
            // Errors of the watch are retried by it.
            let Ok(Some(object)) = object else { continue };
            if is_settled(last.insert(object)) {
                return;
            }
        }
    };
    // The comparison with what is wanted comes later, on whatever was reached.
    let _ = tokio::time::timeout(patience, settled).await;
    last
}

/// Whether Ready has the wanted status for this generation.
fn is_ready(conditions: &[Condition], generation: Option<i64>, wanted: &str) -> bool {
    let ready = conditions.iter().find(|it| it.type_ == condition::READY);
    ready.is_some_and(|it| it.status == wanted && it.observed_generation == generation)
}

/// Status and message of Ready.
fn ready_of(conditions: &[Condition]) -> (String, String) {
    let ready = conditions.iter().find(|it| it.type_ == condition::READY);
    ready.map_or_else(
        || ("Unknown".to_owned(), "no pass has ended".to_owned()),
        |it| (it.status.clone(), it.message.clone()),
    )
}

impl Verdict {
    /// Who the object was and whom the registry saw; compares only that.
    fn new(
        sample: &Sample,
        conditions: &[Condition],
        credential: Option<CredentialStatus>,
        registries: &Registries,
    ) -> Result<Self> {
        let entries = registries.asked(&sample.host, &sample.repository)?;
        let mut verdict = Self {
            object: sample.id(),
            credential: sample.credential,
            subject: credential.map(|it| it.subject),
            seen: Seen::of(&entries, &sample.subject),
            got: Vec::new(),
            ready: ready_of(conditions),
            deviations: Vec::new(),
        };
        verdict.compare_identity(sample);
        Ok(verdict)
    }

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

    fn compare_owner(&mut self) {
        self.expect(self.ready.0 == "True", |it| {
            format!("Ready is {}: {}", it.ready.0, it.ready.1)
        });
        self.expect(self.seen.statuses.contains(&200), |_| {
            "the registry gave it nothing".to_owned()
        });
    }

    async fn compare_artifact(&mut self, sample: &Sample, artifact: Option<Artifact>, revision: Option<&str>) {
        let Some(artifact) = artifact else {
            return self.deviates("it has no artifact");
        };
        self.got.push(("revision", artifact.revision.clone()));
        self.got.push(("artifact", artifact.url.clone()));
        self.expect(Some(artifact.revision.as_str()) == revision, |_| {
            format!(
                "its revision is {} and not {}",
                artifact.revision,
                revision.unwrap_or("none")
            )
        });
        match fetch(&artifact, &sample.repository).await {
            Ok(size) => self.got.push(("fetched", format!("{size} bytes, digest checked"))),
            Err(error) => self.deviates(format!("{error:#}")),
        }
    }

    fn compare_tags(&mut self, count: Option<i64>, wanted: usize) {
        let Some(count) = count else {
            return self.deviates("it has no tags");
        };
        self.got.push(("tags", count.to_string()));
        self.expect(usize::try_from(count) == Ok(wanted), |_| {
            format!("it has {count} tags and not {wanted}")
        });
    }

    /// `wanted`: name, tag and digest of an image.
    fn compare_selection(&mut self, policy: &str, status: &ImagePolicyStatus, wanted: Option<&str>) {
        let Some(latest) = &status.latest_ref else {
            let (ready, message) = ready_of(&status.conditions);
            return self.deviates(format!(
                "its policy {policy} selected nothing, Ready is {ready}: {message}"
            ));
        };
        let selected = format!("{}:{}@{}", latest.name, latest.tag, latest.digest);
        self.expect(Some(selected.as_str()) == wanted, |_| {
            format!(
                "its policy {policy} selected {selected} and not {}",
                wanted.unwrap_or("nothing")
            )
        });
        self.got.push(("selected", selected));
    }

    fn compare_intruder(&mut self, has_artifact: bool) {
        let refused = self.ready.0 == "False" && self.ready.1.contains("403");
        self.expect(refused, |it| {
            format!("Ready is {} and not False with a 403: {}", it.ready.0, it.ready.1)
        });
        self.expect(!has_artifact, |_| "it got an artifact that is not its own".to_owned());
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
            got: Vec::new(),
            ready: ("False".to_owned(), message.to_owned()),
            deviations: Vec::new(),
        }
    }

    #[test]
    fn an_intruder_must_be_known_and_refused() {
        let mut as_it_must_be = refused(403, "not authorised (403)");
        as_it_must_be.compare_intruder(false);
        assert_eq!(as_it_must_be.deviations, Vec::<String>::new());
        for (mut other, what) in [
            (
                refused(403, "connection refused"),
                "Ready is False and not False with a 403",
            ),
            (refused(200, "not authorised (403)"), "did not answer 403 alone"),
        ] {
            other.compare_intruder(false);
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
