//! Five minutes without the API server: known objects are pulled with fresh credentials, what is new is served, the documents
//! answer; nothing that must be stored happens, and afterwards everything goes on as if it had just begun.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use mintmark_hack::{
    cluster::{Cluster, ClusterOptions},
    pki::TestCa,
};
use mintmark_tests::{
    env::Env,
    fleet::{Fleet, Keys, Verifier},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

const OUTAGE: Duration = Duration::from_mins(5);
/// Watches, ours too, try again after up to half a minute.
const REACTION: Duration = Duration::from_mins(2);
/// Shorter than the outage, with credentials that live a fifth of it; and leader election as it is shipped.
const FLAGS: &[&str] = &[
    "--spiffe-key-overlap=30s",
    "--spiffe-x509-overlap=30s",
    "--spiffe-jwt-ttl=1m",
    "--spiffe-x509-ttl=1m",
    "--enable-leader-election",
];

/// Asks for the documents every second.
struct Asking {
    failures: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Asking {
    fn new(issuer: &str) -> Self {
        let failures = Arc::new(Mutex::new(Vec::new()));
        let (written, issuer) = (failures.clone(), issuer.to_owned());
        let task = tokio::spawn(async move {
            let mut ticks = interval(Duration::from_secs(1));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                for path in ["/.well-known/openid-configuration", "/keys", "/spiffe/bundle.json"] {
                    let answer = reqwest::get(format!("{issuer}{path}")).await;
                    if let Err(error) = answer.and_then(reqwest::Response::error_for_status) {
                        let failure = format!("{} {path}: {error}", Timestamp::now());
                        written.lock().expect("nobody panics").push(failure);
                    }
                }
            }
        });
        Self { failures, task }
    }

    fn end(self) -> Vec<String> {
        self.task.abort();
        let failures = self.failures.lock().expect("nobody panics");
        failures.clone()
    }
}

#[tokio::test]
async fn five_minutes_without_the_api_server_fail_no_pull() -> Result<()> {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(ClusterOptions::default()).await?));
    let env = Env::in_cluster(cluster).await?;
    env.leader_lease().await?;
    let controller = env.controller(FLAGS).await?;
    let issuer = env.ports.issuer_url();
    let old = Keys::of(&env.ca)?;
    let groups = [(Verifier::Polling(1), 3), (Verifier::CaFile, 3)];
    let mut fleet = Fleet::new(env, &issuer, "1s", &groups).await?;
    fleet.all_present(&old).await?;
    let (new, _) = fleet.rotate(&TestCa::new("next CA")?).await?;
    fleet.published(&new).await?;
    fleet.renew_ca_files().await?;
    let asking = Asking::new(&issuer);

    let end = Instant::now() + OUTAGE;
    tokio::task::spawn_blocking(|| cluster.stop_api_server()).await??;
    // New content is pulled and served although nobody can be told.
    let revision = fleet.push("during the outage").await?;
    sleep_until(end).await;
    fleet.no_failed_pull()?;
    assert!(fleet.first_uses(&new).is_empty(), "a key signed before that was stored");
    fleet.all_presented_after(&old, Timestamp::now() - SignedDuration::from_secs(5))?;
    assert!(controller.ended()?.is_none(), "{}", controller.log()?);

    let back = Timestamp::now();
    cluster.start_api_server().await?;
    fleet.ready_with(&revision, REACTION).await?;
    fleet.all_present(&new).await?;
    let first = fleet.first_uses(&new).into_iter().min().context("never used")?;
    assert!(first >= back, "signed at {first}, the API server was back at {back}");
    fleet.pull_content("after the outage").await?;
    fleet.no_failed_pull()?;
    assert_eq!(asking.end(), Vec::<String>::new());
    assert!(controller.ended()?.is_none());
    let starts = controller
        .log_lines()?
        .iter()
        .filter(|line| line["msg"] == "started")
        .count();
    assert_eq!(starts, 1, "it was started again");
    Ok(())
}
