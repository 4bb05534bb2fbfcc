//! Version ranges on the real registry: which tag is taken, what follows when a newer one appears, and what is said when
//! there is none.

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use mintmark_api::oci_repository::OciRepository;
use mintmark_hack::{
    controller::Controller,
    registry::{Artifact, Layer, Pushed, RegistryServer, tar_gz},
};
use mintmark_tests::{
    env::{AUDIENCE, Env, condition},
    served::{artifact, fetch, files},
};
use rstest::rstest;
use serde_json::{Value, json};

const HELM_CHART: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// One object `app` of repository `app`, which only it may read.
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
        registry.set_readers("app", &[&Env::spiffe_id(&tenant, "app")])?;
        Ok(Self {
            env,
            controller,
            tenant,
            registry,
        })
    }

    /// Pushes an artifact whose content is its tag.
    async fn push(&self, tag: &str) -> Result<Pushed> {
        let artifact = Artifact::from_files(&[("tag", tag.as_bytes())])?;
        self.registry.push("app", tag, &artifact).await
    }

    async fn create(&self, reference: Value, layer: Option<&str>) -> Result<OciRepository> {
        let mut spec = json!({
            "url": self.registry.url("app"), "insecure": true, "ref": reference,
            "credential": "SpiffeJWT", "audiences": [AUDIENCE],
        });
        if let Some(layer) = layer {
            spec["layerSelector"] = json!({ "mediaType": layer });
        }
        self.env.create(&self.tenant, "app", spec).await
    }

    async fn ready(&self) -> Result<OciRepository> {
        self.env.ready(&self.tenant, "app").await
    }

    /// Waits until the range cannot be resolved, and returns what is said.
    async fn undetermined(&self) -> Result<String> {
        let failed = |object: &OciRepository| {
            condition(object, "FetchFailed").is_some_and(|failed| failed.reason == "ReadOperationFailed")
        };
        let object = self.env.wait(&self.tenant, "app", "the range fails", failed).await?;
        let ready = condition(&object, "Ready").context("no Ready")?;
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", "ReadOperationFailed")
        );
        assert!(condition(&object, "Stalled").is_none(), "Flux tries again");
        let context = format!(
            "failed to determine the artifact tag for '{}': ",
            self.registry.url("app")
        );
        let why = ready.message.strip_prefix(&context);
        Ok(why.with_context(|| ready.message.clone())?.to_owned())
    }

    /// What the object asked of the registry since its log had `from` lines.
    fn asked(&self, from: usize) -> Result<Vec<String>> {
        let entries = self.registry.access_log()?.split_off(from);
        let own = entries
            .iter()
            .filter(|entry| entry.subject != mintmark_hack::registry::ADMIN);
        Ok(own.map(|entry| format!("{} {}", entry.method, entry.path)).collect())
    }
}

async fn assert_pulled(object: &OciRepository, tag: &str, pushed: &Pushed) -> Result<()> {
    let stored = artifact(object)?;
    assert_eq!(stored.revision, format!("{tag}@{}", pushed.digest));
    assert_eq!(
        files(&fetch(&stored).await?)?.get("tag").map(Vec::as_slice),
        Some(tag.as_bytes())
    );
    Ok(())
}

