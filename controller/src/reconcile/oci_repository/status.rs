//! The whole owned status of an OCIRepository after a pass, from the outcome and the record of what is stored. Pure.
//!
//! The old status is read for courtesies only: transition times, other writers' conditions, and another controller's
//! artifact, which is shown until ours replaces it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mintmark_api::{
    artifact::Artifact,
    condition::{ARTIFACT_IN_STORAGE, ARTIFACT_OUTDATED, OWNED, RECONCILING, STALLED, reason},
    credential::CredentialStatus,
    oci_repository::{LayerSelector, OciRepository, OciRepositoryStatus},
};

use crate::{
    artifact::{AdvertisedAddress, LayerBinding, Record},
    reconcile::{
        Outcome, OwnedStatus,
        conditions::{Finding, Status, merge, with_summary},
        context::generation,
        reconciled::observe,
        step::Policy,
    },
};

/// What is stored for the object, and where it is served.
#[derive(Debug, Clone)]
pub struct Stored<'a> {
    /// The artifact's record.
    pub record: &'a Record,
    /// Address of the file.
    pub url: String,
    /// Address of `latest.tar.gz`.
    pub latest_url: String,
}

/// What a pass leaves behind.
pub struct Findings<'a> {
    /// How it ended.
    pub outcome: &'a Outcome,
    /// What is stored, if anything.
    pub stored: Option<Stored<'a>>,
    /// What was presented.
    pub credential: Option<CredentialStatus>,
    /// Our artifact server as it stands in artifact URLs.
    pub address: &'a AdvertisedAddress,
}

impl Findings<'_> {
    /// The status after the pass. `Suspended` changes nothing but what the pass has observed.
    pub fn status(&self, object: &OciRepository, now: Timestamp) -> OciRepositoryStatus {
        let mut status = object.status.clone().unwrap_or_default();
        let current = generation(object);
        observe(
            object,
            self.outcome,
            &mut status.observed_generation,
            &mut status.last_handled_reconcile_at,
        );
        if matches!(self.outcome, Outcome::Suspended) {
            return status;
        }
        self.set_artifact(&mut status);
        status.credential.clone_from(&self.credential);
        let findings = with_summary(self.conditions(&status));
        status.conditions = merge(&findings, &status.conditions, &OWNED, current, now);
        status
    }

    fn set_artifact(&self, status: &mut OciRepositoryStatus) {
        if let Some(stored) = &self.stored {
            status.artifact = Some(artifact(stored));
            status.url = Some(stored.latest_url.clone());
            status.observed_ignore.clone_from(&stored.record.binding.ignore);
            status.observed_layer_selector = stored.record.binding.layer_selector.as_ref().map(layer_selector);
        } else if !self.is_foreign(status.artifact.as_ref()) {
            // A forged artifact of ours, or one whose file is gone.
            status.artifact = None;
            status.url = None;
            status.observed_ignore = None;
            status.observed_layer_selector = None;
        }
    }

    /// Another controller's artifact is served by that controller; consumers go on with it until ours is there.
    fn is_foreign(&self, artifact: Option<&Artifact>) -> bool {
        artifact.is_some_and(|artifact| !self.address.names(&artifact.url))
    }

    fn conditions(&self, status: &OciRepositoryStatus) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(artifact) = &status.artifact {
            let message = format!("stored artifact for digest '{}'", artifact.revision);
            findings.push(Finding::new(ARTIFACT_IN_STORAGE, reason::SUCCEEDED, message));
        }
        let Outcome::Failed { error, outdated, doing } = self.outcome else {
            return findings;
        };
        if let Some(condition) = error.condition {
            findings.push(Finding::new(condition, error.reason, &error.message));
        }
        if let Some(revision) = outdated {
            findings.push(outdated_by(revision));
        }
        findings.push(match error.policy {
            Policy::Terminal | Policy::WaitingForAnotherKey => Finding::new(STALLED, error.reason, &error.message),
            Policy::Transient | Policy::WaitingForIssuer | Policy::Dependency => {
                let message = doing.as_deref().unwrap_or("reconciliation in progress");
                Finding::new(RECONCILING, reason::PROGRESSING_WITH_RETRY, message)
            }
        });
        findings
    }
}

