//! `--enable-kinds`: what is switched off is left to others, and a kind whose definition is missing holds up readiness and
//! nothing else.

use anyhow::Result;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use mintmark_api::{image_repository::ImageRepository, oci_repository::OciRepository};
use mintmark_hack::{
    cluster::{Cluster, ClusterOptions},
    registry::{Artifact, RegistryServer},
};
use mintmark_tests::{
    env::Env,
    http::{until, until_status},
};
use serde_json::json;

/// An artifact at `app:v1` that everybody may read.
async fn push(registry: &RegistryServer) -> Result<()> {
    let artifact = Artifact::from_files(&[("a.yaml", b"1".as_slice())])?;
    registry.push("app", "v1", &artifact).await?;
    registry.allow_anonymous("app")
}

/// One object of each kind for that artifact.
async fn create(env: &Env, tenant: &str, registry: &RegistryServer) -> Result<()> {
    let spec = json!({"url": registry.url("app"), "insecure": true, "ref": {"tag": "v1"}});
    env.objects::<OciRepository>(tenant).create("app", spec).await?;
    let image = registry.url("app").replace("oci://", "");
    let spec = json!({"image": image, "insecure": true});
    env.objects::<ImageRepository>(tenant).create("app", spec).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_switched_off_is_left_alone() -> Result<()> {
    let env = Env::new().await?;
    let tenant = env.tenant("a").await?;
    let registry = env.jwt_registry()?;
    push(&registry).await?;
    create(&env, &tenant, &registry).await?;
    let (artifacts, images) = (
        env.objects::<OciRepository>(&tenant),
        env.objects::<ImageRepository>(&tenant),
    );

    let controller = env.controller(&["--enable-kinds=ImageRepository"]).await?;
    images.ready("app").await?;
    assert!(
        reqwest::get(controller.ports().storage_url()).await.is_err(),
        "no artifacts are served"
    );
    let metrics = env.metrics().await?;
    assert!(!metrics.contains("kind=\"OCIRepository\""), "{metrics}");
    assert!(controller.stop()?.success());
    let seen = artifacts.get("app").await?;
    assert!(
        seen.status.is_none_or(|status| status.conditions.is_empty()),
        "it was never looked at"
    );

    let scanned = images.get("app").await?.metadata.resource_version;
    let _controller = env.controller(&["--enable-kinds=OCIRepository"]).await?;
    artifacts.ready("app").await?;
    images
        .patch(
            "app",
            json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "now"}}}),
        )
        .await?;
    artifacts.reconcile("app").await?;
    let asked = images.get("app").await?;
    assert_ne!(asked.metadata.resource_version, scanned, "only the test's own write");
    assert_ne!(
        asked
            .status
            .and_then(|status| status.last_handled_reconcile_at)
            .as_deref(),
        Some("now")
    );
    Ok(())
}

#[tokio::test]
async fn a_missing_definition_is_not_ready_and_stops_nothing_else() -> Result<()> {
    // Of its own: every other suite needs the definition.
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(ClusterOptions::default()).await?));
    let env = Env::in_cluster(cluster).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(env.client.clone());
    let name = "imagerepositories.image.toolkit.fluxcd.io";
    let mut definition = crds.get(name).await?;
    definition.metadata = kube::api::ObjectMeta {
        name: definition.metadata.name,
        ..Default::default()
    };
    definition.status = None;
    crds.delete(name, &DeleteParams::default()).await?;
    until("the definition is gone", || async {
        Ok(crds.get_opt(name).await?.is_none())
    })
    .await?;

    let tenant = env.tenant("a").await?;
    let registry = env.jwt_registry()?;
    push(&registry).await?;
    let spec = json!({"url": registry.url("app"), "insecure": true, "ref": {"tag": "v1"}});
    env.create(&tenant, "app", spec).await?;
    let controller = env.start(&[])?;
    env.ready(&tenant, "app").await?;
    let ready = reqwest::get(controller.ports().ready_url()).await?;
    assert_eq!(ready.status(), 503);
    let gates = ready.text().await?;
    assert!(
        gates.contains("[-]crd/imagerepositories the CRD is not installed\n"),
        "{gates}"
    );
    assert!(gates.contains("[+]crd/ocirepositories ok\n"), "{gates}");
    assert_eq!(controller.ended()?, None);

    crds.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&definition))
        .await?;
    until_status(&controller.ports().ready_url(), 200).await?;
    let image = registry.url("app").replace("oci://", "");
    let images = env.objects::<ImageRepository>(&tenant);
    images.create("app", json!({"image": image, "insecure": true})).await?;
    images.ready("app").await?;
    Ok(())
}
