//! The pure ends of a pass: what a spec is turned into, and what status says afterwards.

use jiff::Timestamp;
use mintmark_api::{
    artifact::Artifact,
    condition::{Condition, FETCH_FAILED, reason},
    oci_repository::{OciRepository, OciRepositoryStatus},
};
use rstest::rstest;
use serde_json::{Value, json};

use super::{
    Reference, ValidatedOciRepository,
    status::{Findings, progressing},
};
use crate::{
    artifact::AdvertisedAddress,
    credential::Wanted,
    reconcile::{
        Outcome, Policy, Settings, StepError, access::LoginFrom, reconciled::differs, settings::tests::settings,
    },
    semver::TagForm,
    watch::Kind,
};

/// An object of generation 3 in namespace `mintmark-system`, where the issuer's Secret is.
fn object(more: &Value) -> OciRepository {
    let mut spec = json!({"url": "oci://registry.example/team/app", "interval": "1m"});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "OCIRepository",
        "metadata": {"name": "app", "namespace": "mintmark-system", "uid": "u", "generation": 3},
        "spec": spec,
    }))
    .unwrap()
}

fn validate(more: &Value) -> Result<ValidatedOciRepository, StepError> {
    ValidatedOciRepository::new(&object(more), &settings())
}

#[test]
fn an_operation_of_a_later_version_is_refused_by_name() {
    let error = validate(&json!({"layerSelector": {"operation": "move"}})).unwrap_err();
    assert_eq!(
        (error.reason, error.message.as_str()),
        (
            reason::FIELD_NOT_SUPPORTED,
            "spec.layerSelector.operation is not supported yet"
        )
    );
    assert_eq!((error.policy, error.condition), (Policy::Terminal, None));
}

#[rstest]
#[case(json!({"verify": {"provider": "cosign"}}), reason::VERIFICATION_NOT_SUPPORTED)]
#[case(json!({"provider": "aws"}), reason::PROVIDER_NOT_SUPPORTED)]
#[case(json!({"url": "oci://registry.example/app:v1"}), reason::URL_INVALID)]
#[case(json!({"ref": {"tag": "-x"}}), reason::URL_INVALID)]
#[case(json!({"ref": {"digest": "sha256:xyz"}}), reason::URL_INVALID)]
#[case(json!({"credential": "SpiffeJWT"}), reason::CREDENTIAL_INVALID)]
#[case(json!({"credential": "SpiffeJWT", "audiences": ["a"], "secretRef": {"name": "s"}}), reason::CREDENTIAL_INVALID)]
#[case(json!({"credential": "Other", "audiences": ["a"]}), reason::CREDENTIAL_INVALID)]
#[case(json!({"certSecretRef": {"name": "mintmark-signing"}}), reason::CREDENTIAL_INVALID)]
#[case(json!({"secretRef": {"name": "mintmark-signing"}}), reason::CREDENTIAL_INVALID)]
#[case(json!({"proxySecretRef": {"name": "mintmark-signing"}}), reason::CREDENTIAL_INVALID)]
#[case(json!({"url": "oci://alpine", "credential": "SpiffeCertificate"}), reason::URL_INVALID)]
fn what_only_an_edit_mends_is_terminal(#[case] more: Value, #[case] reason: &str) {
    let error = validate(&more).unwrap_err();
    assert_eq!((error.reason, error.policy), (reason, Policy::Terminal), "{error}");
}

#[rstest]
#[case(json!({}), LoginFrom::Nobody)]
#[case(json!({"secretRef": {"name": "s"}}), LoginFrom::SecretRef("s".to_owned()))]
#[case(json!({"serviceAccountName": "a"}), LoginFrom::Account("a".to_owned()))]
#[case(json!({"serviceAccountName": ""}), LoginFrom::Nobody)]
#[case(json!({"secretRef": {"name": "s"}, "serviceAccountName": "a"}), LoginFrom::SecretRef("s".to_owned()))]
#[case(json!({"serviceAccountName": "a", "credential": "ServiceAccountToken", "audiences": ["x"]}), LoginFrom::Nobody)]
fn a_secret_ref_goes_before_the_account(#[case] more: Value, #[case] expected: LoginFrom) {
    assert_eq!(validate(&more).unwrap().login, expected);
}

