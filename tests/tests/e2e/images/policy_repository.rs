//! Policies whose repository changes below them: it names another image with the same tags, is recreated, or has a registry
//! that hangs. What stays as it was is told once.

use anyhow::Result;
use mintmark_api::{image_policy::ImagePolicy, image_repository::ImageRepository};
use mintmark_tests::{
    env::condition,
    fault_registry::{Artifact, Fault, Route},
    history::shown,
    http::until,
    objects::Objects,
    scene::{self, post},
};
use serde_json::{Value, json};

use super::{push, scans};

type Scene = scene::Scene<ImagePolicy>;

fn repositories(scene: &Scene) -> Objects<'_, ImageRepository> {
    scene.env.objects(&scene.tenant)
}

fn image(scene: &Scene, repository: &str) -> String {
    format!("{}/{repository}", scene.registry.host())
}

async fn create_repository(scene: &Scene) -> Result<()> {
    let spec = json!({"image": image(scene, "app"), "insecure": true});
    repositories(scene).create("image", spec).await?;
    Ok(())
}

async fn point_at(scene: &Scene, repository: &str) -> Result<()> {
    let image = image(scene, repository);
    repositories(scene).edit("image", json!({"image": image})).await?;
    Ok(())
}

fn spec() -> Value {
    json!({"imageRepositoryRef": {"name": "image"}, "policy": {"semver": {"range": "*"}}})
}

fn message(latest: &str, before: Option<&str>) -> String {
    let (image, tag) = latest.rsplit_once(':').unwrap_or((latest, ""));
    let before = before
        .map(|before| format!(" (previously {before})"))
        .unwrap_or_default();
    format!("Latest image tag for {image} resolved to {tag}{before}")
}

fn first_line(observed: i64, latest: &str, before: Option<&str>) -> String {
    format!(
        "observed {observed}, selected {latest}, before {}",
        before.unwrap_or("nothing")
    )
}

fn well(latest: &str, before: Option<&str>) -> String {
    format!(
        "{}\nReady=True Succeeded @1: {}",
        first_line(1, latest, before),
        message(latest, before)
    )
}

fn waiting(line: &str, cause: &str) -> String {
    format!(
        "{line}\nReconciling=True ProgressingWithRetry @1: reconciliation in progress\n\
         Ready=False DependencyNotReady @1: {cause}"
    )
}

fn no_tags(scene: &Scene, seconds: u32) -> String {
    format!(
        "retrying in {seconds} s: no tags of ImageRepository '{}/image' in database",
        scene.tenant
    )
}

#[tokio::test]
async fn the_same_tags_of_another_image_are_other_ones() -> Result<()> {
    let mut scene = Scene::new(&["--requeue-dependency=1h"]).await?;
    push(&scene.registry, &["1.0.0"]);
    let artifact = Artifact::flux(&[("a.yaml", "1.0.0")]);
    scene.registry.push("same", "1.0.0", &artifact);
    create_repository(&scene).await?;
    let [app, same] = ["app:1.0.0", "same:1.0.0"].map(|name| image(&scene, name));
    let created = scene.create(spec()).await?;
    scene.statuses("created", &[shown(&created), well(&app, None)]).await?;

    // The first scan of the other image fails, the second one finds what there was before.
    let list = Route::Path("/v2/same/tags/list".to_owned());
    scene.registry.always(list, Fault::status(404));
    point_at(&scene, "same").await?;
    let cause = no_tags(&scene, 3600);
    scene
        .statuses("404", &[waiting(&first_line(1, &app, None), &cause)])
        .await?;
    scene.registry.heal();
    repositories(&scene).reconcile("image").await?;
    scene.statuses("found", &[well(&same, Some(&app))]).await?;
    point_at(&scene, "app").await?;
    scene.statuses("back", &[well(&app, Some(&same))]).await?;
    let told = [
        post("info", "Succeeded", message(&app, None)),
        post("error", "DependencyNotReady", &cause),
        post("info", "Succeeded", message(&same, Some(&app))),
        post("info", "Succeeded", message(&app, Some(&same))),
    ];
    scene.posts("all of it", &told).await
}

#[tokio::test]
async fn a_repository_of_the_same_name_is_another_one() -> Result<()> {
    let mut scene = Scene::new(&["--requeue-dependency=1h"]).await?;
    push(&scene.registry, &["1.0.0"]);
    create_repository(&scene).await?;
    let created = scene.create(spec()).await?;
    let app = image(&scene, "app:1.0.0");
    scene.statuses("created", &[shown(&created), well(&app, None)]).await?;
    repositories(&scene).delete("image").await?;
    let missing = format!(
        "failed to get the referred ImageRepository: referenced ImageRepository does not exist: '{}/image' not found",
        scene.tenant
    );
    let line = first_line(1, &app, None);
    scene.statuses("deleted", &[waiting(&line, &missing)]).await?;

    scene
        .registry
        .always(Route::Path("/v2/app/tags/list".to_owned()), Fault::status(404));
    create_repository(&scene).await?;
    let cause = no_tags(&scene, 3600);
    scene.statuses("recreated", &[waiting(&line, &cause)]).await?;
    scene.registry.heal();
    repositories(&scene).reconcile("image").await?;
    scene.statuses("scanned", &[well(&app, None)]).await
}

#[tokio::test]
async fn what_goes_on_is_told_once() -> Result<()> {
    let mut scene = Scene::new(&["--requeue-dependency=1s"]).await?;
    let created = scene.create(spec()).await?;
    let missing = format!(
        "failed to get the referred ImageRepository: referenced ImageRepository does not exist: '{}/image' not found",
        scene.tenant
    );
    let line = "observed -1, selected nothing, before nothing";
    scene
        .statuses("missing", &[shown(&created), waiting(line, &missing)])
        .await?;
    until("three more looks", || async {
        Ok(scene.objects().passes("app").await? >= 4)
    })
    .await?;
    push(&scene.registry, &["1.0.0"]);
    create_repository(&scene).await?;
    let app = image(&scene, "app:1.0.0");
    scene.statuses("scanned", &[well(&app, None)]).await?;
    let told = [
        post("error", "DependencyNotReady", &missing),
        post("info", "Succeeded", message(&app, None)),
    ];
    scene.posts("each once", &told).await
}

/// After a restart the tags that are stored are good, however long the registry takes for the next scan.
#[tokio::test]
async fn a_hanging_registry_does_not_hold_up_what_is_stored() -> Result<()> {
    let mut scene = Scene::new(&[]).await?;
    push(&scene.registry, &["1.0.0"]);
    create_repository(&scene).await?;
    let created = scene.create(spec()).await?;
    let app = image(&scene, "app:1.0.0");
    scene.statuses("created", &[shown(&created), well(&app, None)]).await?;
    assert!(scene.controller.stop()?.success());
    scene
        .registry
        .always(Route::Path("/v2/app/tags/list".to_owned()), Fault::Hang);
    let request = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "now"}}});
    repositories(&scene).patch("image", request).await?;
    let before = scans(&scene.registry);
    scene.restart().await?;
    until("the next scan hangs", || async { Ok(scans(&scene.registry) > before) }).await?;
    let repository = repositories(&scene).get("image").await?;
    assert!(condition(&repository, "Ready").is_some());
    let handled = repository.status.and_then(|status| status.last_handled_reconcile_at);
    assert_ne!(handled.as_deref(), Some("now"), "its scan is under way");
    Ok(())
}
