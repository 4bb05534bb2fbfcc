//! The life of an object as others see it: which conditions, events, status writes and artifacts follow what is done to it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mintmark_api::oci_repository::OciRepository;
use mintmark_hack::{
    cluster::AuditMark,
    controller::Controller,
    registry::{Artifact, Pushed, RegistryServer},
};
use mintmark_tests::{
    env::{Env, condition},
    http::until,
    served::{artifact, fetch},
    specs,
};
use rstest::rstest;
use serde_json::{Value, json};

#[derive(Clone, Copy)]
struct Now {
    mark: AuditMark,
    passes: usize,
}

/// One object `app` of repository `app`, which everybody may read.
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
        registry.allow_anonymous("app")?;
        Ok(Self {
            env,
            controller,
            tenant,
            registry,
        })
    }

    async fn push(&self, tag: &str, text: &str) -> Result<Pushed> {
        let artifact = Artifact::from_files(&[("deploy/app.yaml", text.as_bytes())])?;
        self.registry.push("app", tag, &artifact).await
    }

    fn spec(&self, more: Value) -> Value {
        specs::with(json!({"url": self.registry.url("app"), "insecure": true}), more)
    }

    async fn create(&self, more: Value) -> Result<OciRepository> {
        self.env.create(&self.tenant, "app", self.spec(more)).await
    }

    /// Creates it and waits until it is ready and its event is told.
    async fn ready(&self, more: Value) -> Result<OciRepository> {
        self.create(more).await?;
        let object = self.env.ready(&self.tenant, "app").await?;
        self.env.event(&self.tenant, "app", "NewArtifact").await?;
        until("its first pass has ended", || async {
            Ok(self.env.passes(&self.tenant, "app").await? > 0)
        })
        .await?;
        Ok(object)
    }

    async fn edit(&self, spec: Value) -> Result<OciRepository> {
        let generation = self
            .env
            .patch(&self.tenant, "app", json!({"spec": spec}))
            .await?
            .metadata
            .generation;
        self.env
            .wait(&self.tenant, "app", "the edit is handled", |object| {
                object
                    .status
                    .as_ref()
                    .is_some_and(|status| status.observed_generation == generation)
            })
            .await
    }

    async fn reconcile(&self) -> Result<OciRepository> {
        self.env.reconcile(&self.tenant, "app").await
    }

    /// A point in time between two passes.
    async fn now(&self) -> Result<Now> {
        Ok(Now {
            mark: self.env.mark()?,
            passes: self.env.passes(&self.tenant, "app").await?,
        })
    }

    /// What the next pass since `then` asked the API server about the object. A watch may tell of a write before that
    /// stands in the audit log, so the end of the pass is waited for.
    async fn asked(&self, then: Now) -> Result<Vec<String>> {
        until("the pass has ended", || async {
            Ok(self.env.passes(&self.tenant, "app").await? > then.passes)
        })
        .await?;
        self.env.requests_about(then.mark, "app")
    }

    async fn told(&self, reason: &str) -> Result<i32> {
        self.env.told(&self.tenant, "app", reason).await
    }

    /// What reached the registry from the controller since its log had `from` lines, as `<method> <path>`.
    fn pulled(&self, from: usize) -> Result<Vec<String>> {
        let entries = self.registry.access_log()?.split_off(from);
        let own = entries
            .iter()
            .filter(|entry| entry.subject != mintmark_hack::registry::ADMIN);
        Ok(own.map(|entry| format!("{} {}", entry.method, entry.path)).collect())
    }
}

const ONE_WRITE: [&str; 1] = ["patch status"];

/// kstatus calls it Current: nothing is under way, nothing is wrong.
fn assert_current(object: &OciRepository, revision: &str) {
    let status = object.status.clone().unwrap_or_default();
    assert_eq!(status.observed_generation, object.metadata.generation);
    let conditions: Vec<_> = status
        .conditions
        .iter()
        .map(|it| {
            (
                it.type_.as_str(),
                it.status.as_str(),
                it.reason.as_str(),
                it.message.as_str(),
            )
        })
        .collect();
    let message = format!("stored artifact for digest '{revision}'");
    let expected = [
        ("Ready", "True", "Succeeded", message.as_str()),
        ("ArtifactInStorage", "True", "Succeeded", message.as_str()),
    ];
    assert_eq!(conditions, expected);
    let stale = status
        .conditions
        .iter()
        .find(|it| it.observed_generation != object.metadata.generation);
    assert!(stale.is_none(), "{stale:?}");
    assert_eq!(
        status.artifact.map(|artifact| artifact.revision).as_deref(),
        Some(revision)
    );
}