#[test]
fn the_default_account_is_for_objects_that_name_none() {
    let settings = Settings {
        default_service_account: Some("default".to_owned()),
        ..settings()
    };
    let login = |more: &Value| {
        ValidatedOciRepository::new(&object(more), &settings)
            .unwrap()
            .access
            .login
    };
    assert_eq!(login(&json!({})), LoginFrom::Account("default".to_owned()));
    assert_eq!(
        login(&json!({"serviceAccountName": "a"})),
        LoginFrom::Account("a".to_owned())
    );
    assert_eq!(login(&json!({"credential": "SpiffeCertificate"})), LoginFrom::Nobody);
}

#[test]
fn a_valid_spec_holds_sorted_audiences_and_clamped_times() {
    let valid =
        validate(&json!({"credential": "SpiffeJWT", "audiences": ["b", "a"], "interval": "10ms", "timeout": "59m"}));
    let valid = valid.unwrap();
    let audiences: Vec<_> = valid.credential.audiences().iter().map(ToString::to_string).collect();
    assert_eq!(audiences, ["a", "b"]);
    assert_eq!((valid.interval.as_secs(), valid.timeout.as_secs()), (1, 600));
    assert!(matches!(valid.reference, Reference::Tag(tag) if tag.as_str() == "latest"));
    let digest = format!("sha256:{}", "ab".repeat(32));
    let by_digest = validate(&json!({"ref": {"tag": "v1", "digest": digest}})).unwrap();
    assert!(matches!(by_digest.reference, Reference::Digest(found) if found.as_str() == digest));
    assert_eq!(by_digest.access.credential, Wanted::Anonymous);
}

#[rstest]
#[case::constraint(json!({"semver": "1.x || newest"}), r#"semver '1.x || newest' parse error: improper constraint: " newest""#)]
#[case::filter(json!({"semver": "1.x", "semverFilter": "("}), "spec.ref.semverFilter: not a regular expression: unclosed group")]
fn an_unusable_range_is_retried_as_in_flux(#[case] reference: Value, #[case] why: &str) {
    let error = validate(&json!({ "ref": reference })).unwrap_err();
    let expected = format!("failed to determine the artifact tag for 'oci://registry.example/team/app': {why}");
    assert!(error.message.starts_with(&expected), "{error}");
    assert_eq!(error.reason, reason::READ_OPERATION_FAILED);
    assert_eq!(error.policy, Policy::Transient);
    assert_eq!(error.condition, Some(FETCH_FAILED));
}

#[rstest]
#[case::digest_first(json!({"digest": format!("sha256:{}", "ab".repeat(32)), "semver": "bad", "tag": "v1"}), "digest")]
#[case::then_semver(json!({"digest": "", "semver": "1.x", "tag": "v1"}), "semver")]
#[case::then_tag(json!({"semver": "", "semverFilter": "(", "tag": "v1"}), "tag")]
fn one_field_of_the_reference_counts(#[case] reference: Value, #[case] which: &str) {
    let found = match validate(&json!({ "ref": reference })).unwrap().reference {
        Reference::Digest(_) => "digest",
        Reference::Semver(_) => "semver",
        Reference::Tag(_) => "tag",
    };
    assert_eq!(found, which);
}

#[rstest]
#[case("application/vnd.cncf.helm.chart.content.v1.tar+gzip", TagForm::HelmChart)]
#[case("application/vnd.cncf.flux.content.v1.tar+gzip", TagForm::Plain)]
fn the_layer_tells_how_a_version_stands_in_a_tag(#[case] layer: &str, #[case] form: TagForm) {
    let valid = validate(&json!({"ref": {"semver": "1.x"}, "layerSelector": {"mediaType": layer}})).unwrap();
    assert!(matches!(valid.reference, Reference::Semver(range) if range.form == form));
}

fn address() -> AdvertisedAddress {
    AdvertisedAddress::new(Some("mintmark.svc"), "", || None).unwrap()
}

fn failed(error: StepError) -> Outcome {
    Outcome::failed(error)
}

fn status(object: &OciRepository, outcome: &Outcome) -> OciRepositoryStatus {
    let findings = Findings {
        outcome,
        stored: None,
        credential: None,
        address: &address(),
    };
    findings.status(object, Timestamp::from_second(1_000).unwrap())
}

fn summary(conditions: &[Condition]) -> Vec<String> {
    conditions
        .iter()
        .map(|c| format!("{}={} {}", c.type_, c.status, c.reason))
        .collect()
}