fn outdated_by(revision: &str) -> Finding {
    let shown = revision.rsplit_once('@').map_or(revision, |(tag, _)| tag);
    Finding::new(
        ARTIFACT_OUTDATED,
        reason::NEW_REVISION,
        format!("new revision '{revision}' for '{shown}'"),
    )
}

/// The status while a pass is under way: Reconciling, and Ready set to Unknown directly.
pub fn progressing(object: &OciRepository, message: &str, now: Timestamp) -> OciRepositoryStatus {
    let mut status = object.status.clone().unwrap_or_default();
    let mut findings: Vec<Finding> = status
        .artifact
        .iter()
        .map(|artifact| {
            let message = format!("stored artifact for digest '{}'", artifact.revision);
            Finding::new(ARTIFACT_IN_STORAGE, reason::SUCCEEDED, message)
        })
        .collect();
    findings.push(Finding::new(RECONCILING, reason::PROGRESSING, message));
    let ready = Finding::new(mintmark_api::condition::READY, reason::PROGRESSING, message);
    findings.push(Finding {
        status: Status::Unknown,
        ..ready
    });
    status.conditions = merge(&findings, &status.conditions, &OWNED, generation(object), now);
    status
}

impl OwnedStatus for OciRepositoryStatus {
    const OWNED_FIELDS: &'static [&'static str] = &[
        "observedGeneration",
        "conditions",
        "url",
        "artifact",
        "observedIgnore",
        "observedLayerSelector",
        "lastHandledReconcileAt",
        "sourceVerificationFingerprint",
        "credential",
    ];

    fn observed_generation(&self) -> Option<i64> {
        self.observed_generation
    }

    fn differs(&self, old: &Self) -> bool {
        // Every field by name, so that a new one is not forgotten here.
        let Self {
            observed_generation,
            conditions,
            url,
            artifact,
            observed_ignore,
            observed_layer_selector,
            last_handled_reconcile_at,
            source_verification_fingerprint,
            credential: _,
        } = self;
        *observed_generation != old.observed_generation
            || *conditions != old.conditions
            || *url != old.url
            || *artifact != old.artifact
            || *observed_ignore != old.observed_ignore
            || *observed_layer_selector != old.observed_layer_selector
            || *last_handled_reconcile_at != old.last_handled_reconcile_at
            || *source_verification_fingerprint != old.source_verification_fingerprint
    }

    fn keep_handled(&mut self, before: &Self) {
        self.observed_generation = before.observed_generation;
        self.credential.clone_from(&before.credential);
        self.last_handled_reconcile_at
            .clone_from(&before.last_handled_reconcile_at);
    }
}

fn artifact(stored: &Stored<'_>) -> Artifact {
    let record = stored.record;
    Artifact {
        digest: record.file.digest.clone(),
        last_update_time: Time(
            Timestamp::from_second(record.last_update_time.as_second()).unwrap_or(record.last_update_time),
        ),
        metadata: record.metadata.clone(),
        path: record.path.clone(),
        revision: record.revision.clone(),
        size: i64::try_from(record.file.size).ok(),
        url: stored.url.clone(),
    }
}

/// The selector as the object had it when the artifact was made.
fn layer_selector(binding: &LayerBinding) -> LayerSelector {
    let operation = binding
        .operation
        .clone()
        .and_then(|word| serde_json::from_value(word.into()).ok());
    LayerSelector {
        media_type: binding.media_type.clone(),
        operation,
    }
}

/// The form in which a record keeps the selector.
pub fn layer_binding(selector: &LayerSelector) -> LayerBinding {
    let word = selector
        .operation
        .and_then(|operation| serde_json::to_value(operation).ok());
    LayerBinding {
        media_type: selector.media_type.clone(),
        operation: word.and_then(|word| word.as_str().map(str::to_owned)),
    }
}
