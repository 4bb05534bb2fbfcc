//! The API server is slow, refuses (429, 500, 503), hangs, drops watches or forgets where they were (410). Pulls go on, what is
//! to be written is written once that is possible, nothing is missed, and nobody asks in a hot loop.

use std::time::{Duration, Instant};

use anyhow::Result;
use http::StatusCode;
use kube::api::DeleteParams;
use mintmark_hack::controller::Controller;
use mintmark_tests::{
    crowd,
    env::Env,
    fault_registry::{Artifact, FaultRegistry, Recorded},
    fleet::Observer,
    http::until,
    http_front::{Act, Asked, HttpFront},
    specs::{jwt, with},
    stored::files,
};
use rstest::rstest;
use serde_json::json;

const OBJECTS: usize = 10;
/// How soon all is written once the API server is well: the pause between questions whether it is, and time to write.
const MENDED: Duration = Duration::from_secs(20);
/// The same where a watch has to come back first: its delay after errors grows up to half a minute.
const WATCHED: Duration = Duration::from_secs(45);
/// Requests per second beyond which it is a hot loop: every object has one pass a second, which may try one status and one
/// Event.
const CALM: f64 = 4.0 * OBJECTS as f64;

struct Scene {
    env: Env,
    tenant: String,
    api: HttpFront,
    registry: FaultRegistry,
    observer: Observer,
    controller: Controller,
    round: usize,
}

fn name(index: usize) -> String {
    format!("app-{index:02}")
}

/// The objects that are there from the start.
fn names() -> impl Iterator<Item = String> {
    (0..OBJECTS).map(name)
}

impl Scene {
    /// Objects that pull every second, all ready; the controller reaches the API server through the front.
    async fn new() -> Result<Self> {
        let mut env = Env::new().await?;
        let api = HttpFront::new(env.cluster.url(), Some(env.cluster.ca_pem())).await?;
        let kubeconfig = std::fs::read_to_string(&env.installation.kubeconfig)?;
        let through = env.installation.kubeconfig.with_extension("front");
        let url = format!("http://{}", api.address());
        std::fs::write(&through, kubeconfig.replace(env.cluster.url(), &url))?;
        env.installation.kubeconfig = through;
        let controller = env.controller(&[]).await?;
        let tenant = env.tenant("api").await?;
        let mut scene = Self {
            observer: Observer::new(env.repositories(&tenant)),
            registry: FaultRegistry::start(None).await,
            env,
            tenant,
            api,
            controller,
            round: 0,
        };
        let revision = scene.push(names());
        scene.create(names()).await?;
        scene.ready_with(names(), &revision).await?;
        Ok(scene)
    }

    async fn create(&self, names: impl Iterator<Item = String>) -> Result<()> {
        let object = |name: String| {
            let spec = with(jwt(&self.registry.url(&name)), json!({"interval": "1s"}));
            (name, spec)
        };
        crowd::create(&self.env, &self.tenant, names.map(object)).await
    }

    /// Pushes the same new content for all of these, and returns its revision.
    fn push(&mut self, names: impl Iterator<Item = String>) -> String {
        self.round += 1;
        let artifact = Artifact::flux(&[("app.yaml", &format!("round: {}", self.round))]);
        for name in names {
            self.registry.push(&name, "v1", &artifact);
        }
        format!("v1@{}", artifact.digest())
    }

    async fn ready_with(&self, names: impl Iterator<Item = String>, revision: &str) -> Result<()> {
        self.ready_within(MENDED, names, revision).await
    }

    async fn ready_within(&self, limit: Duration, names: impl Iterator<Item = String>, revision: &str) -> Result<()> {
        let wanted = names.map(|name| (name, revision.to_owned())).collect();
        crowd::ready_with(&self.observer, limit, &wanted).await.map(drop)
    }

    /// Waits until each of the objects was pulled so often once more.
    async fn pulls(&self, times: usize) {
        let count = |requests: &[Recorded], name: &str| {
            let path = format!("/v2/{name}/manifests/");
            requests
                .iter()
                .filter(|request| request.path().starts_with(&path))
                .count()
        };
        let requests = self.registry.requests();
        let wanted: Vec<_> = names().map(|name| (count(&requests, &name) + times, name)).collect();
        let pulled = |requests: &[Recorded]| wanted.iter().all(|(wanted, name)| count(requests, name) >= *wanted);
        self.registry.until("pulls at their interval", pulled).await;
    }

    /// Waits for some pulls and returns how many requests per second reached the API server meanwhile.
    async fn asked_per_second(&self) -> f64 {
        self.api.take_asked();
        let start = Instant::now();
        self.pulls(6).await;
        let asked = self.api.take_asked();
        asked.len() as f64 / start.elapsed().as_secs_f64()
    }

    /// Nothing of these objects is stored any more.
    async fn gone(&self, names: &[String]) -> Result<()> {
        let storage = self.controller.storage();
        until("the files of deleted objects are gone", || async {
            let left = files(&storage)?;
            Ok(!names
                .iter()
                .any(|name| left.iter().any(|file| file.contains(&format!("/{name}/")))))
        })
        .await
    }

    fn end(&self) -> Result<()> {
        assert!(self.controller.ended()?.is_none(), "it did not restart");
        Ok(())
    }
}

#[tokio::test]
async fn a_slow_one_slows_only_what_is_written() -> Result<()> {
    let mut scene = Scene::new().await?;
    scene.api.act(|asked| {
        if asked.is_watch() {
            Act::Pass
        } else {
            Act::Delay(Duration::from_millis(1500))
        }
    });
    let revision = scene.push(names());
    scene.pulls(6).await;
    scene.ready_with(names(), &revision).await?;
    scene.end()
}