#[tokio::test]
async fn a_new_object_gets_one_status_write_and_one_event() -> Result<()> {
    let scene = Scene::new().await?;
    let pushed = scene.push("v1", "1").await?;
    let then = scene.now().await?;
    let object = scene.ready(json!({"ref": {"tag": "v1"}})).await?;
    let revision = format!("v1@{}", pushed.digest);
    assert_current(&object, &revision);
    let stored = artifact(&object)?;
    let path = format!("ocirepository/{}/app/{}.tar.gz", scene.tenant, pushed.digest);
    assert_eq!(stored.path, path);
    let origin = scene.controller.ports().storage_url();
    assert_eq!(stored.url, format!("{origin}/{path}"));
    let latest = format!("{origin}/ocirepository/{}/app/latest.tar.gz", scene.tenant);
    let url = object.status.as_ref().and_then(|status| status.url.clone());
    assert_eq!(url.as_deref(), Some(latest.as_str()));
    let bytes = fetch(&stored).await?;
    assert_eq!(reqwest::get(latest).await?.error_for_status()?.bytes().await?, bytes);
    assert!(object.metadata.finalizers.is_none());
    assert_eq!(scene.asked(then).await?, ONE_WRITE);
    let event = scene.env.event(&scene.tenant, "app", "NewArtifact").await?;
    let url = scene.registry.url("app");
    assert_eq!(
        event.message,
        Some(format!("stored artifact with revision '{revision}' from '{url}'"))
    );
    assert_eq!(event.type_.as_deref(), Some("Normal"));
    assert_eq!(scene.env.events(&scene.tenant).await?.len(), 1, "and no other event");
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn a_moved_tag_is_pulled_and_told() -> Result<()> {
    let scene = Scene::new().await?;
    scene.push("v1", "1").await?;
    let before = artifact(&scene.ready(json!({"ref": {"tag": "v1"}})).await?)?;
    let pushed = scene.push("v1", "2").await?;
    let then = scene.now().await?;
    let object = scene.reconcile().await?;
    let revision = format!("v1@{}", pushed.digest);
    assert_current(&object, &revision);
    assert_eq!(scene.asked(then).await?, ONE_WRITE);
    let stored = artifact(&object)?;
    assert_ne!(stored.url, before.url);
    fetch(&stored).await?;
    fetch(&before)
        .await
        .context("what a pass replaces stays until the next one")?;
    scene
        .env
        .event_saying(&scene.tenant, "app", "NewArtifact", &pushed.digest)
        .await?;
    assert_eq!(scene.told("NewArtifact").await?, 2);
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn a_request_with_nothing_new_moves_its_answer_only() -> Result<()> {
    let scene = Scene::new().await?;
    scene.push("v1", "1").await?;
    let before = scene.ready(json!({"ref": {"tag": "v1"}})).await?;
    let (then, from) = (scene.now().await?, scene.registry.access_log()?.len());
    let after = scene.reconcile().await?;
    let handled = after
        .status
        .as_ref()
        .and_then(|status| status.last_handled_reconcile_at.clone());
    let asked_for = after
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get("reconcile.fluxcd.io/requestedAt"));
    assert!(handled.is_some() && handled.as_ref() == asked_for);
    let mut expected = before.status.clone().context("a status")?;
    expected.last_handled_reconcile_at = handled;
    assert_eq!(after.status, Some(expected));
    assert_eq!(scene.asked(then).await?, ONE_WRITE);
    assert_eq!(scene.pulled(from)?, ["HEAD /v2/app/manifests/v1"]);
    assert_eq!(scene.env.events(&scene.tenant).await?.len(), 1);
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn requests_in_a_row_are_deferred_but_the_last_is_answered() -> Result<()> {
    let scene = Scene::new().await?;
    scene.push("v1", "1").await?;
    scene.ready(json!({"ref": {"tag": "v1"}})).await?;
    let before = scene.env.passes(&scene.tenant, "app").await?;
    let start = Instant::now();
    for number in 0..20 {
        let patch = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": format!("{number}")}}});
        scene.env.patch(&scene.tenant, "app", patch).await?;
    }
    scene
        .env
        .wait(&scene.tenant, "app", "the last request is answered", |object| {
            let handled = object
                .status
                .as_ref()
                .and_then(|status| status.last_handled_reconcile_at.as_deref());
            handled == Some("19")
        })
        .await?;
    let made = scene.env.passes(&scene.tenant, "app").await? - before;
    let seconds = usize::try_from(start.elapsed().as_secs())?;
    assert!(made <= seconds + 2, "{made} passes in {seconds} s");
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn an_edit_without_effect_on_the_content_keeps_the_artifact() -> Result<()> {
    let scene = Scene::new().await?;
    let pushed = scene.push("v1", "1").await?;
    let before = scene.ready(json!({"ref": {"tag": "v1"}})).await?;
    let (then, from) = (scene.now().await?, scene.registry.access_log()?.len());
    let after = scene.edit(json!({"interval": "2h", "timeout": "30s"})).await?;
    assert_current(&after, &format!("v1@{}", pushed.digest));
    assert_eq!(artifact(&after)?, artifact(&before)?);
    assert_eq!(scene.asked(then).await?, ONE_WRITE);
    assert_eq!(scene.pulled(from)?, ["HEAD /v2/app/manifests/v1"]);
    assert_eq!(scene.env.events(&scene.tenant).await?.len(), 1);
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn a_suspended_object_is_left_alone_until_it_is_resumed() -> Result<()> {
    let scene = Scene::new().await?;
    let old = scene.push("v1", "1").await?;
    let before = scene.ready(json!({"ref": {"tag": "v1"}, "interval": "1s"})).await?;
    let suspended = scene.edit(json!({"suspend": true})).await?;
    assert_eq!(artifact(&suspended)?, artifact(&before)?);
    let new = scene.push("v1", "2").await?;
    let from = scene.registry.access_log()?.len();
    let asked = scene.reconcile().await?;
    assert_eq!(artifact(&asked)?.revision, format!("v1@{}", old.digest));
    fetch(&artifact(&asked)?).await?;
    assert!(scene.pulled(from)?.is_empty(), "nothing is asked of the registry");
    let resumed = scene.edit(json!({"suspend": false})).await?;
    assert_current(&resumed, &format!("v1@{}", new.digest));
    scene
        .env
        .event_saying(&scene.tenant, "app", "NewArtifact", &new.digest)
        .await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn a_digest_needs_no_resolving_and_no_reference_means_latest() -> Result<()> {
    let scene = Scene::new().await?;
    let (pinned, latest) = (scene.push("v1", "1").await?, scene.push("latest", "2").await?);
    let from = scene.registry.access_log()?.len();
    // The digest comes before the others; a semver beside it asks for nothing.
    let object = scene
        .ready(json!({"ref": {"tag": "latest", "digest": pinned.digest}}))
        .await?;
    assert_current(&object, &pinned.digest);
    let pulled = scene.pulled(from)?;
    assert!(pulled.iter().all(|request| request.starts_with("GET ")), "{pulled:?}");
    let again = scene.registry.access_log()?.len();
    scene.reconcile().await?;
    assert!(scene.pulled(again)?.is_empty(), "a quiet pass of a digest asks nothing");
    let object = scene.edit(json!({"ref": null})).await?;
    assert_current(&object, &format!("latest@{}", latest.digest));
    fetch(&artifact(&object)?).await?;
    scene.controller.kill()?;
    Ok(())
}

#[rstest]
#[case::verify(json!({"verify": {"provider": "cosign"}}), "VerificationNotSupported", "spec.verify is not supported yet")]
#[case::provider(json!({"provider": "aws"}), "ProviderNotSupported", "spec.provider")]
#[tokio::test]
async fn nothing_is_pulled_unverified_or_as_somebody_else(
    #[case] more: Value,
    #[case] reason: &str,
    #[case] message: &str,
) -> Result<()> {
    stalls_and_heals(more, reason, message).await
}

/// An object with `more` is refused for good before anything is asked of the registry, until an edit takes it away.
async fn stalls_and_heals(more: Value, reason: &str, message: &str) -> Result<()> {
    let scene = Scene::new().await?;
    let pushed = scene.push("latest", "1").await?;
    let from = scene.registry.access_log()?.len();
    scene.create(more.clone()).await?;
    let object = scene.env.failed(&scene.tenant, "app", reason, message).await?;
    let status = object.status.clone().context("a status")?;
    let types: Vec<_> = status.conditions.iter().map(|it| it.type_.as_str()).collect();
    assert_eq!(types, ["Stalled", "Ready"]);
    assert_eq!(status.observed_generation, object.metadata.generation);
    assert!(status.artifact.is_none());
    let event = scene.env.event_saying(&scene.tenant, "app", reason, message).await?;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert!(scene.pulled(from)?.is_empty(), "nothing was asked of the registry");
    let cleared: serde_json::Map<_, _> = more
        .as_object()
        .into_iter()
        .flatten()
        .map(|(field, _)| (field.clone(), Value::Null))
        .collect();
    let healed = scene.edit(cleared.into()).await?;
    assert_current(&healed, &format!("latest@{}", pushed.digest));
    fetch(&artifact(&healed)?).await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn an_unsupported_field_keeps_the_artifact_served() -> Result<()> {
    let scene = Scene::new().await?;
    scene.push("latest", "1").await?;
    let before = scene.ready(json!({})).await?;
    let after = scene.edit(json!({"verify": {"provider": "cosign"}})).await?;
    assert_eq!(
        condition(&after, "Ready").map(|ready| ready.reason.as_str()),
        Some("VerificationNotSupported")
    );
    assert_eq!(artifact(&after)?, artifact(&before)?);
    fetch(&artifact(&after)?).await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn an_interval_below_the_minimum_is_clamped_and_said_so() -> Result<()> {
    let scene = Scene::new().await?;
    scene.push("latest", "1").await?;
    scene.ready(json!({"interval": "1ms"})).await?;
    scene
        .env
        .event_saying(&scene.tenant, "app", "IntervalClamped", "--min-interval")
        .await?;
    let (from, start) = (scene.env.passes(&scene.tenant, "app").await?, Instant::now());
    until("two more passes", || async {
        Ok(scene.env.passes(&scene.tenant, "app").await? >= from + 2)
    })
    .await?;
    // A whole interval lies between two passes, 5 % more or less.
    assert!(start.elapsed() >= Duration::from_millis(900), "{:?}", start.elapsed());
    assert_eq!(scene.told("IntervalClamped").await?, 1, "once, not in every pass");
    scene.controller.kill()?;
    Ok(())
}
