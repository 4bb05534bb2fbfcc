//! What an object leaves behind when it goes: nothing that the next one of its name could see, whoever made that.

use anyhow::{Context, Result};
use kube::api::{DeleteParams, Patch, PatchParams};
use mintmark_api::artifact::Artifact as Stored;
use mintmark_hack::{
    controller::Controller,
    registry::{Artifact, RegistryServer},
};
use mintmark_tests::{
    env::{AUDIENCE, Env, condition},
    http::{until, until_status},
    served::{artifact, fetch},
};
use serde_json::{Value, json};

const FINALIZER: &str = "finalizers.fluxcd.io";

struct Scene {
    env: Env,
    controller: Controller,
    tenant: String,
    registry: RegistryServer,
}

impl Scene {
    async fn new() -> Result<Self> {
        let env = Env::new().await?;
        let controller = env.controller(&[]).await?;
        let tenant = env.tenant("a").await?;
        let registry = env.jwt_registry()?;
        let content = Artifact::from_files(&[("a.yaml", b"1".as_slice())])?;
        registry.push("app", "v1", &content).await?;
        registry.set_readers("app", &[&Env::spiffe_id(&tenant, "app")])?;
        Ok(Self {
            env,
            controller,
            tenant,
            registry,
        })
    }

    /// What the rightful owner creates.
    fn spec(&self) -> Value {
        json!({"url": self.registry.url("app"), "insecure": true, "ref": {"tag": "v1"},
            "credential": "SpiffeJWT", "audiences": [AUDIENCE]})
    }

    /// The same without the identity that the registry knows.
    fn without_rights(&self) -> Value {
        json!({"url": self.registry.url("app"), "insecure": true, "ref": {"tag": "v1"}})
    }

    async fn ready(&self) -> Result<Stored> {
        self.env.create(&self.tenant, "app", self.spec()).await?;
        let stored = artifact(&self.env.ready(&self.tenant, "app").await?)?;
        fetch(&stored).await?;
        Ok(stored)
    }

    /// Deletes the object and waits until the API server no longer has it.
    async fn delete(&self) -> Result<()> {
        let api = self.env.repositories(&self.tenant);
        api.delete("app", &DeleteParams::default()).await?;
        until("the object is gone", || async {
            Ok(api.get_opt("app").await?.is_none())
        })
        .await
    }

    /// Whether the storage has a folder for the object.
    fn has_files(&self) -> bool {
        let folder = format!("ocirepository/{}/app", self.tenant);
        self.controller.storage().join(folder).exists()
    }

    async fn files_go(&self, stored: &Stored) -> Result<()> {
        until("the files are removed", || async { Ok(!self.has_files()) }).await?;
        assert_eq!(reqwest::get(&stored.url).await?.status(), 404);
        Ok(())
    }

    /// The new object was refused and shows, and serves, nothing of the old one.
    async fn got_nothing(&self, old: &Stored) -> Result<()> {
        let object = self
            .env
            .failed(&self.tenant, "app", "AuthenticationFailed", "401")
            .await?;
        let status = object.status.clone().context("a status")?;
        assert!(status.artifact.is_none() && status.url.is_none(), "{status:?}");
        assert!(condition(&object, "ArtifactInStorage").is_none());
        assert_eq!(reqwest::get(&old.url).await?.status(), 404);
        let latest = old.url.rsplit_once('/').context("a file")?.0.to_owned() + "/latest.tar.gz";
        assert_eq!(reqwest::get(latest).await?.status(), 404);
        assert!(!self.has_files());
        Ok(())
    }
}

#[tokio::test]
async fn a_recreated_object_gets_nothing_of_the_old_one() -> Result<()> {
    let scene = Scene::new().await?;
    let old = scene.ready().await?;
    scene.delete().await?;
    scene.env.create(&scene.tenant, "app", scene.without_rights()).await?;
    scene.got_nothing(&old).await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn nor_when_nobody_saw_the_deletion() -> Result<()> {
    let scene = Scene::new().await?;
    let old = scene.ready().await?;
    scene.controller.kill()?;
    scene.delete().await?;
    scene.env.create(&scene.tenant, "app", scene.without_rights()).await?;
    // With the old status forged onto it.
    let status = json!({"status": {"artifact": old, "observedGeneration": 1}});
    scene
        .env
        .repositories(&scene.tenant)
        .patch_status("app", &PatchParams::default(), &Patch::Merge(status))
        .await?;
    assert!(scene.has_files(), "the old one's files are still there");
    scene.controller.resume()?;
    scene.controller.wait_ready().await?;
    scene.got_nothing(&old).await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn the_rightful_owner_gets_a_new_artifact() -> Result<()> {
    let scene = Scene::new().await?;
    scene.ready().await?;
    scene.delete().await?;
    scene.ready().await?;
    assert!(
        scene.has_files(),
        "the late deletion of the old one took nothing of the new one"
    );
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn deletion_removes_the_files() -> Result<()> {
    let scene = Scene::new().await?;
    let stored = scene.ready().await?;
    scene.delete().await?;
    scene.files_go(&stored).await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn deletion_while_suspended_removes_the_files() -> Result<()> {
    let scene = Scene::new().await?;
    let stored = scene.ready().await?;
    let patch = json!({"spec": {"suspend": true}});
    let generation = scene.env.patch(&scene.tenant, "app", patch).await?.metadata.generation;
    scene
        .env
        .wait(&scene.tenant, "app", "suspended", |object| {
            object
                .status
                .as_ref()
                .is_some_and(|status| status.observed_generation == generation)
        })
        .await?;
    fetch(&stored).await?;
    scene.delete().await?;
    scene.files_go(&stored).await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn deletion_that_nobody_saw_is_swept_up_at_the_next_start() -> Result<()> {
    let scene = Scene::new().await?;
    let stored = scene.ready().await?;
    scene.controller.kill()?;
    scene.delete().await?;
    scene.controller.resume()?;
    until_status(&stored.url, 404).await?;
    scene.files_go(&stored).await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn an_earlier_controllers_finalizer_holds_nothing_up() -> Result<()> {
    let scene = Scene::new().await?;
    let stored = scene.ready().await?;
    let object = scene.env.repositories(&scene.tenant).get("app").await?;
    assert!(object.metadata.finalizers.is_none(), "none is added by us");
    // Ours to remove, beside somebody else's that is not.
    let foreign = "example.com/keep";
    let patch = json!({"metadata": {"finalizers": [FINALIZER, foreign]}, "spec": {"suspend": true}});
    scene.env.patch(&scene.tenant, "app", patch).await?;
    let api = scene.env.repositories(&scene.tenant);
    api.delete("app", &DeleteParams::default()).await?;
    scene
        .env
        .wait(&scene.tenant, "app", "our predecessor's finalizer removed", |object| {
            object.metadata.finalizers.as_deref() == Some(&[foreign.to_owned()])
        })
        .await?;
    let patch = json!({"metadata": {"finalizers": []}});
    scene.env.patch(&scene.tenant, "app", patch).await?;
    until("the object is gone", || async {
        Ok(api.get_opt("app").await?.is_none())
    })
    .await?;
    scene.files_go(&stored).await?;

    scene.env.create(&scene.tenant, "app", scene.spec()).await?;
    let patch = json!({"metadata": {"finalizers": [FINALIZER]}});
    scene.env.patch(&scene.tenant, "app", patch).await?;
    scene.delete().await?;
    scene.controller.kill()?;
    Ok(())
}
