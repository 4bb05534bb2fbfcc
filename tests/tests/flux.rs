//! Side by side with Flux: its definition with our fields patched in, and the policy that keeps objects with a credential
//! away from its source-controller. Both from `config/`, on a real API server that has Flux's definition.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test fail the test")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
    core::ApiResource,
    runtime::{conditions, wait::await_condition},
};
use mintmark_api::{CredentialRule, crd::OCI_REPOSITORY_CRD, oci_repository::OciRepository};
use mintmark_hack::{
    cluster::{Cluster, ClusterOptions},
    manifests,
};
use serde_json::{Value, json};

/// How long the API server may take to use a new definition or policy: nothing tells when it does.
const DEADLINE: Duration = Duration::from_secs(30);

fn config(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(path)
}

/// A cluster with Flux's definition and, on top, our patch.
async fn patched_cluster() -> (Cluster, Client) {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let client = cluster.client().await.unwrap();
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let flux = serde_json::from_str(include_str!("../../api/tests/flux-1.9.1.json")).unwrap();
    crds.create(&PostParams::default(), &flux).await.unwrap();
    let text = fs::read_to_string(config("flux-patch/ocirepositories.yaml")).unwrap();
    let patch: Value = serde_yaml_ng::from_str(&text).unwrap();
    let uri = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{OCI_REPOSITORY_CRD}");
    let request = http::Request::patch(uri)
        .header(http::header::CONTENT_TYPE, "application/json-patch+json")
        .body(serde_json::to_vec(&patch).unwrap())
        .unwrap();
    client.request::<Value>(request).await.unwrap();
    let established = await_condition(crds, OCI_REPOSITORY_CRD, conditions::is_crd_established());
    tokio::time::timeout(DEADLINE, established).await.unwrap().unwrap();
    (cluster, client)
}

/// Creates the object without storing it.
async fn admit(client: &Client, labels: Value, fields: Value) -> Result<Value, String> {
    let mut spec = json!({"url": "oci://registry.example.org/team/web", "interval": "5m"});
    spec.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let object = json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "OCIRepository",
        "metadata": {"name": "web", "namespace": "default", "labels": labels},
        "spec": spec,
    });
    let resource = ApiResource::erase::<OciRepository>(&());
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match objects.create(&dry_run, &serde_json::from_value(object).unwrap()).await {
        Ok(object) => Ok(object.data),
        Err(kube::Error::Api(status)) => Err(status.message),
        Err(error) => panic!("{error}"),
    }
}

/// Asks until `wanted` likes the answer.
async fn until(client: &Client, labels: Value, fields: Value, wanted: impl Fn(&Result<Value, String>) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = admit(client, labels.clone(), fields.clone()).await;
        if wanted(&answer) {
            return;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
    }
}

#[tokio::test]
async fn fluxs_definition_with_our_patch_keeps_our_fields_and_our_rules() {
    let (_cluster, client) = patched_cluster().await;
    let secured = json!({"credential": "SpiffeJWT", "audiences": ["registry.example.org"]});
    until(&client, json!({}), secured, |answer| {
        answer
            .as_ref()
            .is_ok_and(|object| object["spec"]["credential"] == "SpiffeJWT")
    })
    .await;
    let refusal = admit(&client, json!({}), json!({"credential": "SpiffeJWT"}))
        .await
        .unwrap_err();
    assert!(
        refusal.contains(CredentialRule::AudiencesRequired.message()),
        "{refusal}"
    );
    let refusal = admit(&client, json!({}), json!({"credential": "Other"}))
        .await
        .unwrap_err();
    assert!(refusal.contains("spec.credential"), "{refusal}");
    let plain = admit(&client, json!({}), json!({})).await.unwrap();
    assert_eq!(plain["spec"]["timeout"], "60s", "Flux's own defaults stay");
}

#[tokio::test]
async fn beside_flux_a_credential_needs_our_label() {
    let (_cluster, client) = patched_cluster().await;
    for file in ["policy.yaml", "policy_binding.yaml"] {
        let objects = manifests::load(&config("beside").join(file)).unwrap();
        manifests::apply(&client, objects).await.unwrap();
    }
    let secured = json!({"credential": "SpiffeCertificate"});
    let refused = "spec.credential needs the label sharding.fluxcd.io/key: mintmark";
    until(&client, json!({}), secured.clone(), |answer| {
        answer.as_ref().is_err_and(|message| message.contains(refused))
    })
    .await;
    let other = json!({"sharding.fluxcd.io/key": "shard1"});
    assert!(
        admit(&client, other, secured.clone())
            .await
            .unwrap_err()
            .contains(refused)
    );
    admit(&client, json!({"sharding.fluxcd.io/key": "mintmark"}), secured)
        .await
        .unwrap();
    admit(&client, json!({}), json!({})).await.unwrap();
}

/// Every file of `tests/fixtures/flux`, as the API server takes it: nothing is unknown to our definition, nothing refused.
#[tokio::test]
async fn manifests_written_for_flux_apply_unchanged() {
    let client = Cluster::shared().await.unwrap().client().await.unwrap();
    manifests::apply(&client, manifests::load(&config("crd")).unwrap())
        .await
        .unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/flux");
    let mut objects = 0;
    for file in fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        for mut object in manifests::load(&file).unwrap() {
            let spec = object.data["spec"].clone();
            object.metadata.namespace = Some("default".to_owned());
            let request = http::Request::post(
                "/apis/source.toolkit.fluxcd.io/v1/namespaces/default/ocirepositories?dryRun=All&fieldValidation=Strict",
            )
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(&object).unwrap())
            .unwrap();
            let admitted: Value = client
                .request(request)
                .await
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            for (field, value) in spec.as_object().unwrap() {
                assert_eq!(&admitted["spec"][field], value, "{}: spec.{field}", file.display());
            }
            objects += 1;
        }
    }
    assert!(objects >= 10, "{objects} objects");
}
