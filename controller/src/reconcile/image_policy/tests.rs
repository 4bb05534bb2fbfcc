//! The pure ends of a pass: what a spec is turned into, and what status says afterwards.

use jiff::Timestamp;
use mintmark_api::{
    condition::{READY, RECONCILING, STALLED, reason},
    image_policy::{DigestReflectionPolicy, ImagePolicy, ImagePolicyStatus, ImageRef},
};
use rstest::rstest;
use serde_json::{Value, json};

use super::{status, validate::ValidatedImagePolicy};
use crate::reconcile::{Outcome, OwnedStatus, StepError, reconciled::differs, settings::tests::settings};

/// An object of generation 3.
fn object(more: &Value) -> ImagePolicy {
    let mut spec = json!({"imageRepositoryRef": {"name": "app"}, "policy": {"semver": {"range": "1.x"}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "image.toolkit.fluxcd.io/v1", "kind": "ImagePolicy",
        "metadata": {"name": "app", "namespace": "a", "uid": "u", "generation": 3}, "spec": spec,
    }))
    .unwrap()
}

fn image(tag: &str, digest: &str) -> ImageRef {
    ImageRef {
        name: "r.example/app".to_owned(),
        tag: tag.to_owned(),
        digest: digest.to_owned(),
    }
}

fn after(object: &ImagePolicy, outcome: &Outcome, found: Option<&ImageRef>) -> ImagePolicyStatus {
    status::after(object, outcome, found, Timestamp::UNIX_EPOCH)
}

fn ready(status: &ImagePolicyStatus) -> (&str, &str, &str) {
    let ready = status
        .conditions
        .iter()
        .find(|condition| condition.type_ == READY)
        .unwrap();
    (&ready.status, &ready.reason, &ready.message)
}

fn has(status: &ImagePolicyStatus, kind: &str) -> bool {
    status
        .conditions
        .iter()
        .any(|condition| condition.type_ == kind && condition.status == "True")
}

#[rstest]
#[case::range(json!({"policy": {"semver": {"range": "no range"}}}), reason::INVALID_POLICY)]
#[case::no_policy(json!({"policy": {}}), reason::INVALID_POLICY)]
#[case::order(json!({"policy": {"numerical": {"order": "up"}}}), reason::INVALID_POLICY)]
#[case::pattern(json!({"filterTags": {"pattern": "("}}), reason::INVALID_POLICY)]
#[case::digest(json!({"digestReflectionPolicy": "Sometimes"}), reason::INVALID_POLICY)]
#[case::no_interval(json!({"digestReflectionPolicy": "Always"}), reason::INTERVAL_NOT_CONFIGURED)]
#[case::interval(json!({"interval": "1m"}), reason::INTERVAL_NOT_CONFIGURED)]
fn what_only_an_edit_mends_stalls(#[case] more: Value, #[case] expected: &str) {
    let error = ValidatedImagePolicy::new(&object(&more), &settings()).unwrap_err();
    let message = error.message.clone();
    let status = after(&object(&more), &Outcome::failed(error), None);
    assert_eq!(ready(&status), ("False", expected, message.as_str()));
    assert!(has(&status, STALLED) && !has(&status, RECONCILING));
    assert_eq!(status.observed_generation, Some(3));
}

#[test]
fn a_reference_without_a_namespace_is_to_the_own_one() {
    let key = |more: Value| {
        ValidatedImagePolicy::new(&object(&more), &settings())
            .unwrap()
            .repository
            .to_string()
    };
    assert_eq!(key(json!({})), "a/app");
    assert_eq!(
        key(json!({"imageRepositoryRef": {"name": "app", "namespace": ""}})),
        "a/app"
    );
    assert_eq!(
        key(json!({"imageRepositoryRef": {"name": "app", "namespace": "b"}})),
        "b/app"
    );
}

#[test]
fn a_digest_is_looked_up_again_after_the_interval() {
    let more = json!({"digestReflectionPolicy": "Always", "interval": "100ms"});
    let spec = ValidatedImagePolicy::new(&object(&more), &settings()).unwrap();
    assert_eq!(spec.digest, DigestReflectionPolicy::Always);
    assert_eq!(spec.interval, Some(settings().min_interval));
}

#[test]
fn the_previous_reference_is_the_one_shown_before_another() {
    let mut object = object(&json!({}));
    let first = image("1.0.0", "");
    let status = after(&object, &Outcome::Ready, Some(&first));
    let message = "Latest image tag for r.example/app resolved to 1.0.0";
    assert_eq!(ready(&status), ("True", reason::SUCCEEDED, message));
    assert_eq!(status.observed_previous_ref, None);

    object.status = Some(status);
    let again = after(&object, &Outcome::Ready, Some(&first));
    assert!(!differs(object.status.as_ref(), &again), "{again:?}");

    let status = after(&object, &Outcome::Ready, Some(&image("1.1.0", "sha256:1")));
    let message =
        "Latest image tag for r.example/app resolved to 1.1.0 with digest sha256:1 (previously r.example/app:1.0.0)";
    assert_eq!(ready(&status).2, message);
    assert_eq!(status.observed_previous_ref, Some(first));

    object.status = Some(status);
    let status = after(&object, &Outcome::Ready, Some(&image("1.1.0", "sha256:2")));
    assert!(
        ready(&status)
            .2
            .ends_with("sha256:2 (previously r.example/app:1.1.0@sha256:1)"),
        "{status:?}"
    );
    let fields = serde_json::to_value(&status).unwrap();
    let mut fields = fields.as_object().unwrap().keys();
    assert!(fields.all(|field| ImagePolicyStatus::OWNED_FIELDS.contains(&field.as_str())));
}

#[test]
fn a_failure_keeps_what_was_selected() {
    let mut object = object(&json!({}));
    object.status = Some(after(&object, &Outcome::Ready, Some(&image("1.0.0", ""))));
    let error = StepError::dependency(reason::ACCESS_DENIED, "access denied");
    let status = after(&object, &Outcome::failed(error), None);
    assert_eq!(ready(&status), ("False", reason::ACCESS_DENIED, "access denied"));
    assert!(has(&status, RECONCILING) && !has(&status, STALLED));
    assert_eq!(status.latest_ref, Some(image("1.0.0", "")));
    assert_eq!(status.observed_previous_ref, None);
}

#[test]
fn a_suspended_object_has_its_request_handled_and_nothing_else() {
    let mut object = object(&json!({"suspend": true}));
    object.status = Some(after(&object, &Outcome::Ready, Some(&image("1.0.0", ""))));
    object.metadata.generation = Some(4);
    let request = ("reconcile.fluxcd.io/requestedAt".to_owned(), "now".to_owned());
    object.metadata.annotations = Some([request].into());
    let status = after(&object, &Outcome::Suspended, None);
    let expected = ImagePolicyStatus {
        observed_generation: Some(4),
        last_handled_reconcile_at: Some("now".to_owned()),
        ..object.status.clone().unwrap()
    };
    assert_eq!(status, expected);
}