/// What is asked while it refuses, and what comes of it afterwards.
#[rstest]
#[case::rate_limited(StatusCode::TOO_MANY_REQUESTS, Some(1))]
#[case::broken(StatusCode::INTERNAL_SERVER_ERROR, None)]
#[case::overloaded(StatusCode::SERVICE_UNAVAILABLE, Some(2))]
#[tokio::test]
async fn one_that_refuses_is_left_alone(#[case] status: StatusCode, #[case] retry_after: Option<u64>) -> Result<()> {
    let mut scene = Scene::new().await?;
    scene.api.act(move |asked| {
        if asked.is_watch() {
            Act::Pass
        } else {
            Act::refuse(status, retry_after)
        }
    });
    let revision = scene.push(names());
    let rate = scene.asked_per_second().await;
    eprintln!("api server: {rate:.1} requests per second while it answers {status}");
    assert!(rate < CALM, "{rate:.1} requests per second");
    scene.api.heal();
    let mended = Instant::now();
    scene.ready_with(names(), &revision).await?;
    eprintln!("api server: written {:?} after {status} was over", mended.elapsed());
    scene.env.event(&scene.tenant, &name(0), "NewArtifact").await?;
    scene.end()
}

#[tokio::test]
async fn one_that_never_answers_holds_up_no_pull() -> Result<()> {
    let mut scene = Scene::new().await?;
    let hangs = |asked: &Asked| !asked.is_watch();
    scene.api.act(move |asked| {
        if hangs(asked) {
            Act::Delay(Duration::from_hours(1))
        } else {
            Act::Pass
        }
    });
    scene.push(names());
    // Each waits once for an answer that does not come, then no more.
    scene.pulls(15).await;
    let rate = scene.asked_per_second().await;
    eprintln!("api server: {rate:.1} requests per second while it hangs");
    assert!(rate < CALM, "{rate:.1} requests per second");
    scene.api.heal();
    let revision = scene.push(names());
    scene.ready_with(names(), &revision).await?;
    scene.end()
}

#[tokio::test]
async fn watches_that_are_dropped_all_the_time_miss_nothing() -> Result<()> {
    const CUTS: usize = 30;
    let mut scene = Scene::new().await?;
    let more = |round: usize| format!("more-{round:02}");
    let revision = scene.push((0..CUTS).map(more));
    scene.api.take_asked();
    let (start, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_millis(300)));
    for round in 0..CUTS {
        ticks.tick().await;
        scene.api.cut();
        scene.create(std::iter::once(more(round))).await?;
        if round % 3 == 2 {
            let objects = scene.env.repositories(&scene.tenant);
            objects.delete(&more(round - 1), &DeleteParams::default()).await?;
        }
    }
    let (removed, stayed): (Vec<_>, Vec<_>) = (0..CUTS).partition(|round| round % 3 == 1 && round + 1 < CUTS);
    scene.ready_with(stayed.into_iter().map(more), &revision).await?;
    scene.gone(&removed.into_iter().map(more).collect::<Vec<_>>()).await?;
    let lists = scene
        .api
        .take_asked()
        .into_iter()
        .filter(|asked| !asked.is_watch() && asked.target.contains("ocirepositories?"));
    let lists = lists.count();
    eprintln!("api server: {lists} lists for {CUTS} cuts in {:?}", start.elapsed());
    assert!(lists <= CUTS, "{lists} lists");
    scene.end()
}

/// The watch's version is too old: said with the status of the answer, or as an event in it.
#[rstest]
#[case::as_an_answer(false)]
#[case::as_an_event(true)]
#[tokio::test]
async fn one_that_forgot_where_the_watch_was_is_listed_again(#[case] as_event: bool) -> Result<()> {
    let mut scene = Scene::new().await?;
    let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
        "message": "too old resource version", "reason": "Expired"});
    let (status, body) = if as_event {
        (StatusCode::OK, json!({"type": "ERROR", "object": gone}))
    } else {
        (StatusCode::GONE, gone)
    };
    let body = format!("{body}\n");
    scene.api.act(move |asked| {
        if asked.is_watch() && asked.target.contains("ocirepositories") {
            Act::Answer(
                status,
                vec![(http::header::CONTENT_TYPE, "application/json".to_owned())],
                body.clone(),
            )
        } else {
            Act::Pass
        }
    });
    scene.api.cut();
    // Nobody sees this but who lists.
    let revision = scene.push(std::iter::once("unseen".to_owned()));
    scene.create(std::iter::once("unseen".to_owned())).await?;
    scene
        .env
        .repositories(&scene.tenant)
        .delete(&name(0), &DeleteParams::default())
        .await?;
    scene
        .ready_within(WATCHED, std::iter::once("unseen".to_owned()), &revision)
        .await?;
    scene.gone(&[name(0)]).await?;
    let start = Instant::now();
    scene.api.take_asked();
    scene.registry.clear_records();
    scene
        .registry
        .until("a few seconds of pulls", |requests| requests.len() >= 6 * OBJECTS)
        .await;
    let rate = scene.api.take_asked().len() as f64 / start.elapsed().as_secs_f64();
    eprintln!("api server: {rate:.1} requests per second while every watch ends with 410");
    assert!(rate < CALM, "{rate:.1} requests per second");
    scene.api.heal();
    let revision = scene.push(std::iter::once("late".to_owned()));
    scene.create(std::iter::once("late".to_owned())).await?;
    scene.ready_with(std::iter::once("late".to_owned()), &revision).await?;
    scene.end()
}
