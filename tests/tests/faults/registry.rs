//! The real registry is down, slow, or limits the rate. Meanwhile objects say so and their artifacts stay served; afterwards
//! all have what was pushed, within a bound, without anybody asking.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Result;
use http::StatusCode;
use mintmark_hack::{
    controller::Controller,
    registry::{Artifact, RegistryServer},
};
use mintmark_tests::{
    crowd,
    env::Env,
    fleet::Observer,
    http_front::{Act, HttpFront},
    served::{artifact, fetch},
    specs::{jwt, with},
};
use serde_json::json;

const OBJECTS: usize = 20;
const REPOSITORY: &str = "team/app";
const PULL: &str = "OCIArtifactPullFailed";
/// Seconds of `Retry-After`.
const RETRY_AFTER: u64 = 2;
/// How soon all have the newest content when nothing grew.
const MENDED: Duration = Duration::from_secs(45);

struct Scene {
    env: Env,
    tenant: String,
    registry: RegistryServer,
    front: HttpFront,
    observer: Observer,
    controller: Controller,
}

fn names() -> impl Iterator<Item = String> {
    (0..OBJECTS).map(|index| format!("app-{index:02}"))
}

impl Scene {
    /// Objects that pull every second from the registry itself, or through the front; all ready.
    async fn new(through_front: bool) -> Result<Self> {
        let env = Env::new().await?;
        let controller = env.controller(&[]).await?;
        let tenant = env.tenant("registry").await?;
        let registry = env.jwt_registry()?;
        let subjects: Vec<_> = names().map(|name| Env::spiffe_id(&tenant, &name)).collect();
        registry.set_readers(REPOSITORY, &subjects.iter().map(String::as_str).collect::<Vec<_>>())?;
        let scene = Self {
            observer: Observer::new(env.repositories(&tenant)),
            front: HttpFront::new(registry.origin(), None).await?,
            env,
            tenant,
            registry,
            controller,
        };
        let revisions = scene.push("first").await?;
        let url = if through_front {
            format!("oci://{}/{REPOSITORY}", scene.front.address())
        } else {
            scene.registry.url(REPOSITORY)
        };
        let object = |name| (name, with(jwt(&url), json!({"interval": "1s"})));
        crowd::create(&scene.env, &scene.tenant, names().map(object)).await?;
        crowd::ready_with(&scene.observer, MENDED, &revisions).await?;
        Ok(scene)
    }

    async fn push(&self, text: &str) -> Result<BTreeMap<String, String>> {
        let artifact = Artifact::from_files(&[("app.yaml", text.as_bytes())])?;
        let pushed = self.registry.push(REPOSITORY, "v1", &artifact).await?;
        Ok(names().map(|name| (name, format!("v1@{}", pushed.digest))).collect())
    }

    /// Waits until every object says this; the artifact before is still named and served.
    async fn all_fail(&self, text: &str) -> Result<()> {
        for name in names() {
            fetch(&artifact(&self.env.failed(&self.tenant, &name, PULL, text).await?)?).await?;
        }
        Ok(())
    }

    async fn mended(&self, what: &str, limit: Duration, revisions: &BTreeMap<String, String>) -> Result<()> {
        let start = Instant::now();
        for artifact in crowd::ready_with(&self.observer, limit, revisions).await?.values() {
            fetch(artifact).await?;
        }
        eprintln!(
            "registry {what}: all have the newest content after {:?}",
            start.elapsed()
        );
        assert!(self.controller.ended()?.is_none(), "it did not restart");
        Ok(())
    }
}

#[tokio::test]
async fn one_that_is_down_is_found_when_it_is_back() -> Result<()> {
    let scene = Scene::new(false).await?;
    let down = Instant::now();
    scene.registry.stop()?;
    // By then connecting has failed so often that one probe at a time goes out.
    scene.all_fail("cannot connect, next attempt in").await?;
    scene.registry.resume()?;
    let revisions = scene.push("back").await?;
    // The delay of an object doubles with each failure, so that it is as long as the outage was. Where the last one comes
    // when the registry is back and not yet found, or another before it by chance, it is twice that; then comes the pass.
    scene
        .mended("down", down.elapsed() * 4 + Duration::from_secs(20), &revisions)
        .await
}

#[tokio::test]
async fn one_that_is_slow_fails_nothing() -> Result<()> {
    let scene = Scene::new(true).await?;
    scene.front.act(|_| Act::Delay(Duration::from_secs(2)));
    let revisions = scene.push("slowly").await?;
    scene.mended("slow", MENDED, &revisions).await?;
    let shown = scene.observer.shown();
    assert!(shown.failed.is_empty(), "{:#?}", shown.failed);
    Ok(())
}

#[tokio::test]
async fn one_that_limits_the_rate_is_asked_no_sooner_than_it_says() -> Result<()> {
    let scene = Scene::new(true).await?;
    scene
        .front
        .act(|_| Act::refuse(StatusCode::TOO_MANY_REQUESTS, Some(RETRY_AFTER)));
    scene.front.take_asked();
    let start = Instant::now();
    // The third refusal ends a pass.
    scene
        .all_fail("failed to determine artifact digest: registry limits the rate (429)")
        .await?;
    let (asked, seconds) = (scene.front.take_asked().len(), start.elapsed().as_secs_f64());
    eprintln!("registry: {asked} requests of {OBJECTS} objects in {seconds:.1} s of 429");
    // A pass asks once in that time; the one after it begins sooner after its last refusal.
    let most = OBJECTS as f64 * (2.0 + 2.0 * seconds / RETRY_AFTER as f64);
    assert!((asked as f64) < most, "{asked} requests in {seconds:.1} s");
    scene.front.heal();
    let revisions = scene.push("unlimited").await?;
    scene.mended("limiting", MENDED, &revisions).await
}
