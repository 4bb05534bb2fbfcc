//! What an observer of one ImageRepository sees, step by step: tags that come and go, edits, failures and their ends,
//! suspension, the end of the object.

use std::fs;

use anyhow::{Context, Result};
use mintmark_api::image_repository::ImageRepository;
use mintmark_tests::{
    env::condition,
    history::shown,
    http::until,
    receiver::Post,
    scene::{self, post},
};
use serde_json::{Value, json};

use super::{message, push, result, revision, scans, text};

const DEFAULT: &str = r"^.*\.sig$";

type Scene = scene::Scene<ImageRepository>;

fn spec(scene: &Scene) -> Value {
    json!({"image": format!("{}/app", scene.registry.host()), "insecure": true})
}

/// What was found, in the first line of a status.
fn found(scene: &Scene, observed: i64, tags: &[&str], excluded: &str) -> String {
    let text = text(tags);
    let latest: Vec<_> = text.lines().take(10).collect();
    format!(
        "observed {observed}, found {} tags {latest:?} of {}/app without {:?}",
        tags.len(),
        scene.registry.host(),
        [excluded]
    )
}

/// All is well: `conditions` of that generation.
fn well(scene: &Scene, observed: i64, conditions: i64, tags: &[&str], excluded: &str) -> String {
    format!(
        "{}\nReady=True Succeeded @{conditions}: {}",
        found(scene, observed, tags, excluded),
        message(tags)
    )
}

/// Failed, and tried again for what `doing` says.
fn failed(first_line: &str, generation: i64, doing: &str, reason: &str, cause: &str) -> String {
    format!(
        "{first_line}\nReconciling=True ProgressingWithRetry @{generation}: {doing}\n\
         Ready=False {reason} @{generation}: {cause}"
    )
}

fn scanned(tags: &[&str]) -> Post {
    post("info", "Succeeded", message(tags))
}

fn cause(object: &ImageRepository) -> Result<String> {
    Ok(condition(object, "Ready").context("Ready")?.message.clone())
}

#[tokio::test]
async fn tags_come_and_go() -> Result<()> {
    let mut scene = Scene::new(&[]).await?;
    push(&scene.registry, &["1.0", "1.1", "sha256-0.sig"]);
    let created = scene.create(spec(&scene)).await?;
    let first = well(&scene, 1, 1, &["1.0", "1.1"], DEFAULT);
    scene.statuses("first scan", &[shown(&created), first]).await?;
    scene.posts("first scan", &[scanned(&["1.0", "1.1"])]).await?;
    scene.metric("first scan", Some("1")).await?;
    let stored = scene.folder().join("tags.txt");
    assert_eq!(fs::read_to_string(&stored)?, text(&["1.0", "1.1"]));

    // Nothing new: the registry is asked, nothing is told.
    let before = scans(&scene.registry);
    let time = result(&scene.reconcile().await?)?.scan_time;
    assert_eq!(scans(&scene.registry), before + 1);
    assert_eq!(result(&scene.objects().get("app").await?)?.scan_time, time);

    let more = ["1.0", "1.1", "1.2"];
    push(&scene.registry, &["1.2"]);
    scene.reconcile().await?;
    let seen = well(&scene, 1, 1, &more, DEFAULT);
    scene.statuses("nothing new, then a new tag", &[seen]).await?;
    scene.posts("new tag", &[scanned(&more)]).await?;

    let less = ["1.1", "1.2"];
    scene.registry.with_content(|content| content.untag("app", "1.0"));
    scene.reconcile().await?;
    let seen = well(&scene, 1, 1, &less, DEFAULT);
    scene.statuses("removed tag", &[seen]).await?;
    scene.posts("removed tag", &[scanned(&less)]).await?;
    assert_eq!(fs::read_to_string(&stored)?, text(&less));

    // Every tag is gone, which is no failure.
    for tag in ["1.1", "1.2", "sha256-0.sig"] {
        scene.registry.with_content(|content| content.untag("app", tag));
    }
    scene.reconcile().await?;
    let seen = well(&scene, 1, 1, &[], DEFAULT);
    scene.statuses("no tag", &[seen]).await?;
    scene.posts("no tag", &[scanned(&[])]).await?;
    let bodies = scene.receiver.bodies("app");
    let last = bodies.last().context("a post")?;
    assert_eq!(last["action"], "Scan");
    assert_eq!(last["metadata"]["image.toolkit.fluxcd.io/revision"], revision(&[]));
    assert_eq!(last["involvedObject"]["kind"], "ImageRepository");
    assert!(last["metadata"].as_object().is_some_and(|all| all.len() == 1), "{last}");
    until("Events say the same", || async {
        Ok(scene.env.told(&scene.tenant, "app", "Succeeded").await? == 4)
    })
    .await?;
    let mut events = scene.env.events(&scene.tenant).await?;
    events.retain(|event| event.reason.as_deref() != Some("Succeeded"));
    assert!(events.is_empty(), "and nothing else: {events:#?}");
    Ok(())
}

