//! What an observer of one ImagePolicy sees, step by step: what is selected and what was before, filters, digests, a missing
//! repository, edits that cannot work, suspension, a restart.

use std::fs;

use anyhow::{Context, Result};
use mintmark_api::{image_policy::ImagePolicy, image_repository::ImageRepository};
use mintmark_tests::{
    env::condition,
    fault_registry::Artifact,
    history::shown,
    objects::Objects,
    receiver::Post,
    scene::{self, post},
};
use serde_json::{Value, json};

use super::{push, scans};

type Scene = scene::Scene<ImagePolicy>;

/// A scene with a scanned repository `image` of these tags.
async fn scene(tags: &[&str]) -> Result<Scene> {
    let scene = Scene::new(&[]).await?;
    push(&scene.registry, tags);
    let spec = json!({"image": image(&scene), "insecure": true});
    repositories(&scene).create("image", spec).await?;
    repositories(&scene).ready("image").await?;
    Ok(scene)
}

fn repositories(scene: &Scene) -> Objects<'_, ImageRepository> {
    scene.env.objects(&scene.tenant)
}

fn image(scene: &Scene) -> String {
    format!("{}/app", scene.registry.host())
}

async fn rescan(scene: &Scene) -> Result<()> {
    repositories(scene).reconcile("image").await.map(drop)
}

fn spec(more: &Value) -> Value {
    let mut spec = json!({"imageRepositoryRef": {"name": "image"}, "policy": {"semver": {"range": "1.x"}}});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    spec
}

/// `latest`, and the one before it, as `tag` or `tag@digest`.
struct Selected<'a>(&'a str, Option<&'a str>);

impl Selected<'_> {
    fn message(&self, image: &str) -> String {
        let latest = self.0.replacen('@', " with digest ", 1);
        let previous = self
            .1
            .map(|tag| format!(" (previously {image}:{tag})"))
            .unwrap_or_default();
        format!("Latest image tag for {image} resolved to {latest}{previous}")
    }

    fn first_line(&self, image: &str, observed: i64) -> String {
        let previous = self
            .1
            .map_or_else(|| "nothing".to_owned(), |tag| format!("{image}:{tag}"));
        format!("observed {observed}, selected {image}:{}, before {previous}", self.0)
    }

    /// The status of that generation.
    fn status(&self, scene: &Scene, observed: i64) -> String {
        let image = image(scene);
        format!(
            "{}\nReady=True Succeeded @{observed}: {}",
            self.first_line(&image, observed),
            self.message(&image)
        )
    }

    fn told(&self, scene: &Scene) -> Post {
        post("info", "Succeeded", self.message(&image(scene)))
    }
}

