//! The controller's wall clock steps while objects pull: nothing is due earlier or later than by the time that really passed,
//! retained files go neither too soon nor never, and a credential that has ended is made anew.

use std::time::{Duration, Instant};

use anyhow::Result;
use mintmark_hack::controller::Controller;
use mintmark_tests::{
    clock::WallClock,
    crowd,
    env::Env,
    fault_registry::{Artifact, FaultRegistry, Recorded},
    fleet::Observer,
    http::until,
    served::fetch,
    specs::{jwt, with},
    stored::{difference, expected_files, files},
};
use rstest::rstest;
use serde_json::json;

const OBJECTS: usize = 5;
const HALF_AN_HOUR: i64 = 1800;
const SOON: Duration = Duration::from_secs(20);
/// How long a pass may be late or early on a busy machine.
const LATE: f64 = 2.5;

struct Scene {
    env: Env,
    tenant: String,
    registry: FaultRegistry,
    observer: Observer,
    clock: WallClock,
    controller: Controller,
}

fn names() -> impl Iterator<Item = String> {
    (0..OBJECTS).map(|index| format!("app-{index}"))
}

impl Scene {
    /// Objects that pull every second, one that pulls every hour; all ready.
    async fn new() -> Result<Self> {
        let (env, clock) = (Env::new().await?, WallClock::new()?);
        let controller = env.start_with(&clock.environment(), &["--artifact-retention-ttl=3s"])?;
        controller.wait_ready().await?;
        let tenant = env.tenant("clock").await?;
        let scene = Self {
            observer: Observer::new(env.repositories(&tenant)),
            registry: FaultRegistry::start(None).await,
            env,
            tenant,
            clock,
            controller,
        };
        scene
            .registry
            .push("rare", "v1", &Artifact::flux(&[("app.yaml", "rare")]));
        scene
            .env
            .create(&scene.tenant, "rare", jwt(&scene.registry.url("rare")))
            .await?;
        scene.env.ready(&scene.tenant, "rare").await?;
        let revision = scene.push("first");
        let object = |name: String| {
            let spec = with(jwt(&scene.registry.url(&name)), json!({"interval": "1s"}));
            (name, spec)
        };
        crowd::create(&scene.env, &scene.tenant, names().map(object)).await?;
        scene.all_have(&revision).await?;
        Ok(scene)
    }

    fn push(&self, text: &str) -> String {
        let artifact = Artifact::flux(&[("app.yaml", text)]);
        for name in names() {
            self.registry.push(&name, "v1", &artifact);
        }
        format!("v1@{}", artifact.digest())
    }

    /// Waits until all that pull often have this, served, and what they had before is gone.
    async fn all_have(&self, revision: &str) -> Result<()> {
        let wanted = names().map(|name| (name, revision.to_owned())).collect();
        let mut artifacts = crowd::ready_with(&self.observer, SOON, &wanted).await?;
        for artifact in artifacts.values() {
            fetch(artifact).await?;
        }
        if let Some(rare) = self.observer.shown().artifacts.get("rare") {
            artifacts.insert("rare".to_owned(), rare.clone());
        }
        let (storage, expected) = (self.controller.storage(), expected_files(artifacts.values()));
        let tidy = until("replaced files are gone", || async {
            Ok(files(&storage).is_ok_and(|found| found == expected))
        });
        tidy.await.map_err(|error| {
            let found = files(&storage).unwrap_or_default();
            error.context(format!("{:#?}", difference(&found, &expected)))
        })
    }

    /// Lets each object that pulls often do so some more times; fails if that took another time than their interval says, or
    /// if the one with a long interval pulled at all.
    async fn pulls_go_on(&self) -> Result<()> {
        const TIMES: usize = 6;
        let count = |requests: &[Recorded], name: &str| {
            let path = format!("/v2/{name}/manifests/v1");
            requests.iter().filter(|request| request.path() == path).count()
        };
        self.registry.clear_records();
        let start = Instant::now();
        let all = |requests: &[Recorded]| names().all(|name| count(requests, &name) >= TIMES);
        self.registry.until("pulls at their interval", all).await;
        let (seconds, requests) = (start.elapsed().as_secs_f64(), self.registry.requests());
        assert_eq!(count(&requests, "rare"), 0, "an hour has not passed");
        for name in names() {
            let pulls = count(&requests, &name) as f64;
            assert!(pulls <= seconds + LATE, "{name}: {pulls} pulls in {seconds:.1} s");
            assert!(pulls >= seconds / LATE - 1.0, "{name}: {pulls} pulls in {seconds:.1} s");
        }
        Ok(())
    }

    /// The Authorization header of the last request.
    fn last_token(&self) -> String {
        let requests = self.registry.requests();
        let last = requests.last().and_then(Recorded::authorization);
        last.unwrap_or_default().to_owned()
    }
}

#[rstest]
#[case::ahead(HALF_AN_HOUR)]
#[case::back(-HALF_AN_HOUR)]
#[case::far_ahead(40 * HALF_AN_HOUR)]
#[tokio::test]
async fn a_clock_that_steps_disturbs_no_interval_and_no_file(#[case] step: i64) -> Result<()> {
    let scene = Scene::new().await?;
    scene.pulls_go_on().await?;
    let before = scene.last_token();
    scene.clock.step_to(step)?;
    scene.pulls_go_on().await?;
    if step > 0 {
        assert_ne!(scene.last_token(), before, "the token before has ended by this clock");
    }
    scene.all_have(&scene.push("stepped")).await?;
    scene.clock.step_to(0)?;
    scene.pulls_go_on().await?;
    scene.all_have(&scene.push("right again")).await?;
    let shown = scene.observer.shown();
    assert!(shown.failed.is_empty(), "{:#?}", shown.failed);
    drop(shown);
    assert!(scene.controller.ended()?.is_none(), "it did not restart");
    Ok(())
}
