//! Another project's CRD of the same name applied over ours: nothing may be pulled as if the objects were anonymous.

use anyhow::Result;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use mintmark_hack::{
    cluster::{Cluster, ClusterOptions},
    registry::Artifact,
};
use mintmark_tests::{
    env::{AUDIENCE, Env, condition},
    http::{until, until_status},
};
use serde_json::json;

/// Our definition without our fields and rules, as Flux's own is.
fn without_our_fields(mut crd: CustomResourceDefinition) -> Result<serde_json::Value> {
    crd.metadata.managed_fields = None;
    let mut json = serde_json::to_value(crd)?;
    let spec = &mut json["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec.as_object_mut()
        .expect("a schema")
        .remove("x-kubernetes-validations");
    let fields = spec["properties"].as_object_mut().expect("fields");
    fields.remove("credential").expect("credential was there");
    fields.remove("audiences").expect("audiences were there");
    Ok(json)
}

#[tokio::test]
async fn a_definition_without_our_fields_stops_all_passes_until_ours_returns() -> Result<()> {
    // Of its own: every other suite needs the definition.
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(ClusterOptions::default()).await?));
    let env = Env::in_cluster(cluster).await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    let registry = env.jwt_registry()?;
    registry
        .push("app", "v1", &Artifact::from_files(&[("a.yaml", b"1".as_slice())])?)
        .await?;
    registry.set_readers("app", &[&Env::spiffe_id(&tenant, "app")])?;
    let spec = json!({"url": registry.url("app"), "insecure": true, "ref": {"tag": "v1"}, "interval": "1s",
        "credential": "SpiffeJWT", "audiences": [AUDIENCE]});
    env.create(&tenant, "app", spec).await?;
    let before = env.ready(&tenant, "app").await?;

    let crds: Api<CustomResourceDefinition> = Api::all(env.client.clone());
    let name = "ocirepositories.source.toolkit.fluxcd.io";
    let ours = crds.get(name).await?;
    let flux: CustomResourceDefinition = serde_json::from_value(without_our_fields(ours.clone())?)?;
    crds.replace(name, &PostParams::default(), &flux).await?;
    until_status(&controller.ports().ready_url(), 503).await?;
    until("the metric says so", || async {
        let metrics = reqwest::get(controller.ports().metrics_url()).await?.text().await?;
        Ok(metrics.contains("mintmark_crd_compatible{kind=\"OCIRepository\"} 0"))
    })
    .await?;

    // The field is pruned now, and the object is due every second; an anonymous pull would be seen by the registry.
    let touched = registry.access_log()?.len();
    env.patch(
        &tenant,
        "app",
        json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "now"}}}),
    )
    .await?;
    let pruned = env.repositories(&tenant).get("app").await?;
    assert!(
        pruned.spec.credential.is_none(),
        "the served definition prunes the field"
    );
    let mut restored = ours;
    restored.metadata.resource_version = None;
    restored.metadata.managed_fields = None;
    restored.metadata.uid = None;
    crds.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&restored))
        .await?;
    until_status(&controller.ports().ready_url(), 200).await?;
    let anonymous = registry
        .access_log()?
        .into_iter()
        .skip(touched)
        .filter(|entry| entry.kind == "anonymous")
        .count();
    assert_eq!(
        anonymous, 0,
        "an object whose credential was pruned must not be pulled anonymously"
    );

    // The field was never lost in storage when nobody wrote the object; here somebody did, so it is set again.
    env.patch(
        &tenant,
        "app",
        json!({"spec": {"credential": "SpiffeJWT", "audiences": [AUDIENCE]}}),
    )
    .await?;
    let after = env.reconcile(&tenant, "app").await?;
    assert_eq!(
        condition(&after, "Ready").map(|ready| ready.status.as_str()),
        Some("True")
    );
    assert_eq!(
        after.status.map(|s| s.artifact),
        before.status.map(|s| s.artifact),
        "the artifact stayed served"
    );
    Ok(())
}
