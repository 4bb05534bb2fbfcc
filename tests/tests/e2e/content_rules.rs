//! What becomes of a layer: files left out by `.sourceignore` and `spec.ignore`, layers copied as they are, and what an edit
//! of these fields does to artifact, status and Events.

use anyhow::{Context, Result};
use mintmark_api::oci_repository::{LayerOperation, OciRepository};
use mintmark_hack::{
    controller::Controller,
    registry::{Artifact, RegistryServer, tar_gz},
};
use mintmark_tests::{
    env::Env,
    fault_registry::sha256,
    served::{artifact, fetch, files},
    specs,
};
use serde_json::{Value, json};

const FILES: [(&str, &[u8]); 5] = [
    (".sourceignore", b"*.md\n"),
    ("app/.sourceignore", b"!keep.md\n"),
    ("app/deploy.yaml", b"a: 1\n"),
    ("app/keep.md", b"k"),
    ("readme.md", b"r"),
];

struct Scene {
    env: Env,
    _controller: Controller,
    tenant: String,
    registry: RegistryServer,
}

impl Scene {
    async fn new() -> Result<Self> {
        let env = Env::new().await?;
        let controller = env.controller(&[]).await?;
        let tenant = env.tenant("content").await?;
        let registry = env.jwt_registry()?;
        registry.allow_anonymous("app")?;
        registry.push("app", "v1", &Artifact::from_files(&FILES)?).await?;
        Ok(Self {
            env,
            _controller: controller,
            tenant,
            registry,
        })
    }

    async fn create(&self, more: Value) -> Result<OciRepository> {
        let spec = specs::with(
            json!({"url": self.registry.url("app"), "insecure": true, "ref": {"tag": "v1"}}),
            more,
        );
        self.env.create(&self.tenant, "app", spec).await?;
        self.env.ready(&self.tenant, "app").await
    }

    /// Edits the spec and waits for the pass that acts on it.
    async fn edit(&self, spec: Value) -> Result<OciRepository> {
        let patched = self.env.patch(&self.tenant, "app", json!({"spec": spec})).await?;
        let generation = patched.metadata.generation;
        self.env
            .wait(&self.tenant, "app", "the edit acted on", |object| {
                let status = object.status.as_ref();
                status.is_some_and(|status| status.observed_generation == generation)
            })
            .await?;
        self.env.ready(&self.tenant, "app").await
    }

    async fn names(&self, object: &OciRepository) -> Result<Vec<String>> {
        let archive = fetch(&artifact(object)?).await?;
        Ok(files(&archive)?.into_keys().collect())
    }

    /// How often `NewArtifact` was told.
    async fn new_artifacts(&self) -> Result<i32> {
        let events = self.env.events(&self.tenant).await?;
        let told = events
            .iter()
            .filter(|event| event.reason.as_deref() == Some("NewArtifact"));
        Ok(told.map(|event| event.count.unwrap_or(1)).sum())
    }
}

#[tokio::test]
async fn ignore_rules_decide_what_is_archived() -> Result<()> {
    let scene = Scene::new().await?;
    let object = scene.create(json!({})).await?;
    let kept = [".sourceignore", "app/.sourceignore", "app/deploy.yaml", "app/keep.md"];
    assert_eq!(scene.names(&object).await?, kept);
    assert_eq!(object.status.context("status")?.observed_ignore, None);
    let first = artifact(&scene.env.ready(&scene.tenant, "app").await?)?;
    scene.env.event(&scene.tenant, "app", "NewArtifact").await?;

    // The same content under other words: built anew, but nothing new to tell.
    let object = scene.edit(json!({"ignore": ""})).await?;
    let same = artifact(&object)?;
    assert_eq!((&same.digest, &same.revision), (&first.digest, &first.revision));
    assert_eq!(object.status.context("status")?.observed_ignore.as_deref(), Some(""));

    let object = scene.edit(json!({"ignore": "/*\n!/app\n.sourceignore\n"})).await?;
    assert_eq!(scene.names(&object).await?, ["app/deploy.yaml", "app/keep.md"]);
    let other = artifact(&object)?;
    assert_eq!(other.revision, first.revision);
    assert_ne!(other.digest, first.digest);
    scene.env.repeated_event(&scene.tenant, "app", "NewArtifact", 1).await?;
    let status = object.status.context("status")?;
    assert!(
        !status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "ArtifactOutdated")
    );
    assert_eq!(status.observed_ignore.as_deref(), Some("/*\n!/app\n.sourceignore\n"));

    // And back: the field and its observation go.
    let object = scene.edit(json!({"ignore": null})).await?;
    assert_eq!(artifact(&object)?.digest, first.digest);
    assert_eq!(object.status.context("status")?.observed_ignore, None);
    mintmark_tests::http::until("two artifacts with other digests were told after the first", || async {
        Ok(scene.new_artifacts().await? == 3)
    })
    .await
}

#[tokio::test]
async fn a_copied_layer_keeps_its_bytes() -> Result<()> {
    let scene = Scene::new().await?;
    let layer = tar_gz(&FILES)?;
    let object = scene
        .create(json!({"layerSelector": {"operation": "copy"}, "ignore": "*"}))
        .await?;
    let copied = artifact(&object)?;
    assert_eq!(copied.digest, sha256(&layer));
    assert_eq!(fetch(&copied).await?, layer);
    assert!(copied.url.ends_with(".tar.gz"), "{}", copied.url);
    let selector = object.status.context("status")?.observed_layer_selector;
    assert_eq!(selector.context("selector")?.operation, Some(LayerOperation::Copy));

    let object = scene.edit(json!({"layerSelector": null, "ignore": null})).await?;
    let extracted = artifact(&object)?;
    assert_eq!((&extracted.revision, &extracted.path), (&copied.revision, &copied.path));
    assert_ne!(extracted.digest, copied.digest);
    assert!(object.status.context("status")?.observed_layer_selector.is_none());
    Ok(())
}

#[tokio::test]
async fn a_copied_layer_may_be_no_archive_at_all() -> Result<()> {
    let scene = Scene::new().await?;
    let mut plain = Artifact::from_files(&FILES)?;
    plain.layers[0].data = b"plain text".to_vec();
    scene.registry.push("app", "v1", &plain).await?;
    let object = scene.create(json!({"layerSelector": {"operation": "copy"}})).await?;
    assert_eq!(fetch(&artifact(&object)?).await?, &b"plain text"[..]);
    Ok(())
}
