//! Another project's CRD of the same name applied over ours: nothing may be pulled as if the objects were anonymous.

use anyhow::Result;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use mintmark_api::{image_policy::ImagePolicy, image_repository::ImageRepository};
use mintmark_hack::{
    cluster::{Cluster, ClusterOptions},
    controller::Controller,
    registry::Artifact,
};
use mintmark_tests::{
    env::{AUDIENCE, Env, condition},
    http::{until, until_status},
};
use serde_json::json;

/// A definition that can be replaced by Flux's and put back.
struct Definition {
    api: Api<CustomResourceDefinition>,
    name: &'static str,
    ours: CustomResourceDefinition,
}

impl Definition {
    async fn of(env: &Env, name: &'static str) -> Result<Self> {
        let api: Api<CustomResourceDefinition> = Api::all(env.client.clone());
        let ours = api.get(name).await?;
        Ok(Self { api, name, ours })
    }

    /// Writes Flux's own definition over the one that is served.
    async fn replace(&self, flux: &str) -> Result<()> {
        let mut flux: CustomResourceDefinition = serde_json::from_str(flux)?;
        flux.metadata
            .resource_version
            .clone_from(&self.ours.metadata.resource_version);
        self.api.replace(self.name, &PostParams::default(), &flux).await?;
        Ok(())
    }

    /// Applies ours again.
    async fn restore(self) -> Result<()> {
        let mut ours = self.ours;
        ours.metadata.resource_version = None;
        ours.metadata.managed_fields = None;
        ours.metadata.uid = None;
        let params = PatchParams::apply("test").force();
        self.api.patch(self.name, &params, &Patch::Apply(&ours)).await?;
        Ok(())
    }
}

async fn metric(controller: &Controller, line: &str) -> Result<bool> {
    let metrics = reqwest::get(controller.ports().metrics_url()).await?.text().await?;
    Ok(metrics.contains(line))
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

    let definition = Definition::of(&env, "ocirepositories.source.toolkit.fluxcd.io").await?;
    definition
        .replace(include_str!("../../../api/tests/flux-1.9.1.json"))
        .await?;
    until_status(&controller.ports().ready_url(), 503).await?;
    until("the metric says so", || {
        metric(&controller, "mintmark_crd_compatible{kind=\"OCIRepository\"} 0")
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
        Ok(metric(&controller, "mintmark_queue_depth{kind=\"OCIRepository\"} 2").await? || pulls()? > 0)
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

    definition.restore().await?;
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

#[tokio::test]
async fn an_image_whose_credential_is_pruned_is_neither_listed_nor_looked_up() -> Result<()> {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(ClusterOptions::default()).await?));
    let env = Env::in_cluster(cluster).await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    let registry = env.jwt_registry()?;
    let (images, policies) = (
        env.objects::<ImageRepository>(&tenant),
        env.objects::<ImagePolicy>(&tenant),
    );
    registry.set_readers("app", &[&images.spiffe_id("image")])?;
    let artifact = Artifact::from_files(&[("a.yaml", b"1".as_slice())])?;
    registry.push("app", "v1", &artifact).await?;
    let credential = json!({"credential": "SpiffeJWT", "audiences": [AUDIENCE]});
    let mut spec = credential.clone();
    spec["image"] = registry.url("app").replace("oci://", "").into();
    spec["insecure"] = true.into();
    spec["interval"] = "1s".into();
    images.create("image", spec).await?;
    let spec = json!({"imageRepositoryRef": {"name": "image"}, "policy": {"alphabetical": {}},
        "digestReflectionPolicy": "Always", "interval": "1s"});
    policies.create("policy", spec).await?;
    images.ready("image").await?;
    let selected = policies.ready("policy").await?;

    let definition = Definition::of(&env, "imagerepositories.image.toolkit.fluxcd.io").await?;
    definition
        .replace(include_str!("../../../api/tests/flux-1.2-imagerepositories.json"))
        .await?;
    until_status(&controller.ports().ready_url(), 503).await?;
    let request = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "now"}}});
    let pruned = images.patch("image", request.clone()).await?;
    assert!(pruned.spec.credential.is_none(), "the served definition prunes it");
    policies.patch("policy", request).await?;

    // Both are due every second. The policy's own definition is complete: it waits for the repository's.
    let touched = registry.access_log()?.len();
    let asked = || Ok::<_, anyhow::Error>(registry.access_log()?.len() - touched);
    until("both are overdue, or the registry is asked", || async {
        let image = metric(&controller, "mintmark_queue_depth{kind=\"ImageRepository\"} 1").await?;
        let policy = metric(&controller, "mintmark_queue_depth{kind=\"ImagePolicy\"} 1").await?;
        Ok(image && policy || asked()? > 0)
    })
    .await?;
    assert_eq!(asked()?, 0, "nothing may be asked while the definition is another one");
    let now = policies.get("policy").await?;
    assert_eq!(
        now.status.as_ref().and_then(|status| status.latest_ref.clone()),
        selected.status.and_then(|status| status.latest_ref)
    );
    assert_eq!(condition(&now, "Ready").map(|ready| &*ready.status), Some("True"));

    definition.restore().await?;
    until_status(&controller.ports().ready_url(), 200).await?;
    // Somebody wrote the object while the field was pruned: it is set again, and all goes on.
    images.patch("image", json!({"spec": credential})).await?;
    images.reconcile("image").await?;
    images.ready("image").await?;
    policies.reconcile("policy").await?;
    policies.ready("policy").await?;
    let anonymous = registry.access_log()?.into_iter().skip(touched);
    let mut served = anonymous.filter(|entry| entry.kind == "anonymous" && entry.status == 200);
    assert!(served.next().is_none(), "nothing is served anonymously");
    Ok(())
}
