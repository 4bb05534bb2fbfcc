//! What an observer of one object sees, from its creation to the end of its successor: every status, every post to the
//! webhook, and its metrics, after each thing that happens to it. What is not listed in a step must not be seen in it.

use std::{
    fs,
    ops::{Deref, DerefMut},
};

use anyhow::{Context, Result};
use kube::api::DeleteParams;
use mintmark_api::oci_repository::OciRepository;
use mintmark_tests::{
    env::condition,
    fault_registry::{Artifact, Fault, Route},
    history::shown,
    http::until,
    receiver::Post,
    scene::{self, post},
    served::{artifact, fetch},
    specs,
};
use serde_json::{Value, json};

/// The object `app` of repository `app`.
struct Scene(scene::Scene<OciRepository>);

impl Deref for Scene {
    type Target = scene::Scene<OciRepository>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Scene {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

fn files(text: &str) -> Artifact {
    Artifact::flux(&[("app.yaml", text), ("readme.md", "r")])
}

/// All is well: `conditions` of that generation, `observed` moves alone while the object is suspended.
fn well(observed: i64, conditions: i64, revision: &str) -> String {
    let message = format!("stored artifact for digest '{revision}'");
    format!(
        "observed {observed}, stored {revision}\n\
         Ready=True Succeeded @{conditions}: {message}\n\
         ArtifactInStorage=True Succeeded @{conditions}: {message}"
    )
}

impl Scene {
    async fn new() -> Result<Self> {
        Ok(Self(scene::Scene::new(&[]).await?))
    }

    fn push(&self, artifact: &Artifact) -> String {
        self.registry.push("app", "v1", artifact);
        format!("v1@{}", artifact.digest())
    }

    async fn create(&self, more: Value) -> Result<OciRepository> {
        let spec = json!({"url": self.registry.url("app"), "insecure": true, "ref": {"tag": "v1"}});
        self.0.create(specs::with(spec, more)).await
    }

    async fn posts(&mut self, step: &str, expected: &[Post]) -> Result<()> {
        self.0.posts(step, expected).await
    }

    fn stored(&self, revision: &str) -> Post {
        let message = format!(
            "stored artifact with revision '{revision}' from '{}'",
            self.registry.url("app")
        );
        post("info", "NewArtifact", message)
    }
}

#[tokio::test]
async fn from_creation_to_the_end_of_its_successor() -> Result<()> {
    let mut scene = Scene::new().await?;
    let first = scene.push(&files("1"));
    scene.create(json!({})).await?;
    let begin = "observed -1, stored nothing".to_owned();
    scene.statuses("created", &[begin.clone(), well(1, 1, &first)]).await?;
    scene.posts("created", &[scene.stored(&first)]).await?;
    scene.metric("created", Some("1")).await?;

    let second = scene.push(&files("2"));
    scene.reconcile().await?;
    scene.statuses("new digest", &[well(1, 1, &second)]).await?;
    scene.posts("new digest", &[scene.stored(&second)]).await?;

    scene.reconcile().await?;
    scene.edit(json!({"timeout": "30s"})).await?;
    scene
        .statuses("nothing new, then an edit without effect", &[well(2, 2, &second)])
        .await?;

    // Other content of the same revision: a NewArtifact, since its digest is another one.
    scene.edit(json!({"ignore": "*.md"})).await?;
    scene.statuses("edit with effect", &[well(3, 3, &second)]).await?;
    scene.posts("edit with effect", &[scene.stored(&second)]).await?;

    scene.edit(json!({"suspend": true})).await?;
    scene.statuses("suspended", &[well(4, 3, &second)]).await?;
    let third = scene.push(&files("3"));
    scene.reconcile().await?;
    scene.edit(json!({"suspend": false})).await?;
    scene.statuses("resumed", &[well(5, 5, &third)]).await?;
    scene.posts("resumed", &[scene.stored(&third)]).await?;

    let before = scene.uid().await?;
    scene.delete().await?;
    scene.create(json!({})).await?;
    assert_ne!(scene.uid().await?, before);
    scene
        .statuses("recreated", &[begin.clone(), well(1, 1, &third)])
        .await?;
    scene.posts("recreated", &[scene.stored(&third)]).await?;
    scene.metric("recreated", Some("1")).await?;

    scene.edit(json!({"suspend": true})).await?;
    scene.statuses("suspended again", &[well(2, 1, &third)]).await?;
    scene.delete().await?;
    scene.posts("deleted while suspended", &[]).await?;
    until("Events say the same", || async {
        Ok(scene.env.told(&scene.tenant, "app", "NewArtifact").await? == 5)
    })
    .await?;
    let mut events = scene.env.events(&scene.tenant).await?;
    events.retain(|event| event.reason.as_deref() != Some("NewArtifact"));
    assert!(events.is_empty(), "and nothing else: {events:#?}");
    Ok(())
}

#[tokio::test]
async fn failures_with_an_artifact_in_place_and_their_ends() -> Result<()> {
    let mut scene = Scene::new().await?;
    let revision = scene.push(&files("1"));
    let created = scene.create(json!({})).await?;
    scene
        .statuses("created", &[shown(&created), well(1, 1, &revision)])
        .await?;
    scene.posts("created", &[scene.stored(&revision)]).await?;
    let stored = artifact(&scene.env.ready(&scene.tenant, "app").await?)?;
    let kept = format!("ArtifactInStorage=True Succeeded @{{}}: stored artifact for digest '{revision}'");
    let kept = |generation: i64| kept.replace("{}", &generation.to_string());
    let recovered = Post {
        reason: "Succeeded".to_owned(),
        ..scene.stored(&revision)
    };

    // The registry lost the tag.
    scene.registry.with_content(|content| content.untag("app", "v1"));
    let object = scene.reconcile().await?;
    let pull = "OCIArtifactPullFailed";
    let cause = condition(&object, "FetchFailed")
        .context("FetchFailed")?
        .message
        .clone();
    assert!(
        cause.starts_with("failed to determine artifact digest: ") && cause.contains("404"),
        "{cause}"
    );
    let failed = format!(
        "observed 1, stored {revision}\n\
         Reconciling=True ProgressingWithRetry @1: reconciliation in progress\n\
         Ready=False {pull} @1: {cause}\n{}\nFetchFailed=True {pull} @1: {cause}",
        kept(1)
    );
    scene.statuses("tag lost", &[failed]).await?;
    scene.posts("tag lost", &[post("error", pull, &cause)]).await?;
    scene.metric("tag lost", Some("0")).await?;
    fetch(&stored).await.context("what is stored stays served")?;

    // An edit that does not help: the generation is not observed.
    scene.edit(json!({"timeout": "30s"})).await?;
    let failed = format!(
        "observed 1, stored {revision}\n\
         Reconciling=True ProgressingWithRetry @2: processing object: new generation 1 -> 2\n\
         Ready=False {pull} @2: {cause}\n{}\nFetchFailed=True {pull} @2: {cause}",
        kept(2)
    );
    scene.statuses("edited in vain", &[failed]).await?;
    scene.posts("edited in vain", &[post("error", pull, &cause)]).await?;

    scene.push(&files("1"));
    scene.reconcile().await?;
    scene.statuses("tag back", &[well(2, 2, &revision)]).await?;
    scene.posts("tag back", std::slice::from_ref(&recovered)).await?;
    scene.metric("tag back", Some("1")).await?;

    // A newer revision whose content is bad: it is named, and not stored.
    let bad = scene.push(&Artifact::with_layer(b"no archive"));
    let object = scene.reconcile().await?;
    let extract = "OCIArtifactLayerOperationFailed";
    let cause = condition(&object, "FetchFailed")
        .context("FetchFailed")?
        .message
        .clone();
    let failed = format!(
        "observed 2, stored {revision}\n\
         Reconciling=True ProgressingWithRetry @2: building artifact: new revision '{bad}' for 'v1'\n\
         Ready=False {extract} @2: {cause}\n{}\nFetchFailed=True {extract} @2: {cause}\n\
         ArtifactOutdated=True NewRevision @2: new revision '{bad}' for 'v1'",
        kept(2)
    );
    scene.statuses("bad content", &[failed]).await?;
    scene.posts("bad content", &[post("error", extract, &cause)]).await?;
    scene.push(&files("1"));
    scene.reconcile().await?;
    scene.statuses("good content", &[well(2, 2, &revision)]).await?;
    scene.posts("good content", std::slice::from_ref(&recovered)).await?;

    // Terminal: the generation is observed, and nothing is under way.
    scene.edit(json!({"url": "oci://127.0.0.1:9/team/app:tag"})).await?;
    let object = scene.env.failed(&scene.tenant, "app", "URLInvalid", "").await?;
    let cause = condition(&object, "Stalled").context("Stalled")?.message.clone();
    assert!(
        cause.starts_with("URL validation failed for 'oci://127.0.0.1:9/team/app:tag': "),
        "{cause}"
    );
    let stalled = format!(
        "observed 3, stored {revision}\nStalled=True URLInvalid @3: {cause}\n\
         Ready=False URLInvalid @3: {cause}\n{}\nFetchFailed=True URLInvalid @3: {cause}",
        kept(3)
    );
    scene.statuses("stalled", &[stalled]).await?;
    scene.posts("stalled", &[post("error", "URLInvalid", &cause)]).await?;
    scene.metric("stalled", Some("0")).await?;
    fetch(&stored).await.context("what is stored stays served")?;
    scene.edit(json!({"url": scene.registry.url("app")})).await?;
    scene.statuses("healed", &[well(4, 4, &revision)]).await?;
    scene.posts("healed", &[recovered]).await?;
    scene.metric("healed", Some("1")).await?;

    // The second failure was the first one's: one Event stands for both.
    assert_eq!(
        scene.env.repeated_event(&scene.tenant, "app", pull, 2).await?.count,
        Some(2)
    );
    until("each recovery is an occurrence of an Event", || async {
        Ok(scene.env.told(&scene.tenant, "app", "Succeeded").await? == 3)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn storage_lost_and_addresses_changed_are_no_news() -> Result<()> {
    let mut scene = Scene::new().await?;
    let revision = scene.push(&files("1"));
    let created = scene.create(json!({})).await?;
    scene
        .statuses("created", &[shown(&created), well(1, 1, &revision)])
        .await?;
    scene.posts("created", &[scene.stored(&revision)]).await?;
    let stored = artifact(&scene.env.ready(&scene.tenant, "app").await?)?;
    let file = scene.controller.storage().join(&stored.path);
    let lost = |how: &str| {
        let message = format!("stored artifact {how}; it is built again");
        post("error", "ArtifactVerificationFailed", message)
    };

    fs::remove_file(&file)?;
    scene.reconcile().await?;
    scene.posts("file missing", &[lost("disappeared from storage")]).await?;
    fetch(&stored).await?;

    // What follows is seen in the order it happens, so that silence is checked by what comes after it.
    scene.controller.kill()?;
    scene.restart().await?;
    scene.controller.kill()?;
    fs::remove_dir_all(scene.controller.storage())?;
    scene.restart().await?;
    fetch(&stored).await?;
    scene.controller.kill()?;
    let origin = scene.controller.ports().storage_url();
    let address = origin.replace("http://127.0.0.1", "localhost");
    scene
        .controller
        .resume_with(&[&format!("--storage-adv-addr={address}")])?;
    scene.controller.wait_ready().await?;
    let moved = artifact(&scene.reconcile().await?)?;
    assert_eq!(moved.url, format!("http://{address}/{}", stored.path));

    fs::remove_file(&file)?;
    scene.reconcile().await?;
    scene
        .posts("file missing again", &[lost("disappeared from storage")])
        .await?;
    let next = scene.push(&files("2"));
    scene.reconcile().await?;
    scene.statuses("new digest", &[well(1, 1, &next)]).await?;
    scene.posts("new digest", &[scene.stored(&next)]).await?;
    scene.metric("new digest", Some("1")).await
}

#[tokio::test]
async fn a_pass_that_outlives_its_object_tells_nothing() -> Result<()> {
    let scene = Scene::new().await?;
    scene.push(&files("1"));
    scene.registry.always(Route::Blob, Fault::Stall(10));
    scene.create(json!({"timeout": "10s"})).await?;
    scene.running("1").await?;
    let api = scene.env.repositories(&scene.tenant);
    api.delete("app", &DeleteParams::default()).await?;
    scene.running("0").await?;
    let (metrics, own) = (scene.env.metrics().await?, format!("namespace=\"{}\"", scene.tenant));
    let left: Vec<_> = metrics.lines().filter(|line| line.contains(&own)).collect();
    assert!(left.is_empty(), "{left:#?}");
    assert!(scene.receiver.posts("app").is_empty());
    assert!(scene.env.events(&scene.tenant).await?.is_empty());
    Ok(())
}
