//! Side by side with Flux: its definition with our fields patched in, and the policy that keeps objects with a credential
//! away from its source-controller. Both from `config/`, on a real API server that has Flux's definition.
#![expect(clippy::unwrap_used, reason = "helpers of a test fail the test")]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::PostParams,
    runtime::{conditions, wait::await_condition},
};
use mintmark_api::{
    CredentialRule,
    crd::{IMAGE_REPOSITORY_CRD, OCI_REPOSITORY_CRD},
    image_repository::ImageRepository,
    oci_repository::OciRepository,
};
use mintmark_hack::{
    cluster::{Cluster, ClusterOptions},
    manifests,
};
use mintmark_tests::admission::{self, with};
use serde_json::{Value, json};

/// How long the API server may take to use a new definition or policy: nothing tells when it does.
const DEADLINE: Duration = Duration::from_secs(30);

fn config(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config").join(path)
}

/// A cluster with Flux's definitions and, on top, our patches.
async fn patched_cluster() -> (Cluster, Client) {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    let client = cluster.client().await.unwrap();
    let sources = include_str!("../../api/tests/flux-1.9.1.json");
    patch_definition(&client, sources, OCI_REPOSITORY_CRD, "flux-patch/ocirepositories.yaml").await;
    let images = include_str!("../../api/tests/flux-1.2-imagerepositories.json");
    patch_definition(
        &client,
        images,
        IMAGE_REPOSITORY_CRD,
        "flux-patch/imagerepositories.yaml",
    )
    .await;
    (cluster, client)
}

async fn patch_definition(client: &Client, flux: &str, name: &str, patch: &str) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let flux = serde_json::from_str(flux).unwrap();
    crds.create(&PostParams::default(), &flux).await.unwrap();
    let patch: Value = serde_yaml_ng::from_str(&fs::read_to_string(config(patch)).unwrap()).unwrap();
    let uri = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
    let request = http::Request::patch(uri)
        .header(http::header::CONTENT_TYPE, "application/json-patch+json")
        .body(serde_json::to_vec(&patch).unwrap())
        .unwrap();
    client.request::<Value>(request).await.unwrap();
    let established = await_condition(crds, name, conditions::is_crd_established());
    tokio::time::timeout(DEADLINE, established).await.unwrap().unwrap();
}

/// Asks for an OCIRepository with these labels and fields.
async fn admit(client: &Client, labels: Value, fields: Value) -> Result<Value, String> {
    let spec = with(
        &json!({"url": "oci://registry.example.org/team/web", "interval": "5m"}),
        &fields,
    );
    let answer = admission::admit::<OciRepository>(client, &labels, &spec).await;
    answer.map_err(|status| status.message)
}

/// Asks for an ImageRepository with these labels and fields.
async fn admit_image(client: &Client, labels: Value, fields: Value) -> Result<Value, String> {
    let spec = with(
        &json!({"image": "registry.example.org/team/web", "interval": "5m"}),
        &fields,
    );
    let answer = admission::admit::<ImageRepository>(client, &labels, &spec).await;
    answer.map_err(|status| status.message)
}

/// Asks until `wanted` likes the answer.
async fn until(mut ask: impl AsyncFnMut() -> Result<Value, String>, wanted: impl Fn(&Result<Value, String>) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = ask().await;
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
    let is_kept = |answer: &Result<Value, String>| {
        answer
            .as_ref()
            .is_ok_and(|object| object["spec"]["credential"] == "SpiffeJWT")
    };
    until(async || admit(&client, json!({}), secured.clone()).await, is_kept).await;
    until(async || admit_image(&client, json!({}), secured.clone()).await, is_kept).await;
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
    let both = json!({"credential": "SpiffeJWT", "audiences": ["r"], "secretRef": {"name": "s"}});
    let refusal = admit_image(&client, json!({}), both).await.unwrap_err();
    assert!(refusal.contains(CredentialRule::SecretRef.message()), "{refusal}");
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
    let is_refused = |answer: &Result<Value, String>| answer.as_ref().is_err_and(|message| message.contains(refused));
    until(async || admit(&client, json!({}), secured.clone()).await, is_refused).await;
    until(
        async || admit_image(&client, json!({}), secured.clone()).await,
        is_refused,
    )
    .await;
    let other = json!({"sharding.fluxcd.io/key": "shard1"});
    assert!(
        admit(&client, other, secured.clone())
            .await
            .unwrap_err()
            .contains(refused)
    );
    let ours = json!({"sharding.fluxcd.io/key": "mintmark"});
    admit(&client, ours.clone(), secured.clone()).await.unwrap();
    admit_image(&client, ours, secured).await.unwrap();
    admit(&client, json!({}), json!({})).await.unwrap();
    admit_image(&client, json!({}), json!({})).await.unwrap();
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
