//! Which events a pass makes: a new artifact, a recovery, a failure. A pass that found nothing new makes none. The old
//! status is read for one courtesy only: to know whether there is something to recover from or to announce.

use std::{collections::BTreeMap, fmt::Write};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource, ResourceExt};
use mintmark_api::{
    annotation::{OCI_REVISION, OCI_SOURCE},
    condition::{READY, reason},
    oci_repository::OciRepository,
};

use super::{Outcome, Pass};
use crate::{
    artifact::Record,
    notify::{Action, EventType, NewEvent, metadata},
    reconcile::Context,
    watch::Kind,
};

/// Tells what `pass` came to.
pub(super) fn tell(ctx: &Context<OciRepository>, object: &OciRepository, pass: &Pass) {
    let (event_type, reason, message) = match &pass.outcome {
        Outcome::Suspended => return,
        Outcome::Failed { error, .. } => (EventType::Warning, error.reason, error.message.clone()),
        Outcome::Ready => {
            let Some(record) = pass.record.as_deref() else { return };
            if is_new(object, record, pass.previous.as_deref()) {
                (EventType::Normal, reason::NEW_ARTIFACT, new_artifact(object, record))
            } else if has_recovered(object) {
                let message = format!(
                    "stored artifact with revision '{}' from '{}'",
                    record.revision, object.spec.url
                );
                (EventType::Normal, reason::SUCCEEDED, message)
            } else {
                return;
            }
        }
    };
    record(ctx, object, pass.record.as_deref(), event_type, reason, message);
}

/// The stored file was gone or damaged; it is built again.
pub(super) fn lost(ctx: &Context<OciRepository>, object: &OciRepository, how: &str) {
    let message = format!("stored artifact {how}; it is built again");
    record(
        ctx,
        object,
        None,
        EventType::Warning,
        reason::ARTIFACT_VERIFICATION_FAILED,
        message,
    );
}

/// The object asks for passes more often than `--min-interval` allows. Said once per generation, when it is first acted on.
pub(super) fn interval_clamped(ctx: &Context<OciRepository>, object: &OciRepository) {
    let least = ctx.settings.min_interval;
    let seen = object.status.as_ref().and_then(|status| status.observed_generation);
    if object.spec.interval.to_std() >= least || seen == object.metadata.generation {
        return;
    }
    let message = format!("spec.interval is shorter than --min-interval: passes are {least:?} apart");
    tracing::info!(
        controllerKind = OciRepository::KIND,
        namespace = object.namespace(),
        name = object.name_any(),
        "{message}"
    );
    record(ctx, object, None, EventType::Normal, reason::INTERVAL_CLAMPED, message);
}

fn record(
    ctx: &Context<OciRepository>,
    object: &OciRepository,
    stored: Option<&Record>,
    event_type: EventType,
    reason: &'static str,
    message: String,
) {
    if !ctx.may_write() {
        // What stays true is told when the status is.
        return;
    }
    ctx.events.record(NewEvent {
        object: reference(object),
        event_type,
        reason: reason.into(),
        message,
        action: Action::Reconcile,
        metadata: event_metadata(object, stored),
        timestamp: Timestamp::now(),
    });
}

fn reference(object: &OciRepository) -> ObjectReference {
    ObjectReference {
        api_version: Some(OciRepository::api_version(&()).into_owned()),
        kind: Some(OciRepository::kind(&()).into_owned()),
        namespace: object.namespace(),
        name: object.metadata.name.clone(),
        uid: object.uid(),
        resource_version: object.resource_version(),
        field_path: None,
    }
}

fn event_metadata(object: &OciRepository, stored: Option<&Record>) -> BTreeMap<String, String> {
    let origin = stored
        .and_then(|record| record.metadata.get(OCI_REVISION))
        .map(String::as_str);
    metadata(
        object.annotations(),
        stored.map(|record| record.revision.as_str()),
        stored.map(|record| &*record.file.digest),
        origin,
    )
}

/// Whether the content differs from what was stored, or was announced, before.
fn is_new(object: &OciRepository, record: &Record, previous: Option<&Record>) -> bool {
    if let Some(previous) = previous {
        return previous.file.digest != record.file.digest;
    }
    let announced = object.status.as_ref().and_then(|status| status.artifact.as_ref());
    announced.is_none_or(|artifact| artifact.digest != *record.file.digest && artifact.revision != record.revision)
}

fn has_recovered(object: &OciRepository) -> bool {
    let conditions = object
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|condition| condition.type_ == READY && condition.status == "False")
}

fn new_artifact(object: &OciRepository, record: &Record) -> String {
    let mut message = format!(
        "stored artifact with revision '{}' from '{}'",
        record.revision, object.spec.url
    );
    for (key, what) in [(OCI_SOURCE, "origin source"), (OCI_REVISION, "origin revision")] {
        if let Some(value) = record.metadata.get(key) {
            // Writing to a String cannot fail.
            let _ = write!(message, ", {what} '{value}'");
        }
    }
    message
}
