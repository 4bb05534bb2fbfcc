//! The pure ends of a pass: what a spec is turned into, and what status says afterwards.

use std::time::Duration;

use jiff::Timestamp;
use mintmark_api::{
    condition::{READY, RECONCILING, STALLED, reason},
    image_repository::{ImageRepository, ImageRepositoryStatus},
};
use rstest::rstest;
use serde_json::{Value, json};

use super::{Found, ValidatedImageRepository, status};
use crate::reconcile::{Outcome, OwnedStatus, StepError, reconciled::differs, settings::tests::settings};

/// An object of generation 3 in the issuer's namespace.
fn object(more: &Value) -> ImageRepository {
    let mut spec = json!({"image": "registry.example/team/app", "interval": "1m"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "image.toolkit.fluxcd.io/v1", "kind": "ImageRepository",
        "metadata": {"name": "app", "namespace": "mintmark-system", "uid": "u", "generation": 3}, "spec": spec,
    }))
    .unwrap()
}

#[rstest]
#[case::scheme(json!({"image": "https://registry.example/app"}), reason::IMAGE_URL_INVALID)]
#[case::tag(json!({"image": "registry.example/app:1"}), reason::IMAGE_URL_INVALID)]
#[case::provider(json!({"provider": "aws"}), reason::PROVIDER_NOT_SUPPORTED)]
#[case::contradiction(json!({"credential": "SpiffeJWT"}), reason::CREDENTIAL_INVALID)]
#[case::issuers_secret(json!({"secretRef": {"name": "mintmark-signing"}}), reason::CREDENTIAL_INVALID)]
fn what_only_an_edit_mends_stalls(#[case] more: Value, #[case] expected: &str) {
    let error = ValidatedImageRepository::new(&object(&more), &settings()).unwrap_err();
    assert_eq!(error.reason, expected);
    assert!(error.policy.is_stalled());
    let status = after(&object(&more), &Outcome::failed(error), &Found::default(), 100);
    let ready = |kind: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == kind);
        found.map(|condition| (condition.status.clone(), condition.reason.clone()))
    };
    assert_eq!(ready(READY), Some(("False".to_owned(), expected.to_owned())));
    assert_eq!(ready(STALLED), Some(("True".to_owned(), expected.to_owned())));
    assert_eq!(ready(RECONCILING), None);
    assert_eq!(status.observed_generation, Some(3));
}

#[test]
fn a_bad_pattern_is_retried() {
    let error = ValidatedImageRepository::new(&object(&json!({"exclusionList": ["("]})), &settings()).unwrap_err();
    assert!(!error.policy.is_stalled());
    let status = after(&object(&json!({})), &Outcome::failed(error), &Found::default(), 100);
    assert_eq!(status.observed_generation, None);
    assert_eq!(status.conditions[0].type_, RECONCILING);
}

/// A scan made at this second, which found these tags.
fn found(second: i64, tags: &[&str]) -> Found {
    let record = json!({"format": 1, "binding": {"uid": "u", "url": "registry.example/team/app", "exclusions": ["x"]},
        "revision": format!("sha256:{}", tags.len()), "path": "p", "last_update_time": "2026-01-01T00:00:00Z",
        "file": {"name": "tags.txt", "digest": "sha256:0", "size": 1, "mtime": "2026-01-01T00:00:00Z"},
        "scan": {"time": Timestamp::from_second(second).unwrap(), "tag_count": tags.len(), "bytes": 1, "latest_tags": tags}});
    Found {
        has_changed: false,
        record: Some(std::sync::Arc::new(serde_json::from_value(record).unwrap())),
        interval: Duration::from_mins(1),
    }
}

fn after(object: &ImageRepository, outcome: &Outcome, found: &Found, second: i64) -> ImageRepositoryStatus {
    status::after(object, outcome, found, None, Timestamp::from_second(second).unwrap())
}

fn scan_time(status: &ImageRepositoryStatus) -> i64 {
    let result = status.last_scan_result.as_ref().unwrap();
    result.scan_time.as_ref().unwrap().0.as_second()
}

#[test]
fn a_scan_is_told_whole() {
    let status = after(&object(&json!({})), &Outcome::Ready, &found(100, &["b", "a"]), 100);
    let shown = serde_json::to_value(&status).unwrap();
    assert_eq!(
        shown["lastScanResult"],
        json!({"revision": "sha256:2", "tagCount": 2, "latestTags": ["b", "a"],
        "scanTime": "1970-01-01T00:01:40Z"})
    );
    assert_eq!(shown["observedExclusionList"], json!(["x"]));
    assert_eq!(shown["canonicalImageName"], "registry.example/team/app");
    let [ready] = status.conditions.as_slice() else {
        panic!("{status:?}")
    };
    assert_eq!((ready.type_.as_str(), ready.status.as_str()), (READY, "True"));
    assert_eq!(ready.message, "successful scan: found 2 tags with checksum sha256:2");
    let fields = shown.as_object().unwrap().keys();
    assert!(
        fields
            .into_iter()
            .all(|field| ImageRepositoryStatus::OWNED_FIELDS.contains(&field.as_str()))
    );
}

#[test]
fn quiet_scans_move_the_time_once_per_interval() {
    let mut object = object(&json!({}));
    object.status = Some(after(&object, &Outcome::Ready, &found(100, &["a"]), 100));
    let soon = after(&object, &Outcome::Ready, &found(130, &["a"]), 130);
    assert!(!differs(object.status.as_ref(), &soon), "{soon:?}");
    let later = after(&object, &Outcome::Ready, &found(160, &["a"]), 160);
    assert_eq!(scan_time(&later), 160);
    let other = after(&object, &Outcome::Ready, &found(130, &["a", "b"]), 130);
    assert_eq!(scan_time(&other), 130);
}

#[test]
fn a_failure_keeps_what_was_found() {
    let mut object = object(&json!({}));
    let found = found(100, &["a"]);
    object.status = Some(after(&object, &Outcome::Ready, &found, 100));
    let error = StepError::fetch(reason::READ_OPERATION_FAILED, "404");
    let status = after(&object, &Outcome::failed(error), &found, 130);
    assert_eq!(status.last_scan_result, object.status.unwrap().last_scan_result);
    assert_eq!(status.conditions[0].type_, RECONCILING);
    assert_eq!(
        (
            status.conditions[1].status.as_str(),
            status.conditions[1].message.as_str()
        ),
        ("False", "404")
    );
}