#[tokio::test]
async fn edits_suspension_and_the_end() -> Result<()> {
    let mut scene = Scene::new(&[]).await?;
    push(&scene.registry, &["1.0", "1.1-rc.1", "1.1.sig", "dev"]);
    let created = scene.create(spec(&scene)).await?;
    let all = ["1.0", "1.1-rc.1", "dev"];
    let first = well(&scene, 1, 1, &all, DEFAULT);
    scene.statuses("created", &[shown(&created), first]).await?;
    scene.posts("created", &[scanned(&all)]).await?;

    // Another list of exclusions is a scan at once, and replaces the default.
    scene.edit(json!({"exclusionList": ["-rc"]})).await?;
    let without = ["1.0", "1.1.sig", "dev"];
    let seen = well(&scene, 2, 2, &without, "-rc");
    scene.statuses("exclusions", &[seen]).await?;
    scene.posts("exclusions", &[scanned(&without)]).await?;

    // Edits that say nothing about the tags scan nothing.
    let before = scans(&scene.registry);
    scene.edit(json!({"interval": "2h"})).await?;
    let seen = well(&scene, 3, 3, &without, "-rc");
    scene.statuses("longer interval", &[seen]).await?;
    scene.edit(json!({"accessFrom": {"namespaceSelectors": [{}]}})).await?;
    let seen = well(&scene, 4, 4, &without, "-rc");
    scene.statuses("access", &[seen]).await?;
    assert_eq!(scans(&scene.registry), before);

    // A pattern that is none: nothing is asked, and the generation is not observed.
    scene.edit(json!({"exclusionList": ["("]})).await?;
    let unusable = "failed to compile regex (: not a regular expression: unclosed group";
    let object = scene.objects().failed("app", "ReadOperationFailed", unusable).await?;
    let line = found(&scene, 4, &without, "-rc");
    let doing = "reconciliation in progress";
    let seen = failed(&line, 5, doing, "ReadOperationFailed", &cause(&object)?);
    scene.statuses("bad pattern", &[seen]).await?;
    scene
        .posts("bad pattern", &[post("error", "ReadOperationFailed", unusable)])
        .await?;
    assert_eq!(scans(&scene.registry), before);
    scene.edit(json!({"exclusionList": ["-rc"]})).await?;
    let seen = well(&scene, 6, 6, &without, "-rc");
    scene.statuses("good pattern", &[seen]).await?;
    scene.posts("good pattern", &[scanned(&without)]).await?;
    assert_eq!(
        scans(&scene.registry),
        before,
        "what is stored was found without that pattern"
    );

    scene.edit(json!({"suspend": true})).await?;
    let seen = well(&scene, 7, 6, &without, "-rc");
    scene.statuses("suspended", &[seen]).await?;
    push(&scene.registry, &["2.0"]);
    scene.reconcile().await?;
    assert_eq!(scans(&scene.registry), before);
    scene.edit(json!({"suspend": false})).await?;
    let more = ["1.0", "1.1.sig", "2.0", "dev"];
    let seen = well(&scene, 8, 8, &more, "-rc");
    scene.statuses("resumed, with a request unanswered", &[seen]).await?;
    scene.posts("resumed", &[scanned(&more)]).await?;

    // The successor knows nothing of the former.
    let uid = scene.uid().await?;
    scene.delete().await?;
    let created = scene.create(spec(&scene)).await?;
    assert_ne!(scene.uid().await?, uid);
    let all = ["1.0", "1.1-rc.1", "2.0", "dev"];
    let seen = well(&scene, 1, 1, &all, DEFAULT);
    scene.statuses("recreated", &[shown(&created), seen]).await?;
    scene.posts("recreated", &[scanned(&all)]).await
}