#[tokio::test]
async fn the_newest_of_a_range_is_pulled_and_a_newer_one_follows() -> Result<()> {
    let scene = Scene::new().await?;
    for tag in ["1.9.0", "2.0.0", "1.11.0-rc.1", "latest", "1.12"] {
        scene.push(tag).await?;
    }
    let newest = scene.push("1.10.0").await?;
    // A range comes before a tag.
    scene.create(json!({"semver": "1.x", "tag": "latest"}), None).await?;
    assert_pulled(&scene.ready().await?, "1.10.0", &newest).await?;

    let from = scene.registry.access_log()?.len();
    let quiet = scene.env.reconcile(&scene.tenant, "app").await?;
    assert_pulled(&quiet, "1.10.0", &newest).await?;
    assert_eq!(
        scene.asked(from)?,
        ["GET /v2/app/tags/list", "HEAD /v2/app/manifests/1.10.0"]
    );

    let newer = scene.push("v1.10.1").await?;
    scene.push("1.9.9").await?;
    assert_pulled(&scene.env.reconcile(&scene.tenant, "app").await?, "v1.10.1", &newer).await?;
    scene
        .env
        .event_saying(&scene.tenant, "app", "NewArtifact", &newer.digest)
        .await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn the_same_content_under_a_newer_tag_is_a_new_revision_and_no_news() -> Result<()> {
    let scene = Scene::new().await?;
    let content = Artifact::from_files(&[("a", b"1")])?;
    let pushed = scene.registry.push("app", "1.0.0", &content).await?;
    scene.create(json!({"semver": "*"}), None).await?;
    let before = artifact(&scene.ready().await?)?;
    scene.env.event(&scene.tenant, "app", "NewArtifact").await?;
    scene.registry.push("app", "1.0.1", &content).await?;
    let after = artifact(&scene.env.reconcile(&scene.tenant, "app").await?)?;
    assert_eq!(after.revision, format!("1.0.1@{}", pushed.digest));
    assert_eq!((&after.digest, &after.url), (&before.digest, &before.url));
    // What is told comes in order: after the next news, nothing of this one is still on its way.
    let news = scene.push("1.0.2").await?;
    scene.env.reconcile(&scene.tenant, "app").await?;
    scene
        .env
        .event_saying(&scene.tenant, "app", "NewArtifact", &news.digest)
        .await?;
    assert_eq!(scene.env.told(&scene.tenant, "app", "NewArtifact").await?, 2);
    scene.controller.kill()?;
    Ok(())
}

#[rstest]
#[case::filtered(json!({"semver": ">=1.0.0-0", "semverFilter": "-rc"}), None, "1.1.0-rc.2")]
#[case::anchored(json!({"semver": "*", "semverFilter": "^v\\d"}), None, "v0.9.0")]
#[case::either(json!({"semver": "<0.9.0 || 1.0.0"}), None, "1.0.0")]
#[case::charts(json!({"semver": ">=1.0"}), Some(HELM_CHART), "1.3.0_build.7")]
#[tokio::test]
async fn a_tag_is_chosen(#[case] reference: Value, #[case] layer: Option<&str>, #[case] expected: &str) -> Result<()> {
    let scene = Scene::new().await?;
    for tag in ["v0.9.0", "1.0.0", "1.1.0-rc.2", "1.1.0-rc.1", "1.1.0", "1.3.0_build.7"] {
        let mut artifact = Artifact::from_files(&[("tag", tag.as_bytes())])?;
        artifact.layers.push(Layer {
            media_type: HELM_CHART.to_owned(),
            data: tar_gz(&[("tag", tag.as_bytes())])?,
        });
        scene.registry.push("app", tag, &artifact).await?;
    }
    scene.create(reference, layer).await?;
    let stored = artifact(&scene.ready().await?)?;
    assert_eq!(stored.revision.split_once('@').map(|(tag, _)| tag), Some(expected));
    assert_eq!(files(&fetch(&stored).await?)?["tag"], expected.as_bytes());
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn a_range_without_a_tag_waits_for_one() -> Result<()> {
    let scene = Scene::new().await?;
    scene.push("1.0.0").await?;
    scene.create(json!({"semver": ">=2 <3 || 4.x"}), None).await?;
    assert_eq!(scene.undetermined().await?, "no match found for semver: >=2 <3 || 4.x");
    scene.env.event(&scene.tenant, "app", "ReadOperationFailed").await?;
    let pushed = scene.push("4.0.0").await?;
    assert_pulled(&scene.ready().await?, "4.0.0", &pushed).await?;
    scene.controller.kill()?;
    Ok(())
}

#[rstest]
#[case::range(json!({"semver": "newest"}), "semver 'newest' parse error: improper constraint: \"newest\"")]
#[case::filter(json!({"semver": "*", "semverFilter": "(a"}), "spec.ref.semverFilter: not a regular expression: unclosed group")]
#[tokio::test]
async fn an_unusable_range_is_told_and_asks_nothing(#[case] reference: Value, #[case] why: &str) -> Result<()> {
    let scene = Scene::new().await?;
    let pushed = scene.push("1.0.0").await?;
    let from = scene.registry.access_log()?.len();
    scene.create(reference, None).await?;
    assert_eq!(scene.undetermined().await?, why);
    assert!(scene.asked(from)?.is_empty());
    let healed = json!({"spec": {"ref": {"semver": "1.0.0", "semverFilter": null}}});
    scene.env.patch(&scene.tenant, "app", healed).await?;
    assert_pulled(&scene.ready().await?, "1.0.0", &pushed).await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn the_newest_is_found_on_a_later_page() -> Result<()> {
    let scene = Scene::new().await?;
    let artifact = Artifact::from_files(&[("tag", b"9.0.0")])?;
    let pushed = scene.registry.push("app", "9.0.0", &artifact).await?;
    let (registry, manifest) = (&scene.registry, artifact.manifest()?);
    let older = (0..1_000).map(|number| format!("1.0.{number}"));
    stream::iter(older)
        .map(|tag| {
            let manifest = &manifest;
            async move { registry.push_manifest("app", &tag, MANIFEST, manifest).await }
        })
        .buffer_unordered(16)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let from = scene.registry.access_log()?.len();
    scene.create(json!({"semver": "*"}), None).await?;
    assert_pulled(&scene.ready().await?, "9.0.0", &pushed).await?;
    let lists = scene.asked(from)?;
    let lists = lists.iter().filter(|request| request.ends_with("/tags/list"));
    assert_eq!(lists.count(), 2);
    scene.controller.kill()?;
    Ok(())
}
