//! Thousands of objects that hang or fail at once, from the very start, and one that works among them: it is ready soon, goes
//! on at its interval, and so does one of another namespace.

use std::time::{Duration, Instant};

use anyhow::Result;
use mintmark_hack::controller::Controller;
use mintmark_tests::{
    black_hole::BlackHole,
    crowd,
    env::Env,
    fault_registry::{Artifact, Fault, FaultRegistry, Route},
    served::artifact,
    specs::{jwt, with},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::setting;

/// How many hang or fail unless `MINTMARK_CROWD` says otherwise.
const CROWD: usize = 1500;
/// How long one that works may take from its push to its status while all others hang: its interval of a second, the pass,
/// and a machine that is busy otherwise.
const SOON: Duration = Duration::from_secs(30);
/// The same right after the start, when everybody is due at once.
const AT_START: Duration = Duration::from_secs(45);
/// Pushes that are timed.
const ROUNDS: usize = 5;

struct Scene {
    env: Env,
    crowded: String,
    quiet: String,
    works: FaultRegistry,
    controller: Controller,
}

/// As many files open as this process may have: each hanging object has a connection to it.
fn open_many_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let most = Rlimit {
        current: limit.maximum,
        ..limit
    };
    Ok(setrlimit(Resource::Nofile, most)?)
}

impl Scene {
    /// A crowd with these URLs, and one object that works in its namespace and in another one. The controller starts last.
    async fn new(url: impl Fn(usize) -> String) -> Result<Self> {
        open_many_files()?;
        let env = Env::new().await?;
        let (crowded, quiet) = (env.tenant("crowded").await?, env.tenant("quiet").await?);
        let works = FaultRegistry::start(None).await;
        works.push("works", "v1", &Artifact::flux(&[("app.yaml", "first")]));
        let size = setting("MINTMARK_CROWD", CROWD)?;
        let specs = (0..size).map(|index| (format!("app-{index:05}"), every_second(jwt(&url(index)))));
        let start = Instant::now();
        crowd::create(&env, &crowded, specs).await?;
        for namespace in [&crowded, &quiet] {
            // Last in the order of names, as in the order of creation.
            env.create(namespace, "works", every_second(jwt(&works.url("works"))))
                .await?;
        }
        eprintln!("starve: {size} objects made in {:?}", start.elapsed());
        let controller = env.controller(&[]).await?;
        Ok(Self {
            env,
            crowded,
            quiet,
            works,
            controller,
        })
    }

    /// Those that work in these namespaces are soon ready, and soon have what is pushed.
    async fn check(&self, what: &str, namespaces: &[&str]) -> Result<()> {
        let start = Instant::now();
        self.all_have(namespaces, &Artifact::flux(&[("app.yaml", "first")]), AT_START)
            .await?;
        let first = start.elapsed();
        let mut worst = Duration::ZERO;
        for round in 0..ROUNDS {
            let artifact = Artifact::flux(&[("app.yaml", &format!("round {round}"))]);
            self.works.push("works", "v1", &artifact);
            let pushed = Instant::now();
            self.all_have(namespaces, &artifact, SOON).await?;
            worst = worst.max(pushed.elapsed());
        }
        let numbers = self.env.metrics().await?;
        let shown: Vec<_> = numbers
            .lines()
            .filter(|line| line.starts_with("mintmark_queue_depth{"))
            .collect();
        let passes: Vec<_> = numbers
            .lines()
            .filter(|line| line.starts_with("mintmark_running_passes{"))
            .collect();
        eprintln!("starve, {what}: ready {first:?} after the start, then {worst:?} at worst; {shown:?} {passes:?}");
        assert!(self.controller.ended()?.is_none(), "it did not restart");
        Ok(())
    }

    async fn all_have(&self, namespaces: &[&str], wanted: &Artifact, limit: Duration) -> Result<()> {
        let revision = format!("v1@{}", wanted.digest());
        for namespace in namespaces {
            let has = self.env.wait(namespace, "works", "the newest content", |object| {
                artifact(object).is_ok_and(|artifact| artifact.revision == revision)
            });
            let start = Instant::now();
            has.await?;
            anyhow::ensure!(start.elapsed() < limit, "{namespace}/works took {:?}", start.elapsed());
        }
        Ok(())
    }
}

fn every_second(spec: Value) -> Value {
    with(spec, json!({"interval": "1s"}))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_hangs_for_thousands_starves_nobody() -> Result<()> {
    let hole = BlackHole::new().await?;
    let scene = Scene::new(|index| format!("oci://{}/app-{index}", hole.host(0))).await?;
    hole.until(8).await?;
    scene.check("one host hangs", &[&scene.crowded, &scene.quiet]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_registries_that_hang_starve_no_other_namespace() -> Result<()> {
    let hole = BlackHole::new().await?;
    let scene = Scene::new(|index| format!("oci://{}/app", hole.host(index))).await?;
    hole.until(16).await?;
    scene.check("every host hangs", &[&scene.quiet]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_that_fail_starve_nobody() -> Result<()> {
    let fails = FaultRegistry::start(None).await;
    fails.always(Route::Any, Fault::status(404));
    let scene = Scene::new(|index| fails.url(&format!("app-{index}"))).await?;
    scene.check("all fail", &[&scene.crowded, &scene.quiet]).await
}
