//! Objects as users write them and as Flux stores them, through serde and back.

use kube::Resource;
use rstest::rstest;
use serde_json::{Value, json};

use super::*;

fn decode(object: Value) -> ImagePolicy {
    serde_json::from_value(object).unwrap()
}

fn with(fields: &Value) -> ImagePolicy {
    let mut spec = json!({"imageRepositoryRef": {"name": "web"}, "policy": {"semver": {"range": "1.x"}}});
    spec.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    decode(
        json!({"apiVersion": "image.toolkit.fluxcd.io/v1", "kind": "ImagePolicy", "metadata": {"name": "web"},
        "spec": spec}),
    )
}

#[test]
fn the_kind_is_fluxs() {
    assert_eq!(ImagePolicy::api_version(&()), "image.toolkit.fluxcd.io/v1");
    assert_eq!(ImagePolicy::kind(&()), KIND);
    assert_eq!(ImagePolicy::plural(&()), PLURAL);
}

#[test]
fn an_object_stored_by_flux_round_trips() {
    let image = json!({"name": "ghcr.io/stefanprodan/podinfo", "tag": "6.5.1", "digest": "sha256:00"});
    let object = json!({
        "apiVersion": "image.toolkit.fluxcd.io/v1",
        "kind": "ImagePolicy",
        "metadata": {"name": "podinfo", "namespace": "apps", "generation": 2},
        "spec": {
            "imageRepositoryRef": {"name": "podinfo", "namespace": "images"},
            "policy": {"semver": {"range": "6.x"}, "alphabetical": {"order": "asc"}, "numerical": {"order": "desc"}},
            "filterTags": {"pattern": "^v(?P<version>.*)$", "extract": "$version"},
            "digestReflectionPolicy": "Always", "interval": "10m0s", "suspend": true,
        },
        "status": {
            "observedGeneration": 2,
            "conditions": [{
                "lastTransitionTime": "2026-06-30T08:11:12Z", "message": "Latest image tag", "observedGeneration": 2,
                "reason": "Succeeded", "status": "True", "type": "Ready"
            }],
            "latestRef": image, "observedPreviousRef": image, "lastHandledReconcileAt": "2026-06-30T08:11:10.1Z"
        }
    });
    assert_eq!(serde_json::to_value(decode(object.clone())).unwrap(), object);
}

#[rstest]
#[case(json!({}), None)]
#[case(json!({"digestReflectionPolicy": "IfNotPresent"}), None)]
#[case(json!({"digestReflectionPolicy": "Always", "interval": "5m"}), None)]
#[case(json!({"digestReflectionPolicy": "Always"}), Some(ALWAYS_WITHOUT_INTERVAL))]
#[case(json!({"digestReflectionPolicy": "Never", "interval": "5m"}), Some(INTERVAL_WITHOUT_ALWAYS))]
#[case(json!({"interval": "5m"}), Some(INTERVAL_WITHOUT_ALWAYS))]
fn interval_and_always_belong_together(#[case] fields: Value, #[case] rule: Option<CelRule>) {
    assert_eq!(with(&fields).spec.interval_contradiction(), rule);
}

#[test]
fn words_of_another_version_do_not_stop_decoding() {
    let object = with(&json!({"digestReflectionPolicy": "Sometimes", "policy": {"numerical": {"order": "random"}}}));
    assert_eq!(object.spec.digest_reflection_policy(), DigestReflectionPolicy::Unknown);
    assert_eq!(object.spec.policy.numerical.unwrap().order, Some(Order::Unknown));
}
