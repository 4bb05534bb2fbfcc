//! Objects as users write them and as Flux stores them, through serde and back; who is let in.

use kube::Resource;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::{credential::CredentialKind, credential_contradictions, rules::CredentialRule};

fn decode(object: Value) -> ImageRepository {
    serde_json::from_value(object).unwrap()
}

fn with(fields: &Value) -> ImageRepository {
    let mut spec = json!({"image": "registry.example.org/apps/web", "interval": "5m"});
    spec.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    decode(
        json!({"apiVersion": "image.toolkit.fluxcd.io/v1", "kind": "ImageRepository", "metadata": {"name": "web"},
        "spec": spec}),
    )
}

#[test]
fn the_kind_is_fluxs() {
    assert_eq!(ImageRepository::api_version(&()), "image.toolkit.fluxcd.io/v1");
    assert_eq!(ImageRepository::kind(&()), KIND);
    assert_eq!(ImageRepository::plural(&()), PLURAL);
}

#[test]
fn an_object_stored_by_flux_round_trips() {
    let object = json!({
        "apiVersion": "image.toolkit.fluxcd.io/v1",
        "kind": "ImageRepository",
        "metadata": {"name": "podinfo", "namespace": "apps", "generation": 2},
        "spec": {
            "image": "ghcr.io/stefanprodan/podinfo", "interval": "5m0s", "timeout": "1m0s", "provider": "generic",
            "secretRef": {"name": "login"}, "certSecretRef": {"name": "ca"}, "proxySecretRef": {"name": "proxy"},
            "serviceAccountName": "puller", "insecure": true, "suspend": true, "exclusionList": ["^.*\\.sig$"],
            "accessFrom": {"namespaceSelectors": [{"matchLabels": {"team": "web"}}, {}]},
        },
        "status": {
            "observedGeneration": 2,
            "conditions": [{
                "lastTransitionTime": "2026-06-30T08:11:12Z", "message": "successful scan", "observedGeneration": 2,
                "reason": "Succeeded", "status": "True", "type": "Ready"
            }],
            "canonicalImageName": "ghcr.io/stefanprodan/podinfo",
            "lastScanResult": {"revision": "sha256:00", "tagCount": 2, "scanTime": "2026-06-30T08:11:12Z",
                "latestTags": ["6.5.1", "6.5.0"]},
            "observedExclusionList": ["^.*\\.sig$"],
            "lastHandledReconcileAt": "2026-06-30T08:11:10.1Z"
        }
    });
    assert_eq!(serde_json::to_value(decode(object.clone())).unwrap(), object);
}

#[test]
fn the_shared_fields_stand_flat_and_keep_their_rules() {
    let object = with(&json!({"credential": "SpiffeJWT", "audiences": ["r"]}));
    assert_eq!(object.spec.credential, Some(CredentialKind::SpiffeJwt));
    assert_eq!(serde_json::to_value(&object.spec).unwrap()["audiences"], json!(["r"]));
    assert_eq!(credential_contradictions(&object.spec), Ok(()));
    let object = with(&json!({"credential": "SpiffeCertificate", "insecure": true}));
    assert_eq!(credential_contradictions(&object.spec), Err(CredentialRule::Insecure));
}

#[rstest]
#[case(json!({}), 300_000)]
#[case(json!({"timeout": "20s"}), 20_000)]
#[case(json!({"timeout": "10ms"}), 1_000)]
#[case(json!({"interval": "500ms"}), 1_000)]
fn the_timeout_is_the_interval_by_default_and_a_second_at_least(#[case] fields: Value, #[case] milliseconds: u64) {
    assert_eq!(with(&fields).spec.timeout(), Duration::from_millis(milliseconds));
}

#[rstest]
#[case(json!({}), &[r"^.*\.sig$"])]
#[case(json!({"exclusionList": []}), &[r"^.*\.sig$"])]
#[case(json!({"exclusionList": ["a", "b"]}), &["a", "b"])]
fn the_exclusion_list_has_a_default(#[case] fields: Value, #[case] patterns: &[&str]) {
    assert_eq!(with(&fields).spec.exclusion_list(), patterns);
}

#[rstest]
#[case::none(json!([]), false)]
#[case::all(json!([{}]), true)]
#[case::empty_labels_are_all(json!([{"matchLabels": {}}]), true)]
#[case::equal(json!([{"matchLabels": {"team": "web"}}]), true)]
#[case::other_value(json!([{"matchLabels": {"team": "api"}}]), false)]
#[case::absent(json!([{"matchLabels": {"stage": ""}}]), false)]
#[case::all_labels_of_one(json!([{"matchLabels": {"team": "web", "env": "test"}}]), false)]
#[case::one_of_several(json!([{"matchLabels": {"team": "api"}}, {"matchLabels": {"env": "prod"}}]), true)]
fn selectors_are_alternatives_and_their_labels_are_not(#[case] selectors: Value, #[case] admitted: bool) {
    let access: AccessFrom = serde_json::from_value(json!({"namespaceSelectors": selectors})).unwrap();
    let labels = [("team", "web"), ("env", "prod")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(access.admits(&labels.into()), admitted);
}
