//! Objects that source-controller has served before: consumers see an artifact at every moment, nobody is told of news that
//! is none, what this version cannot serve stays as it was, and a controller that goes on writing is told of.

use anyhow::{Context, Result};
use futures::StreamExt;
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use mintmark_hack::registry::{Artifact, RegistryServer};
use mintmark_tests::{
    env::{Env, condition},
    http::until,
    served::{artifact, fetch},
    specs,
};
use serde_json::{Value, json};

/// Where source-controller serves what it stored.
const THEIRS: &str = "http://source-controller.flux-system.svc.cluster.local.";
const FINALIZER: &str = "finalizers.fluxcd.io";

struct Scene {
    env: Env,
    tenant: String,
    registry: RegistryServer,
}

impl Scene {
    async fn new() -> Result<Self> {
        let env = Env::new().await?;
        let tenant = env.tenant("a").await?;
        let registry = env.jwt_registry()?;
        Ok(Self { env, tenant, registry })
    }

    /// An object as source-controller leaves one: its finalizer, its status, its field manager. Returns the revision.
    async fn served_by_flux(&self, name: &str, more: Value) -> Result<String> {
        let files = Artifact::from_files(&[("deploy/app.yaml", name.as_bytes())])?;
        let digest = self.registry.push(name, "v1", &files).await?.digest;
        let spec = specs::with(
            json!({"url": self.registry.url(name), "insecure": true, "ref": {"tag": "v1"}}),
            more,
        );
        self.env.create(&self.tenant, name, spec).await?;
        let finalizers = json!({"metadata": {"finalizers": [FINALIZER]}});
        self.env.patch(&self.tenant, name, finalizers).await?;
        let revision = format!("v1@{digest}");
        let base = format!("{THEIRS}/ocirepository/{}/{name}", self.tenant);
        let condition = |kind: &str| {
            json!({"type": kind, "status": "True", "observedGeneration": 1, "reason": "Succeeded",
                "lastTransitionTime": "2026-04-01T08:00:00Z",
                "message": format!("stored artifact for digest '{revision}'")})
        };
        let status = json!({
            "observedGeneration": 1,
            "url": format!("{base}/latest.tar.gz"),
            "artifact": {"digest": format!("sha256:{}", "e3".repeat(32)), "lastUpdateTime": "2026-04-01T08:00:00Z",
                "path": format!("ocirepository/{}/{name}/{digest}.tar.gz", self.tenant), "revision": revision,
                "size": 1084, "url": format!("{base}/{digest}.tar.gz")},
            "conditions": [condition("Ready"), condition("ArtifactInStorage")],
            "lastHandledReconcileAt": "long ago",
        });
        self.write_as_flux(name, status).await?;
        Ok(revision)
    }

