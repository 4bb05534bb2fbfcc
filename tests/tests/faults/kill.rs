//! `kill -9` at random moments, again and again, while tags move at the registry, objects come and go, and consumers fetch.
//! What was served was whole at every moment; in the end every object has its newest content and no file is left over.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use mintmark_hack::{
    controller::Controller,
    registry::{Artifact, RegistryServer},
};
use mintmark_tests::{
    crowd,
    env::{DEADLINE, Env},
    fault_registry::sha256,
    fleet::Observer,
    http::until,
    served::{artifact, fetch},
    specs::{jwt, with},
    stored::{Records, check_whole, difference, expected_files, files},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::setting;

const OBJECTS: usize = 300;
/// Repositories that they share: every push is news for some of them.
const REPOSITORIES: usize = 30;
/// Time between pushes.
const PUSH_EVERY: Duration = Duration::from_millis(300);
/// Time between deletions of an object.
const DELETE_EVERY: Duration = Duration::from_millis(900);
/// The longest life of a process; the shortest ends before it has read its objects.
const LONGEST_LIFE: Duration = Duration::from_secs(6);

/// The objects and the registry they pull from.
struct Load {
    env: Env,
    tenant: String,
    registry: RegistryServer,
    observer: Observer,
    stop: CancellationToken,
}

fn name(index: usize) -> String {
    format!("app-{index:03}")
}

fn repository(name: &str) -> String {
    let number: usize = name.trim_start_matches("app-").parse().unwrap();
    format!("team/r{}", number % REPOSITORIES)
}

impl Load {
    async fn new() -> Result<Self> {
        let env = Env::new().await?;
        let tenant = env.tenant("kill").await?;
        let registry = env.jwt_registry()?;
        let load = Self {
            observer: Observer::new(env.repositories(&tenant)),
            env,
            tenant,
            registry,
            stop: CancellationToken::new(),
        };
        for index in 0..REPOSITORIES {
            let readers: Vec<_> = (index..OBJECTS)
                .step_by(REPOSITORIES)
                .map(|it| load.subject(&name(it)))
                .collect();
            let readers: Vec<_> = readers.iter().map(String::as_str).collect();
            load.registry.set_readers(&format!("team/r{index}"), &readers)?;
            load.push(&format!("team/r{index}"), 0).await?;
        }
        crowd::create(&load.env, &load.tenant, (0..OBJECTS).map(|it| load.object(&name(it)))).await?;
        Ok(load)
    }

    fn subject(&self, name: &str) -> String {
        Env::spiffe_id(&self.tenant, name)
    }

    fn object(&self, name: &str) -> (String, serde_json::Value) {
        let spec = jwt(&self.registry.url(&repository(name)));
        (name.to_owned(), with(spec, json!({"interval": "2s"})))
    }

    /// Pushes content that is not there yet and returns its revision.
    async fn push(&self, repository: &str, round: usize) -> Result<String> {
        let noise: Vec<u8> = (0..4096).map(|_| rand::random()).collect();
        let text = format!("{repository} {round}");
        let artifact = Artifact::from_files(&[("app.yaml", text.as_bytes()), ("noise", &noise)])?;
        let pushed = self.registry.push(repository, "v1", &artifact).await?;
        Ok(format!("v1@{}", pushed.digest))
    }

    /// Moves tags until the end, then every tag once more. Returns what each object has to have.
    async fn move_tags(&self, mut random: StdRng) -> Result<(usize, BTreeMap<String, String>)> {
        let (mut pushes, mut ticks) = (0, tokio::time::interval(PUSH_EVERY));
        while self.stop.run_until_cancelled(ticks.tick()).await.is_some() {
            pushes += 1;
            let index = random.random_range(0..REPOSITORIES);
            self.push(&format!("team/r{index}"), pushes).await?;
        }
        let mut newest = BTreeMap::new();
        for index in 0..REPOSITORIES {
            let repository = format!("team/r{index}");
            newest.insert(repository.clone(), self.push(&repository, pushes + 1).await?);
        }
        Ok((pushes, newest))
    }

    /// Deletes objects at random; makes every other one again under the same name. Returns how many, and those that stay.
    async fn delete(&self, mut random: StdRng) -> Result<(usize, Vec<String>)> {
        let (mut deleted, mut ticks) = (0, tokio::time::interval(DELETE_EVERY));
        let mut names: Vec<_> = (0..OBJECTS).map(name).collect();
        while self.stop.run_until_cancelled(ticks.tick()).await.is_some() {
            deleted += 1;
            let at = random.random_range(0..names.len());
            let objects = self.env.repositories(&self.tenant);
            objects.delete(&names[at], &DeleteParams::default()).await?;
            if deleted % 2 == 0 {
                let (name, spec) = self.object(&names[at]);
                self.env.create(&self.tenant, &name, spec).await?;
            } else {
                names.swap_remove(at);
            }
        }
        Ok((deleted, names))
    }

    /// Fetches what the statuses name, as consumers do. Whatever is answered has to be whole. Returns how many were, and how
    /// many requests found nobody.
    async fn consume(&self, mut random: StdRng) -> Result<(usize, usize)> {
        let (mut whole, mut away) = (0, 0);
        let http = reqwest::Client::builder().no_proxy().build()?;
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        while self.stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let offered: Vec<_> = self.observer.shown().artifacts.values().cloned().collect();
            let Some(artifact) = offered.choose(&mut random) else {
                continue;
            };
            let answer = http
                .get(&artifact.url)
                .send()
                .await
                .and_then(reqwest::Response::error_for_status);
            // A cut answer is an error too: its length is known.
            match async { answer?.bytes().await }.await {
                Ok(bytes) => {
                    anyhow::ensure!(sha256(&bytes) == artifact.digest, "{} was served torn", artifact.url);
                    whole += 1;
                }
                Err(_) => away += 1,
            }
        }
        Ok((whole, away))
    }

    /// Kills and starts the controller again until `span` is over; looks at the storage after each kill. Returns how often,
    /// and the UIDs of objects that were being removed then.
    async fn kill(&self, controller: &Controller, span: Duration, mut random: StdRng) -> Result<(usize, Vec<String>)> {
        let _stop = self.stop.clone().drop_guard();
        let (start, mut kills, mut half_removed) = (Instant::now(), 0, Vec::new());
        while start.elapsed() < span {
            let life = LONGEST_LIFE.mul_f64(random.random::<f64>().powi(2));
            tokio::time::sleep(life).await;
            controller.kill()?;
            kills += 1;
            let records = check_whole(&controller.storage())
                .with_context(|| format!("after kill {kills}, {life:?} after its start"))?;
            half_removed.extend(records.without_file);
            controller.resume()?;
        }
        Ok((kills, half_removed))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_under_load() -> Result<()> {
    let seed: u64 = setting("MINTMARK_FAULTS_SEED", rand::random())?;
    let span = Duration::from_secs(setting("MINTMARK_KILL_SECONDS", 90)?);
    eprintln!("kill: MINTMARK_FAULTS_SEED={seed}");
    let random = |stream: u64| StdRng::seed_from_u64(seed.wrapping_add(stream));
    let load = Arc::new(Load::new().await?);
    // What was replaced goes soon, so that the end shows whether anything stays.
    let controller = load.env.controller(&["--artifact-retention-ttl=3s"]).await?;
    let ((kills, half_removed), (pushes, newest), (deleted, left), (fetched, away)) = tokio::try_join!(
        load.kill(&controller, span, random(0)),
        load.move_tags(random(1)),
        load.delete(random(2)),
        load.consume(random(3)),
    )?;
    let converging = Instant::now();
    let wanted: BTreeMap<_, _> = left
        .iter()
        .map(|name| (name.clone(), newest[&repository(name)].clone()))
        .collect();
    crowd::ready_with(&load.observer, DEADLINE, &wanted).await?;
    eprintln!(
        "kill: {kills} kills in {span:?}; {pushes} pushes, {deleted} deletions, {fetched} fetched whole, {away} not answered; \
         {} objects left, all newest {:?} after the last start",
        left.len(),
        converging.elapsed()
    );
    settled(&load, &controller, &wanted, &half_removed).await
}

/// Exactly the objects that are left are there, each served whole, and the storage holds their files and nothing else.
async fn settled(
    load: &Load,
    controller: &Controller,
    wanted: &BTreeMap<String, String>,
    half_removed: &[String],
) -> Result<()> {
    let objects = load
        .env
        .repositories(&load.tenant)
        .list(&ListParams::default())
        .await?
        .items;
    assert_eq!(objects.len(), wanted.len());
    let mut artifacts = Vec::new();
    for object in &objects {
        let artifact = artifact(object)?;
        let is_half_removed = object.uid().is_some_and(|uid| half_removed.contains(&uid));
        assert!(
            !is_half_removed,
            "a file of {} went before it was deleted",
            object.name_any()
        );
        fetch(&artifact).await?;
        artifacts.push(artifact);
    }
    let (storage, expected) = (controller.storage(), expected_files(&artifacts));
    let tidy = until("the storage holds what the objects name", || async {
        // A file may go between listing and looking.
        Ok(files(&storage).is_ok_and(|found| found == expected))
    });
    tidy.await
        .with_context(|| format!("{:#?}", difference(&files(&storage).unwrap_or_default(), &expected)))?;
    let records = Records {
        whole: wanted.len(),
        ..Records::default()
    };
    assert_eq!(check_whole(&storage)?, records);
    Ok(())
}