#[tokio::test]
async fn failures_keep_what_was_found() -> Result<()> {
    let mut scene = Scene::new(&[]).await?;
    push(&scene.registry, &["1.0"]);
    let created = scene.create(spec(&scene)).await?;
    let tags = ["1.0"];
    let well_1 = well(&scene, 1, 1, &tags, DEFAULT);
    scene.statuses("created", &[shown(&created), well_1.clone()]).await?;
    scene.posts("created", &[scanned(&tags)]).await?;
    let stored = scene.folder().join("tags.txt");

    // A repository that is not there is no empty one.
    scene
        .edit(json!({"image": format!("{}/other", scene.registry.host())}))
        .await?;
    let object = scene.objects().failed("app", "ReadOperationFailed", "404").await?;
    let why = cause(&object)?;
    let begin = format!("failed to list tags of '{}/other': ", scene.registry.host());
    assert!(why.starts_with(&begin), "{why}");
    let line = found(&scene, 1, &tags, DEFAULT);
    let seen = failed(&line, 2, "scanning: new image name", "ReadOperationFailed", &why);
    scene.statuses("404", std::slice::from_ref(&seen)).await?;
    scene
        .posts("404", &[post("error", "ReadOperationFailed", &why)])
        .await?;
    scene.metric("404", Some("0")).await?;
    assert_eq!(fs::read_to_string(&stored)?, text(&tags));

    // It is tried again, with the same answer, which is told in the same Event.
    scene.reconcile().await?;
    scene
        .posts("404 again", &[post("error", "ReadOperationFailed", &why)])
        .await?;
    scene
        .env
        .repeated_event(&scene.tenant, "app", "ReadOperationFailed", 2)
        .await?;

    // The image that is stored, so nothing is asked: the same as before.
    let before = scans(&scene.registry);
    scene
        .edit(json!({"image": format!("{}/app", scene.registry.host())}))
        .await?;
    let back = well(&scene, 3, 3, &tags, DEFAULT);
    // The reconcile above has a request of its own to be answered.
    let asked = failed(&line, 2, "scanning: reconcile requested", "ReadOperationFailed", &why);
    scene.statuses("back", &[asked, back]).await?;
    scene.posts("back", &[scanned(&tags)]).await?;
    assert_eq!(scans(&scene.registry), before + 1, "the request was not answered yet");

    // Terminal: nothing is under way, the generation is observed.
    let image = format!("https://{}/app", scene.registry.host());
    scene.edit(json!({"image": image})).await?;
    let object = scene
        .objects()
        .failed("app", "ImageURLInvalid", "remove 'https://'")
        .await?;
    let why = cause(&object)?;
    let line = found(&scene, 4, &tags, DEFAULT);
    let stalled = format!("{line}\nStalled=True ImageURLInvalid @4: {why}\nReady=False ImageURLInvalid @4: {why}");
    scene.statuses("stalled", &[stalled]).await?;
    scene
        .posts("stalled", &[post("error", "ImageURLInvalid", &why)])
        .await?;
    scene
        .edit(json!({"image": format!("{}/app", scene.registry.host())}))
        .await?;
    let seen = well(&scene, 5, 5, &tags, DEFAULT);
    scene.statuses("healed", &[seen]).await?;
    scene.posts("healed", &[scanned(&tags)]).await?;
    scene.metric("healed", Some("1")).await
}

#[tokio::test]
async fn a_first_scan_that_fails_shows_no_tags() -> Result<()> {
    let mut scene = Scene::new(&[]).await?;
    let created = scene.create(spec(&scene)).await?;
    let object = scene.objects().failed("app", "ReadOperationFailed", "404").await?;
    let why = cause(&object)?;
    let seen = failed(
        "observed -1, found nothing",
        1,
        "scanning: first scan",
        "ReadOperationFailed",
        &why,
    );
    scene.statuses("no repository", &[shown(&created), seen]).await?;
    scene
        .posts("no repository", &[post("error", "ReadOperationFailed", &why)])
        .await?;
    assert!(!scene.folder().join("tags.txt").exists());
    push(&scene.registry, &["1"]);
    scene.reconcile().await?;
    let seen = well(&scene, 1, 1, &["1"], DEFAULT);
    scene.statuses("there it is", &[seen]).await?;
    scene.posts("there it is", &[scanned(&["1"])]).await
}
