//! Objects as users write them and as Flux stores them, through serde and back.

use kube::Resource;
use serde_json::json;

use super::*;
use crate::{credential::CredentialKind, reference::Selection};

fn decode(object: serde_json::Value) -> OciRepository {
    serde_json::from_value(object).unwrap()
}

#[test]
fn the_kind_is_fluxs() {
    assert_eq!(OciRepository::group(&()), GROUP);
    assert_eq!(OciRepository::version(&()), VERSION);
    assert_eq!(OciRepository::kind(&()), KIND);
    assert_eq!(OciRepository::plural(&()), PLURAL);
}

#[test]
fn an_object_stored_by_flux_round_trips() {
    let object = json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "OCIRepository",
        "metadata": {"name": "podinfo", "namespace": "apps", "generation": 3},
        "spec": {
            "interval": "5m0s",
            "layerSelector": {"mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip", "operation": "copy"},
            "provider": "generic",
            "ref": {"semver": "6.x", "semverFilter": ".*"},
            "secretRef": {"name": "login"},
            "certSecretRef": {"name": "ca"},
            "proxySecretRef": {"name": "proxy"},
            "serviceAccountName": "puller",
            "timeout": "1m0s",
            "ignore": "",
            "insecure": true,
            "suspend": true,
            "url": "oci://ghcr.io/stefanprodan/manifests/podinfo",
            "verify": {
                "provider": "cosign",
                "secretRef": {"name": "keys"},
                "trustedRootSecretRef": {"name": "root"},
                "matchOIDCIdentity": [{"issuer": "^https://token.actions.*$", "subject": "^https://github.com/.*$"}]
            }
        },
        "status": {
            "observedGeneration": 3,
            "conditions": [{
                "lastTransitionTime": "2026-06-30T08:11:12Z", "message": "stored artifact", "observedGeneration": 3,
                "reason": "Succeeded", "status": "True", "type": "Ready"
            }],
            "url": "http://source-controller/ocirepository/apps/podinfo/latest.tar.gz",
            "artifact": {
                "digest": "sha256:3b6c", "lastUpdateTime": "2026-06-30T08:11:12Z",
                "path": "ocirepository/apps/podinfo/sha256:3b6c.tar.gz", "revision": "6.5.1@sha256:d28b", "size": 1105,
                "url": "http://source-controller/ocirepository/apps/podinfo/sha256:3b6c.tar.gz"
            },
            "observedIgnore": "",
            "observedLayerSelector": {"operation": "copy"},
            "lastHandledReconcileAt": "2026-06-30T08:11:10.1Z",
            "sourceVerificationFingerprint": "sha256:00"
        }
    });
    let decoded = decode(object.clone());
    assert_eq!(decoded.spec.ignore.as_deref(), Some(""));
    assert_eq!(serde_json::to_value(&decoded).unwrap(), object);
}

#[test]
fn the_smallest_object_decodes_with_its_defaults() {
    let object = decode(json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository", "metadata": {"name": "web"},
        "spec": {"url": "oci://registry.example.org/web", "interval": "10m"},
        "status": {"observedGeneration": -1}
    }));
    assert_eq!(object.spec.timeout(), DEFAULT_TIMEOUT);
    assert_eq!(object.spec.provider(), Provider::Generic);
    assert_eq!(
        object.spec.reference.unwrap_or_default().selection(),
        Selection::Tag("latest")
    );
    assert_eq!(
        object.spec.layer_selector.unwrap_or_default().operation(),
        LayerOperation::Extract
    );
    assert_eq!(object.status.unwrap().observed_generation, Some(-1));
}

#[test]
fn our_fields_have_their_names() {
    let object = decode(json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository", "metadata": {"name": "web"},
        "spec": {"url": "oci://r.example.org/web", "interval": "10m", "credential": "SpiffeJWT", "audiences": ["r"]}
    }));
    assert_eq!(object.spec.credential, Some(CredentialKind::SpiffeJwt));
    assert_eq!(object.spec.audiences.as_deref(), Some(["r".to_owned()].as_slice()));
    let json = serde_json::to_value(&object.spec).unwrap();
    assert_eq!(json["credential"], "SpiffeJWT");
}

#[test]
fn words_of_another_version_do_not_stop_decoding() {
    let object = decode(json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository", "metadata": {"name": "web"},
        "spec": {
            "url": "oci://r.example.org/web", "interval": "99999999999h", "credential": "Tomorrow", "provider": "oracle",
            "layerSelector": {"operation": "squash"}, "verify": {"provider": "pgp"}, "somethingNew": {"a": 1}
        }
    }));
    assert_eq!(object.spec.credential, Some(CredentialKind::Unknown));
    assert_eq!(object.spec.provider(), Provider::Unknown);
    assert_eq!(object.spec.layer_selector.unwrap().operation(), LayerOperation::Unknown);
    assert_eq!(object.spec.verify.unwrap().provider, VerifyProvider::Unknown);
}

#[test]
fn empty_names_count_as_absent() {
    let object = decode(json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository", "metadata": {"name": "web"},
        "spec": {"url": "oci://r.example.org/web", "interval": "1h", "serviceAccountName": "",
                 "layerSelector": {"mediaType": ""}}
    }));
    assert_eq!(object.spec.service_account_name(), None);
    assert_eq!(object.spec.layer_selector.unwrap().media_type(), None);
}