#[tokio::test]
async fn new_tags_are_selected_and_the_one_before_is_told() -> Result<()> {
    let mut scene = scene(&["1.0.0", "1.1.0", "2.0.0"]).await?;
    let created = scene.create(spec(&json!({}))).await?;
    let first = Selected("1.1.0", None);
    scene
        .statuses("first", &[shown(&created), first.status(&scene, 1)])
        .await?;
    scene.posts("first", &[first.told(&scene)]).await?;
    scene.metric("first", Some("1")).await?;

    // A tag that is not in the range changes the repository, and nothing here.
    push(&scene.registry, &["2.1.0"]);
    rescan(&scene).await?;
    push(&scene.registry, &["1.2.0"]);
    rescan(&scene).await?;
    let second = Selected("1.2.0", Some("1.1.0"));
    scene.statuses("new tag", &[second.status(&scene, 1)]).await?;
    scene.posts("new tag", &[second.told(&scene)]).await?;
    let bodies = scene.receiver.bodies("app");
    let last = bodies.last().context("a post")?;
    assert_eq!(last["action"], "SelectImage");
    assert_eq!(last["involvedObject"]["kind"], "ImagePolicy");
    assert_eq!(
        last["metadata"],
        json!({"image.toolkit.fluxcd.io/image": image(&scene), "image.toolkit.fluxcd.io/tag": "1.2.0"})
    );

    // The tag goes: the one before it is the latest again.
    scene.registry.with_content(|content| content.untag("app", "1.2.0"));
    rescan(&scene).await?;
    let third = Selected("1.1.0", Some("1.2.0"));
    scene.statuses("removed tag", &[third.status(&scene, 1)]).await?;
    scene.posts("removed tag", &[third.told(&scene)]).await?;

    // Another policy over the same tags, with a pattern: `1.0.0` is the least of those that match.
    let filter = json!({"policy": {"semver": null, "alphabetical": {"order": "desc"}},
        "filterTags": {"pattern": r"^1\.(?P<minor>\d)", "extract": "$minor"}});
    let before = scans(&scene.registry);
    scene.edit(filter).await?;
    let fourth = Selected("1.0.0", Some("1.1.0"));
    scene.statuses("edit", &[fourth.status(&scene, 2)]).await?;
    scene.posts("edit", &[fourth.told(&scene)]).await?;
    assert_eq!(scans(&scene.registry), before, "a policy asks no registry for tags");

    // Nothing is lost by a restart, and nothing told again.
    assert!(scene.controller.stop()?.success());
    scene.restart().await?;
    scene.edit(json!({"suspend": true})).await?;
    let suspended = fourth.status(&scene, 2).replace("observed 2", "observed 3");
    scene.statuses("restart, then suspended", &[suspended]).await?;
    push(&scene.registry, &["3.0.0"]);
    rescan(&scene).await?;
    scene.edit(json!({"suspend": false})).await?;
    let resumed = fourth.status(&scene, 4);
    scene.statuses("resumed", &[resumed]).await
}

#[tokio::test]
async fn digests_are_looked_up_as_the_policy_says() -> Result<()> {
    let mut scene = scene(&["1.0.0"]).await?;
    let retag = |scene: &Scene, content: &str| {
        let artifact = Artifact::flux(&[("b.yaml", content)]);
        scene.registry.push("app", "1.0.0", &artifact);
        format!("1.0.0@{}", artifact.digest())
    };
    let looks = |scene: &Scene| {
        let requests = scene.registry.requests();
        requests
            .iter()
            .filter(|request| request.path().ends_with("/manifests/1.0.0"))
            .count()
    };
    let created = scene.create(spec(&json!({}))).await?;
    let never = Selected("1.0.0", None);
    scene
        .statuses("Never", &[shown(&created), never.status(&scene, 1)])
        .await?;
    assert_eq!(looks(&scene), 0);

    let first = retag(&scene, "1");
    scene.edit(json!({"digestReflectionPolicy": "IfNotPresent"})).await?;
    let present = Selected(&first, Some("1.0.0"));
    scene.statuses("IfNotPresent", &[present.status(&scene, 2)]).await?;
    let second = retag(&scene, "2");
    scene.reconcile().await?;
    assert_eq!(looks(&scene), 1, "it is present");

    // Always looks in each pass, which come by themselves.
    scene
        .edit(json!({"digestReflectionPolicy": "Always", "interval": "1s"}))
        .await?;
    let always = Selected(&second, Some(&first));
    scene.statuses("Always", &[always.status(&scene, 3)]).await?;
    let third = retag(&scene, "3");
    let again = Selected(&third, Some(&second));
    scene.statuses("Always again", &[again.status(&scene, 3)]).await?;

    scene
        .edit(json!({"digestReflectionPolicy": "Never", "interval": null}))
        .await?;
    let never = Selected("1.0.0", Some(&third));
    scene.statuses("Never again", &[never.status(&scene, 4)]).await?;
    let told = [Selected("1.0.0", None), present, always, again, never].map(|selected| selected.told(&scene));
    scene.posts("each of them", &told).await
}