    async fn write_as_flux(&self, name: &str, status: Value) -> Result<()> {
        let params = PatchParams {
            field_manager: Some("source-controller".to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({"status": status}));
        let objects = self.env.repositories(&self.tenant);
        objects.patch_status(name, &params, &patch).await?;
        Ok(())
    }

    async fn all_events(&self, name: &str) -> Result<Vec<String>> {
        let events = self.env.events(&self.tenant).await?;
        let about = events
            .iter()
            .filter(|event| event.involved_object.name.as_deref() == Some(name));
        Ok(about.map(|event| event.reason.clone().unwrap_or_default()).collect())
    }
}

#[tokio::test]
async fn consumers_always_see_an_artifact_and_nobody_is_told_of_news() -> Result<()> {
    let scene = Scene::new().await?;
    let (env, tenant) = (&scene.env, scene.tenant.as_str());
    scene.registry.allow_anonymous("app")?;
    let revision = scene.served_by_flux("app", json!({})).await?;
    let mark = env.mark()?;
    let objects = env.repositories(tenant);
    let mut seen = std::pin::pin!(
        watcher(objects.clone(), watcher::Config::default().fields("metadata.name=app"))
            .default_backoff()
            .applied_objects()
    );
    let first = seen.next().await.context("the object")??;
    assert!(artifact(&first)?.url.starts_with(THEIRS));
    let controller = env.controller(&[]).await?;
    let object = loop {
        let object = seen.next().await.context("a change")??;
        let url = artifact(&object).context("a moment without an artifact")?.url;
        if url.starts_with(&controller.ports().storage_url()) {
            break object;
        }
        assert!(url.starts_with(THEIRS), "{url}");
    };
    let ours = artifact(&object)?;
    assert_eq!(ours.revision, revision);
    fetch(&ours).await?;
    let status = object.status.clone().context("a status")?;
    assert_eq!(
        status.url.as_deref(),
        Some(
            ours.url
                .replace(&format!("{}.tar.gz", &revision[3..]), "latest.tar.gz")
                .as_str()
        )
    );
    assert_eq!(
        status.last_handled_reconcile_at.as_deref(),
        Some("long ago"),
        "nobody asked since"
    );
    assert_eq!(
        condition(&object, "Ready").map(|ready| ready.status.as_str()),
        Some("True")
    );
    assert_eq!(
        object.finalizers(),
        [FINALIZER],
        "theirs stays until deletion, and none of ours is added"
    );

    // One write replaced it, and a further pass finds nothing to tell.
    env.reconcile(tenant, "app").await?;
    // A watch tells of a write before that stands in the audit log.
    let writes = || {
        let requests = env.requests_about(mark, "app")?;
        anyhow::Ok(requests.iter().filter(|request| *request == "patch status").count())
    };
    until("both writes are in the audit log", || async { Ok(writes()? >= 2) }).await?;
    assert_eq!(writes()?, 2, "the takeover and the answer to the request");
    assert_eq!(scene.all_events("app").await?, Vec::<String>::new());

    objects.delete("app", &DeleteParams::default()).await?;
    until(
        "the object is gone although nobody else is there to remove its finalizer",
        || async { Ok(objects.get_opt("app").await?.is_none()) },
    )
    .await?;
    controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn an_artifact_of_another_controller_outlasts_failures() -> Result<()> {
    let scene = Scene::new().await?;
    let (env, tenant) = (&scene.env, scene.tenant.as_str());
    scene.served_by_flux("app", json!({})).await?;
    let controller = env.controller(&[]).await?;
    let failed = env.failed(tenant, "app", "AuthenticationFailed", "").await?;
    assert!(artifact(&failed)?.url.starts_with(THEIRS));
    let in_storage = condition(&failed, "ArtifactInStorage").context("ArtifactInStorage")?;
    assert_eq!(in_storage.status, "True");
    scene.registry.allow_anonymous("app")?;
    let ready = env.ready(tenant, "app").await?;
    assert!(artifact(&ready)?.url.starts_with(&controller.ports().storage_url()));
    env.event(tenant, "app", "Succeeded").await?;
    assert_eq!(env.told(tenant, "app", "NewArtifact").await?, 0);
    controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_served_here_is_left_untouched() -> Result<()> {
    let scene = Scene::new().await?;
    let (env, tenant) = (&scene.env, scene.tenant.as_str());
    scene.registry.allow_anonymous("app")?;
    scene
        .served_by_flux("app", json!({"verify": {"provider": "cosign"}}))
        .await?;
    let before = env.repositories(tenant).get("app").await?;
    let mark = env.mark()?;
    let controller = env.controller(&[]).await?;
    let event = env.event(tenant, "app", "VerificationNotSupported").await?;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let gauge = |value: u8| format!("mintmark_objects_left_alone{{kind=\"OCIRepository\"}} {value}");
    until("the metric says so", || async {
        Ok(env.metrics().await?.contains(&gauge(1)))
    })
    .await?;
    let request = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "now"}}});
    let asked = env.patch(tenant, "app", request).await?;
    assert_eq!(asked.status, before.status);

    // Once it can be served it is taken over; until then nothing was written, and one event told of it.
    let edited = env.patch(tenant, "app", json!({"spec": {"verify": null}})).await?;
    assert_eq!(edited.status, before.status);
    assert!(
        !env.requests_about(mark, "app")?
            .iter()
            .any(|request| request.starts_with("patch"))
    );
    let ready = env.ready(tenant, "app").await?;
    assert!(artifact(&ready)?.url.starts_with(&controller.ports().storage_url()));
    assert_eq!(env.told(tenant, "app", "VerificationNotSupported").await?, 1);
    until("the metric says so", || async {
        Ok(env.metrics().await?.contains(&gauge(0)))
    })
    .await?;
    controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn a_controller_that_goes_on_writing_is_told_of() -> Result<()> {
    let scene = Scene::new().await?;
    let (env, tenant) = (&scene.env, scene.tenant.as_str());
    scene.registry.allow_anonymous("app")?;
    scene.served_by_flux("app", json!({})).await?;
    let controller = env.controller(&[]).await?;
    env.wait(tenant, "app", "our artifact", |object| {
        artifact(object).is_ok_and(|artifact| !artifact.url.starts_with(THEIRS))
    })
    .await?;
    assert_eq!(
        env.told(tenant, "app", "StatusOverwritten").await?,
        0,
        "a takeover is no fight"
    );
    // The API server keeps times in seconds: what it writes in the second of our own write does not count yet.
    let attempt = std::cell::Cell::new(0);
    until("the other writer is told of", || async {
        attempt.set(attempt.get() + 1);
        let url = format!("{THEIRS}/{}", attempt.get());
        scene.write_as_flux("app", json!({"url": url})).await?;
        Ok(env.told(tenant, "app", "StatusOverwritten").await? > 0)
    })
    .await?;
    let event = env.event(tenant, "app", "StatusOverwritten").await?;
    let message = event.message.unwrap_or_default();
    assert!(message.starts_with("'source-controller' wrote the status"), "{message}");
    let metrics = env.metrics().await?;
    assert!(metrics.contains("mintmark_foreign_status_writes_total{kind=\"OCIRepository\"}"));
    let repaired = env.reconcile(tenant, "app").await?;
    let url = repaired.status.and_then(|status| status.url).context("status.url")?;
    assert!(url.starts_with(&controller.ports().storage_url()), "{url}");
    controller.kill()?;
    Ok(())
}
