//! Which events a pass makes: a new artifact, a recovery, a failure. A pass that found nothing new makes none. The old
//! status is read for one courtesy only: to know whether there is something to recover from or to announce.

use std::{collections::BTreeMap, fmt::Write};

use kube::ResourceExt;
use mintmark_api::{
    annotation::{OCI_REVISION, OCI_SOURCE},
    condition::{READY, reason},
    oci_repository::OciRepository,
};

use super::status::layer_binding;
use crate::{
    artifact::{LayerBinding, Record},
    notify::{EventType, metadata},
    reconcile::{Context, Outcome, Pass, events},
};

/// Tells what `pass` came to.
pub(super) fn tell(ctx: &Context<OciRepository>, object: &OciRepository, pass: &Pass<OciRepository>) {
    let (event_type, reason, message) = match &pass.outcome {
        Outcome::Suspended => return,
        Outcome::Failed { error, .. } => (EventType::Warning, error.reason, error.message.clone()),
        Outcome::Ready => {
            let Some(record) = pass.found.as_deref() else { return };
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
    record(ctx, object, pass.found.as_deref(), event_type, reason, message);
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

/// The object stays another controller's, for this reason.
pub(super) fn left_alone(ctx: &Context<OciRepository>, object: &OciRepository, reason: &'static str, message: String) {
    record(ctx, object, None, EventType::Warning, reason, message);
}

fn record(
    ctx: &Context<OciRepository>,
    object: &OciRepository,
    stored: Option<&Record>,
    event_type: EventType,
    reason: &'static str,
    message: String,
) {
    if ctx.may_write() {
        events::record(ctx, object, event_metadata(object, stored), event_type, reason, message);
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

/// Whether the content differs from what was stored, or was announced, before. An artifact taken over from another
/// controller has its own archive and digest: it is news only if it was made from something else.
fn is_new(object: &OciRepository, record: &Record, previous: Option<&Record>) -> bool {
    if let Some(previous) = previous {
        return previous.file.digest != record.file.digest;
    }
    let Some(status) = &object.status else { return true };
    let Some(artifact) = &status.artifact else { return true };
    if artifact.digest == record.file.digest {
        return false;
    }
    let announced = status.observed_layer_selector.as_ref().map(layer_binding);
    artifact.revision != record.revision
        || status.observed_ignore != record.binding.ignore
        || effective(announced.as_ref()) != effective(record.binding.layer_selector.as_ref())
}

/// A selector by what it does: controllers differ in whether they write its default out.
fn effective(selector: Option<&LayerBinding>) -> (Option<&str>, &str) {
    let media_type = selector.and_then(|selector| selector.media_type.as_deref());
    let operation = selector.and_then(|selector| selector.operation.as_deref());
    (
        media_type.filter(|text| !text.is_empty()),
        operation.unwrap_or("extract"),
    )
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

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    /// An archive of ours of `v1@sha256:1`, made with these rules.
    fn record(binding: &Value) -> Record {
        let mut whole = json!({"uid": "u", "url": "oci://r/app"});
        whole
            .as_object_mut()
            .unwrap()
            .extend(binding.as_object().unwrap().clone());
        let record = json!({"format": 1, "binding": whole, "revision": "v1@sha256:1", "path": "p",
            "file": {"name": "f", "digest": "sha256:ours", "size": 1, "mtime": "2026-01-01T00:00:00Z"},
            "last_update_time": "2026-01-01T00:00:00Z"});
        serde_json::from_value(record).unwrap()
    }

    /// An object with an artifact of this revision and digest in its status.
    fn announced(revision: &str, digest: &str, observed: &Value) -> OciRepository {
        let mut status = json!({"artifact": {"digest": digest, "lastUpdateTime": "2026-01-01T00:00:00Z", "path": "p",
            "revision": revision, "url": "http://another/p"}});
        status
            .as_object_mut()
            .unwrap()
            .extend(observed.as_object().unwrap().clone());
        serde_json::from_value(
            json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository",
            "metadata": {"name": "app"}, "spec": {"url": "oci://r/app", "interval": "1m"}, "status": status}),
        )
        .unwrap()
    }

    #[rstest]
    #[case::same("v1@sha256:1", json!({}), json!({}), false)]
    #[case::another_revision("v1@sha256:2", json!({}), json!({}), true)]
    #[case::ignore_added("v1@sha256:1", json!({}), json!({"ignore": "*.md"}), true)]
    #[case::ignore_kept("v1@sha256:1", json!({"observedIgnore": "*.md"}), json!({"ignore": "*.md"}), false)]
    #[case::default_written_out("v1@sha256:1", json!({"observedLayerSelector": {"mediaType": "m", "operation": "extract"}}),
        json!({"layer_selector": {"media_type": "m"}}), false)]
    #[case::another_layer("v1@sha256:1", json!({"observedLayerSelector": {"mediaType": "m"}}),
        json!({"layer_selector": {"media_type": "n"}}), true)]
    #[case::copied("v1@sha256:1", json!({}), json!({"layer_selector": {"operation": "copy"}}), true)]
    fn another_controllers_archive_is_news_by_what_it_was_made_from(
        #[case] revision: &str,
        #[case] observed: Value,
        #[case] binding: Value,
        #[case] news: bool,
    ) {
        let object = announced(revision, "sha256:theirs", &observed);
        assert_eq!(is_new(&object, &record(&binding), None), news);
    }

    #[test]
    fn our_own_archive_is_news_by_its_digest() {
        let (ours, same) = (record(&json!({})), record(&json!({"ignore": "*.md"})));
        let object = announced("v0@sha256:0", "sha256:theirs", &json!({}));
        assert!(!is_new(&object, &same, Some(&ours)), "an edit without effect");
        assert!(!is_new(
            &announced("v0@sha256:0", "sha256:ours", &json!({})),
            &ours,
            None
        ));
    }
}