#[tokio::test]
async fn a_repository_that_is_not_ready_is_waited_for() -> Result<()> {
    let mut scene = Scene::new(&[]).await?;
    let created = scene.create(spec(&json!({}))).await?;
    let not_ready = |cause: &str| {
        format!(
            "observed -1, selected nothing, before nothing\nReconciling=True ProgressingWithRetry @1: reconciliation in progress\n\
             Ready=False DependencyNotReady @1: {cause}"
        )
    };
    let missing = format!(
        "failed to get the referred ImageRepository: referenced ImageRepository does not exist: '{}/image' not found",
        scene.tenant
    );
    scene
        .statuses("missing", &[shown(&created), not_ready(&missing)])
        .await?;
    scene
        .posts("missing", &[post("error", "DependencyNotReady", &missing)])
        .await?;

    // It is created, and its first scan fails.
    let spec = json!({"image": image(&scene), "insecure": true});
    repositories(&scene).create("image", spec).await?;
    let no_tags = format!(
        "retrying in 30 s: no tags of ImageRepository '{}/image' in database",
        scene.tenant
    );
    scene.statuses("no tags", &[not_ready(&no_tags)]).await?;
    scene
        .posts("no tags", &[post("error", "DependencyNotReady", &no_tags)])
        .await?;

    // The scan that succeeds has it selected, long before 30 s are over.
    push(&scene.registry, &["1.0.0"]);
    repositories(&scene).reconcile("image").await?;
    let selected = Selected("1.0.0", None);
    scene.statuses("scanned", &[selected.status(&scene, 1)]).await?;
    scene.posts("scanned", &[selected.told(&scene)]).await?;

    // The repository goes: what was selected stays.
    repositories(&scene).delete("image").await?;
    let gone = format!(
        "{}\nReconciling=True ProgressingWithRetry @1: reconciliation in progress\nReady=False DependencyNotReady @1: {missing}",
        selected.first_line(&image(&scene), 1)
    );
    scene.statuses("deleted", &[gone]).await
}

#[tokio::test]
async fn what_only_an_edit_mends_stalls() -> Result<()> {
    let mut scene = scene(&["1.0.0", "latest"]).await?;
    let created = scene
        .create(spec(&json!({"policy": {"semver": {"range": "no range"}}})))
        .await?;
    scene.objects().failed("app", "InvalidPolicy", "invalid policy").await?;
    let stalled = scene.objects().get("app").await?;
    assert_eq!(
        condition(&stalled, "Stalled").map(|stalled| &*stalled.reason),
        Some("InvalidPolicy")
    );
    scene.statuses("stalled", &[shown(&created), shown(&stalled)]).await?;

    // No version in the range is no fault of the policy: a tag may come.
    scene.edit(json!({"policy": {"semver": {"range": "2.x"}}})).await?;
    scene
        .objects()
        .failed(
            "app",
            "Failure",
            "unable to determine latest version from provided list",
        )
        .await?;
    push(&scene.registry, &["2.0.0"]);
    rescan(&scene).await?;
    let ready = scene.objects().ready("app").await?;
    assert_eq!(
        ready
            .status
            .and_then(|status| status.latest_ref)
            .map(|latest| latest.tag)
            .as_deref(),
        Some("2.0.0")
    );
    scene.edit(json!({"policy": {"semver": null, "numerical": {}}})).await?;
    scene
        .objects()
        .failed("app", "Failure", "failed to parse invalid numeric value")
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_restart_with_empty_storage_changes_nothing_that_is_shown() -> Result<()> {
    let mut scene = scene(&["1.0.0"]).await?;
    let created = scene.create(spec(&json!({}))).await?;
    let first = Selected("1.0.0", None);
    scene
        .statuses("first", &[shown(&created), first.status(&scene, 1)])
        .await?;
    assert!(scene.controller.stop()?.success());
    fs::remove_dir_all(scene.controller.storage().join("imagerepository"))?;
    let before = scans(&scene.registry);
    scene.restart().await?;
    assert_eq!(scans(&scene.registry), before + 1, "scanned anew");
    push(&scene.registry, &["1.0.1"]);
    rescan(&scene).await?;
    let next = Selected("1.0.1", Some("1.0.0"));
    scene
        .statuses("restart, then a new tag", &[next.status(&scene, 1)])
        .await?;
    scene.posts("both", &[first.told(&scene), next.told(&scene)]).await
}
