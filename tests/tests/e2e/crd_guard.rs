//! Another project's CRD of the same name applied over ours: nothing may be pulled as if the objects were anonymous.

use anyhow::Result;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, ResourceExt,
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

/// Flux's own definition, as a write over the one that is served.
fn flux(served: &CustomResourceDefinition) -> Result<CustomResourceDefinition> {
    let mut crd: CustomResourceDefinition = serde_json::from_str(include_str!("../../../api/tests/flux-1.9.1.json"))?;
    crd.metadata
        .resource_version
        .clone_from(&served.metadata.resource_version);
    Ok(crd)
}

#[tokio::test]
async fn a_definition_without_our_fields_stops_all_passes_until_ours_returns() -> Result<()> {
    // Of its own: every other suite needs the definition.
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(ClusterOptions::default()).await?));
    let env = Env::in_cluster(cluster).await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    let registry = env.jwt_registry()?;
    registry.set_readers("app", &[&Env::spiffe_id(&tenant, "app")])?;
    registry.allow_anonymous("open")?;
    let credential = json!({"credential": "SpiffeJWT", "audiences": [AUDIENCE]});
    for (name, mut spec) in [("app", credential.clone()), ("open", json!({}))] {
        let artifact = Artifact::from_files(&[("a.yaml", b"1".as_slice())])?;
        registry.push(name, "v1", &artifact).await?;
        spec["url"] = registry.url(name).into();
        spec["insecure"] = true.into();
        spec["interval"] = "1s".into();
        spec["ref"] = json!({"tag": "v1"});
        env.create(&tenant, name, spec).await?;
    }
    let before = env.ready(&tenant, "app").await?;
    env.ready(&tenant, "open").await?;

    let crds: Api<CustomResourceDefinition> = Api::all(env.client.clone());
    let name = "ocirepositories.source.toolkit.fluxcd.io";
    let ours = crds.get(name).await?;
    crds.replace(name, &PostParams::default(), &flux(&ours)?).await?;
    until_status(&controller.ports().ready_url(), 503).await?;
    until("the metric says so", || async {
        let metrics = reqwest::get(controller.ports().metrics_url()).await?.text().await?;
        Ok(metrics.contains("mintmark_crd_compatible{kind=\"OCIRepository\"} 0"))
    })
    .await?;

    // Both objects are due every second, and asked for a pass besides. One looks anonymous since its field is pruned, the
    // other always was: neither has a pass, and neither gets a status.
    let touched = registry.access_log()?.len();
    let request = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "now"}}});
    let pruned = env.patch(&tenant, "app", request.clone()).await?;
    assert!(pruned.spec.credential.is_none(), "the served definition prunes it");
    let open = env.patch(&tenant, "open", request).await?;
    let pulls = || Ok::<_, anyhow::Error>(registry.access_log()?.len() - touched);
    until("both objects are overdue, or one is pulled", || async {
        let metrics = reqwest::get(controller.ports().metrics_url()).await?.text().await?;
        Ok(metrics.contains("mintmark_queue_depth{kind=\"OCIRepository\"} 2") || pulls()? > 0)
    })
    .await?;
    assert_eq!(pulls()?, 0, "nothing may be pulled while the definition is another one");
    for (name, seen) in [("app", &pruned), ("open", &open)] {
        let now = env.repositories(&tenant).get(name).await?;
        assert_eq!(
            now.resource_version(),
            seen.resource_version(),
            "{name}: nothing was written"
        );
    }

    let mut restored = ours;
    restored.metadata.resource_version = None;
    restored.metadata.managed_fields = None;
    restored.metadata.uid = None;
    crds.patch(name, &PatchParams::apply("test").force(), &Patch::Apply(&restored))
        .await?;
    until_status(&controller.ports().ready_url(), 200).await?;
    env.wait(&tenant, "open", "the pass that was asked for", |object| {
        object
            .status
            .as_ref()
            .and_then(|status| status.last_handled_reconcile_at.as_deref())
            == Some("now")
    })
    .await?;
    let anonymous = registry
        .access_log()?
        .into_iter()
        .skip(touched)
        .filter(|entry| entry.kind == "anonymous");
    let pulled: Vec<_> = anonymous.filter(|entry| !entry.path.starts_with("/v2/open/")).collect();
    assert!(
        pulled.is_empty(),
        "an object whose credential was pruned must not be pulled anonymously: {pulled:?}"
    );

    // The field was never lost in storage when nobody wrote the object; here somebody did, so it is set again.
    env.patch(&tenant, "app", json!({"spec": credential})).await?;
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