fn with_artifact(url: &str) -> OciRepository {
    let mut object = object(&json!({}));
    let artifact: Artifact = serde_json::from_value(json!({
        "digest": "sha256:00", "lastUpdateTime": "2026-06-30T08:11:12Z", "path": "p", "revision": "v1@sha256:00", "url": url,
    }))
    .unwrap();
    object.status = Some(OciRepositoryStatus {
        artifact: Some(artifact),
        ..OciRepositoryStatus::default()
    });
    object
}

#[test]
fn a_retryable_failure_does_not_observe_the_generation() {
    let status = status(
        &object(&json!({})),
        &failed(StepError::fetch("OCIArtifactPullFailed", "no")),
    );
    assert_eq!(status.observed_generation, None);
    assert_eq!(
        summary(&status.conditions),
        [
            "Reconciling=True ProgressingWithRetry",
            "Ready=False OCIArtifactPullFailed",
            "FetchFailed=True OCIArtifactPullFailed"
        ]
    );
}

#[test]
fn a_terminal_failure_stalls_and_observes_the_generation() {
    let status = status(&object(&json!({})), &failed(StepError::unsupported("ref.semver")));
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(
        summary(&status.conditions),
        ["Stalled=True FieldNotSupported", "Ready=False FieldNotSupported"]
    );
}

#[test]
fn an_artifact_of_ours_without_a_record_is_forged_and_goes() {
    let error = || failed(StepError::fetch("OCIArtifactPullFailed", "no"));
    let ours = status(
        &with_artifact("http://mintmark.svc/ocirepository/other/app/x.tar.gz"),
        &error(),
    );
    assert_eq!((ours.artifact, ours.url), (None, None));
    let theirs = status(
        &with_artifact("http://source-controller.flux-system.svc/x.tar.gz"),
        &error(),
    );
    assert!(
        theirs.artifact.is_some(),
        "another controller serves it until ours is there"
    );
    assert!(summary(&theirs.conditions).contains(&"ArtifactInStorage=True Succeeded".to_owned()));
}

#[test]
fn suspension_observes_and_changes_nothing_else() {
    let mut suspended = with_artifact("http://mintmark.svc/forged.tar.gz");
    suspended.metadata.annotations = Some([("reconcile.fluxcd.io/requestedAt".to_owned(), "now".to_owned())].into());
    let status = status(&suspended, &Outcome::Suspended);
    assert_eq!(status.observed_generation, Some(3));
    assert_eq!(status.last_handled_reconcile_at.as_deref(), Some("now"));
    assert_eq!(status.artifact, suspended.status.unwrap().artifact);
    assert!(status.conditions.is_empty());
}

#[test]
fn the_credential_alone_is_no_reason_to_write() {
    let old = OciRepositoryStatus::default();
    let credential = serde_json::from_value(json!({"type": "SpiffeJWT", "subject": "s", "keyID": "k2"})).unwrap();
    let new = OciRepositoryStatus {
        credential: Some(credential),
        ..old.clone()
    };
    assert!(!differs(Some(&old), &new));
    assert!(differs(
        Some(&old),
        &OciRepositoryStatus {
            url: Some("u".to_owned()),
            ..new
        }
    ));
    assert!(differs(None, &old));
}

#[test]
fn progress_is_told_with_ready_unknown() {
    let status = progressing(&object(&json!({})), "building artifact", Timestamp::UNIX_EPOCH);
    assert_eq!(
        summary(&status.conditions),
        ["Reconciling=True Progressing", "Ready=Unknown Progressing"]
    );
    assert!(
        status
            .conditions
            .iter()
            .all(|condition| condition.message == "building artifact")
    );
}

#[test]
fn only_what_is_read_is_kept_in_memory() {
    let mut object = object(&json!({}));
    let annotations = |names: &[&str]| Some(names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect());
    let read = ["event.toolkit.fluxcd.io/team", "reconcile.fluxcd.io/requestedAt"];
    object.metadata.annotations = annotations(&[read[0], read[1], "kubectl.kubernetes.io/last-applied-configuration"]);
    object.metadata.labels = annotations(&["app"]);
    object.metadata.finalizers = Some(vec!["finalizers.fluxcd.io".to_owned()]);
    let kept = object.clone().pruned();
    assert_eq!(kept.metadata.annotations, annotations(&read));
    assert_eq!(kept.metadata.labels, None);
    assert_eq!(kept.metadata.finalizers, object.metadata.finalizers);
    assert_eq!((kept.metadata.uid.as_deref(), &kept.spec), (Some("u"), &object.spec));
    object.metadata.annotations = annotations(&["other"]);
    assert_eq!(object.pruned().metadata.annotations, None);
}
