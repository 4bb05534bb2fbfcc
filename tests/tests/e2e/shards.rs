//! Objects that leave the controller's label selector: their files are served until another controller serves them, through
//! a restart as well, and nothing is missing when they come back. A deletion is told apart.

use anyhow::{Context, Result};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use mintmark_api::artifact::Artifact as Stored;
use mintmark_hack::{controller::Controller, registry::Artifact};
use mintmark_tests::{
    env::Env,
    http::{until, until_status},
    served::{artifact, fetch},
};
use serde_json::json;

const LABEL: &str = "mintmark.dev/test";

struct Scene {
    env: Env,
    controller: Controller,
    tenant: String,
    shard: String,
    stored: Stored,
}

impl Scene {
    /// One object `app`, ready and in the shard.
    async fn new() -> Result<Self> {
        let env = Env::new().await?;
        let controller = env.controller(&["--artifact-retention-ttl=1s"]).await?;
        let tenant = env.tenant("a").await?;
        let registry = env.jwt_registry()?;
        registry.allow_anonymous("app")?;
        let files = Artifact::from_files(&[("deploy/app.yaml", b"1".as_slice())])?;
        registry.push("app", "v1", &files).await?;
        let spec = json!({"url": registry.url("app"), "insecure": true, "ref": {"tag": "v1"}});
        let object = env.create(&tenant, "app", spec).await?;
        let shard = object.labels().get(LABEL).context("the shard's label")?.clone();
        let stored = artifact(&env.ready(&tenant, "app").await?)?;
        // The registry is gone from here on: whatever is served was stored before.
        drop(registry);
        Ok(Self {
            env,
            controller,
            tenant,
            shard,
            stored,
        })
    }

    async fn label(&self, value: Option<&str>) -> Result<()> {
        let patch = json!({"metadata": {"labels": {LABEL: value}}});
        self.env.patch(&self.tenant, "app", patch).await?;
        Ok(())
    }

    /// Takes the label away and waits until the controller has looked whether the object was deleted.
    async fn leave(&self) -> Result<()> {
        let mark = self.env.mark()?;
        self.label(None).await?;
        until("the controller looks at the object that left", || async {
            Ok(self.env.requests_about(mark, "app")?.contains(&"get ".to_owned()))
        })
        .await
    }

    /// Another controller takes it over.
    async fn serve_elsewhere(&self) -> Result<()> {
        let url = self
            .stored
            .url
            .replace(&self.controller.ports().storage_url(), "http://another.shard");
        let patch = Patch::Merge(json!({"status": {"artifact": {"url": url}}}));
        let objects = self.env.repositories(&self.tenant);
        objects.patch_status("app", &PatchParams::default(), &patch).await?;
        Ok(())
    }
}

#[tokio::test]
async fn an_object_that_left_is_served_until_another_controller_serves_it() -> Result<()> {
    let scene = Scene::new().await?;
    scene.leave().await?;
    fetch(&scene.stored).await?;
    let folder = scene.controller.storage().join(&scene.stored.path);
    assert!(folder.exists());
    scene.serve_elsewhere().await?;
    until_status(&scene.stored.url, 404).await?;
    assert!(!folder.exists());
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn an_object_that_comes_back_was_never_missing() -> Result<()> {
    let scene = Scene::new().await?;
    scene.leave().await?;
    scene.label(Some(&scene.shard)).await?;
    fetch(&scene.stored).await?;
    // Its registry is away: only what is stored can make it answer with the same artifact.
    let back = scene.env.reconcile(&scene.tenant, "app").await?;
    assert_eq!(artifact(&back)?, scene.stored);
    fetch(&scene.stored).await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn a_deletion_is_told_apart() -> Result<()> {
    let scene = Scene::new().await?;
    let objects = scene.env.repositories(&scene.tenant);
    objects.delete("app", &DeleteParams::default()).await?;
    until_status(&scene.stored.url, 404).await?;
    scene.controller.kill()?;

    let scene = Scene::new().await?;
    scene.leave().await?;
    fetch(&scene.stored).await?;
    let objects = scene.env.repositories(&scene.tenant);
    objects.delete("app", &DeleteParams::default()).await?;
    until_status(&scene.stored.url, 404).await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn a_restart_does_not_end_what_a_departed_object_is_served() -> Result<()> {
    let scene = Scene::new().await?;
    scene.controller.kill()?;
    scene.label(None).await?;
    scene.controller.resume()?;
    scene.controller.wait_ready().await?;
    until_status(&scene.stored.url, 200).await?;
    fetch(&scene.stored).await?;
    scene.serve_elsewhere().await?;
    until_status(&scene.stored.url, 404).await?;
    scene.controller.kill()?;
    Ok(())
}
