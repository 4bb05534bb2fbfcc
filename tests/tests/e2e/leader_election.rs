//! Two replicas and one lease: who reconciles, how soon another takes over, and what goes on while nobody can reach the
//! API server. Whose pull it was shows the life of the token: each replica mints another.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use mintmark_hack::{
    cluster::{Cluster, ClusterOptions},
    controller::{Controller, Ports},
};
use mintmark_tests::{
    env::Env,
    fault_registry::{Artifact, FaultRegistry, Recorded},
    http::{until, until_status},
    served::{artifact, fetch, files},
    specs,
};
use serde_json::{Value, json};

const NAMES: [&str; 4] = ["one", "two", "three", "four"];
/// Shorter than the defaults, and long enough for a busy machine.
const FLAGS: [&str; 4] = [
    "--enable-leader-election",
    "--leader-election-lease-duration=4s",
    "--leader-election-renew-deadline=3s",
    "--leader-election-retry-period=500ms",
];
const LEASE_DURATION: Duration = Duration::from_secs(4);
const RETRY_PERIOD: Duration = Duration::from_millis(500);
/// Less than is left of a lease that was renewed just now.
const HANDOVER: Duration = Duration::from_secs(3);
const LIVES: [u64; 2] = [300, 240];

/// Two replicas and four objects of theirs that are pulled every second.
struct Scene {
    env: Env,
    tenant: String,
    registry: FaultRegistry,
    lease: String,
    replicas: [Arc<Controller>; 2],
}

impl Scene {
    /// The first replica leads, and has pulled everything.
    async fn new(env: Env) -> Result<Self> {
        let lease = env.leader_lease().await?;
        let start = |ports, life: u64| {
            let life = format!("--spiffe-jwt-ttl={life}s");
            let flags: Vec<&str> = FLAGS.into_iter().chain([life.as_str()]).collect();
            env.replica(ports, &flags).map(Arc::new)
        };
        let first = start(env.ports, LIVES[0])?;
        first.wait_ready().await?;
        let second = start(Ports::free()?, LIVES[1])?;
        let tenant = env.tenant("a").await?;
        let registry = FaultRegistry::start(None).await;
        for name in NAMES {
            registry.push(name, "v1", &Artifact::flux(&[("a.yaml", "1")]));
            let mut spec = specs::jwt(&registry.url(name));
            spec["interval"] = "1s".into();
            env.create(&tenant, name, spec).await?;
        }
        let scene = Self {
            env,
            tenant,
            registry,
            lease,
            replicas: [first, second],
        };
        scene.stands_by(1).await?;
        for name in NAMES {
            scene.env.ready(&scene.tenant, name).await?;
        }
        Ok(scene)
    }

    /// Waits until the replica has everything that it needs, except for the lease.
    async fn stands_by(&self, replica: usize) -> Result<()> {
        let url = self.replicas[replica].ports().ready_url();
        until("the replica stands by", || async {
            let Ok(answer) = reqwest::get(&url).await else {
                return Ok(false);
            };
            let text = answer.text().await?;
            Ok(
                text.contains("[-]leader another replica leads")
                    && text.contains("[+]store")
                    && text.contains("[+]crd"),
            )
        })
        .await
    }

    async fn leads(&self, replica: usize) -> Result<()> {
        until_status(&self.replicas[replica].ports().ready_url(), 200).await
    }

    /// Waits for two more pulls of every object after those that `seen` counts, and returns all after it.
    async fn pulls_after(&self, seen: usize) -> Vec<Recorded> {
        self.registry
            .until("two more pulls of each object", |requests| {
                NAMES.iter().all(|name| heads(&requests[seen..], name) >= 2)
            })
            .await;
        self.registry.requests().split_off(seen)
    }

    async fn set_lease(&self, spec: Value) -> Result<()> {
        let leases: Api<Lease> = Api::namespaced(self.env.client.clone(), &self.env.installation.namespace);
        let patch = Patch::Merge(json!({"spec": spec}));
        leases.patch(&self.lease, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn lease(&self) -> Result<Lease> {
        let leases: Api<Lease> = Api::namespaced(self.env.client.clone(), &self.env.installation.namespace);
        Ok(leases.get(&self.lease).await?)
    }
}

fn heads(requests: &[Recorded], name: &str) -> usize {
    let path = format!("/v2/{name}/manifests/v1");
    requests
        .iter()
        .filter(|request| request.method == "HEAD" && request.path() == path)
        .count()
}

/// The replica that sent the request, by the life of its token.
fn replica_of(request: &Recorded) -> Result<usize> {
    let token = request.authorization().and_then(|value| value.strip_prefix("Bearer "));
    let payload = token.and_then(|token| token.split('.').nth(1)).context("no token")?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?;
    let life = claims["exp"].as_u64().zip(claims["iat"].as_u64());
    let life = life.map(|(end, begin)| end - begin).context("no times")?;
    // The begin is dated back by a few seconds.
    LIVES
        .iter()
        .position(|expected| (*expected..expected + 30).contains(&life))
        .with_context(|| format!("whose is {claims}"))
}

fn replicas_of(requests: &[Recorded]) -> Result<BTreeSet<usize>> {
    requests.iter().map(replica_of).collect()
}

/// When the second replica sent its first request; from then on, the first one must have sent none.
fn handed_over(requests: &[Recorded]) -> Result<Instant> {
    let whose: Vec<usize> = requests.iter().map(replica_of).collect::<Result<_>>()?;
    let first = whose
        .iter()
        .position(|replica| *replica == 1)
        .context("nobody took over")?;
    assert!(
        whose[first..].iter().all(|replica| *replica == 1),
        "both pulled after the change: {whose:?}"
    );
    Ok(requests[first].at)
}

#[tokio::test]
async fn one_replica_works_and_sigterm_hands_over_at_once() -> Result<()> {
    let scene = Scene::new(Env::new().await?).await?;
    let pulls = scene.pulls_after(0).await;
    assert_eq!(replicas_of(&pulls)?, BTreeSet::from([0]), "only the leader pulls");
    let seen = scene.registry.requests().len();

    let signalled = Instant::now();
    let leader = scene.replicas[0].clone();
    // It serves its documents for a while longer.
    let ended = tokio::task::spawn_blocking(move || leader.stop());
    scene.leads(1).await?;
    assert!(signalled.elapsed() < HANDOVER, "the lease was not given back");
    assert!(!ended.is_finished(), "the documents are still served");
    until_status(&format!("{}/keys", scene.env.ports.issuer_url()), 200).await?;
    let pulls = scene.pulls_after(seen).await;
    assert!(handed_over(&pulls)? - signalled < HANDOVER);
    for name in NAMES {
        let storage = scene.replicas[1].ports().storage_url();
        let object = scene
            .env
            .wait(&scene.tenant, name, "an artifact of the new leader", |object| {
                artifact(object).is_ok_and(|artifact| artifact.url.starts_with(&storage))
            })
            .await?;
        fetch(&artifact(&object)?).await?;
    }
    assert_eq!(scene.lease().await?.spec.context("a spec")?.lease_transitions, Some(1));
    assert!(ended.await??.success());
    Ok(())
}

#[tokio::test]
async fn a_killed_leader_is_replaced_within_the_lease_and_two_retries() -> Result<()> {
    let scene = Scene::new(Env::new().await?).await?;
    let seen = scene.pulls_after(0).await.len();
    let killed = Instant::now();
    scene.replicas[0].kill()?;
    scene.leads(1).await?;
    let pulls = scene.pulls_after(seen).await;
    let taken_over = handed_over(&pulls)? - killed;
    assert!(taken_over <= LEASE_DURATION + 2 * RETRY_PERIOD, "{taken_over:?}");
    assert!(
        taken_over + Duration::from_secs(1) > LEASE_DURATION,
        "too soon: {taken_over:?}"
    );

    // What was the leader comes back as the other's standby.
    scene.replicas[0].resume()?;
    scene.stands_by(0).await?;
    let seen = scene.registry.requests().len();
    assert_eq!(replicas_of(&scene.pulls_after(seen).await)?, BTreeSet::from([1]));
    Ok(())
}

#[tokio::test]
async fn whoever_finds_another_holder_stops_at_once() -> Result<()> {
    let scene = Scene::new(Env::new().await?).await?;
    let hour = json!({"holderIdentity": "intruder", "leaseDurationSeconds": 3600});
    scene.set_lease(hour).await?;
    scene.stands_by(0).await?;
    let seen = scene.registry.requests().len();
    let mark = scene.env.mark()?;
    // Each of the two has looked several times more, and pulls would have been due.
    until("the replicas look at the lease", || async {
        let looks = scene.env.requests(mark)?;
        Ok(looks.iter().filter(|event| event.verb == "get").count() >= 10)
    })
    .await?;
    assert_eq!(scene.registry.requests().len(), seen, "nobody leads, nobody pulls");
    scene
        .set_lease(json!({"holderIdentity": "", "leaseDurationSeconds": 1}))
        .await?;
    let pulls = scene.pulls_after(seen).await;
    assert_eq!(replicas_of(&pulls)?.len(), 1, "one of them goes on");
    Ok(())
}

#[tokio::test]
async fn without_an_api_server_pulls_go_on_and_are_told_afterwards() -> Result<()> {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(ClusterOptions::default()).await?));
    let scene = Scene::new(Env::in_cluster(cluster).await?).await?;
    let before = artifact(&scene.env.ready(&scene.tenant, "one").await?)?;
    scene.env.event(&scene.tenant, "one", "NewArtifact").await?;
    tokio::task::spawn_blocking(|| cluster.stop_api_server()).await??;
    let metrics = scene.replicas[0].ports().metrics_url();
    let detached = format!("mintmark_leader{{lease=\"{}\",state=\"detached\"}} 1", scene.lease);
    until("the leader is detached", || async {
        Ok(reqwest::get(&metrics).await?.text().await?.contains(&detached))
    })
    .await?;

    let seen = scene.registry.requests().len();
    scene.registry.push("one", "v1", &Artifact::flux(&[("a.yaml", "2")]));
    let latest = format!(
        "{}/{}/latest.tar.gz",
        scene.replicas[0].ports().storage_url(),
        before.path.rsplit_once('/').context("a folder")?.0
    );
    until("the new content is served", || async {
        let served = reqwest::get(&latest).await?.error_for_status()?.bytes().await?;
        Ok(files(&served)?["a.yaml"] == b"2")
    })
    .await?;
    let pulls = scene.pulls_after(seen).await;
    assert_eq!(
        replicas_of(&pulls)?,
        BTreeSet::from([0]),
        "only the detached leader pulls"
    );
    scene.leads(0).await?;
    until_status(&format!("{}/keys", scene.env.ports.issuer_url()), 200).await?;
    fetch(&before).await?;

    cluster.start_api_server().await?;
    let object = scene
        .env
        .wait(
            &scene.tenant,
            "one",
            "the status of what was pulled meanwhile",
            |object| artifact(object).is_ok_and(|artifact| artifact.revision != before.revision),
        )
        .await?;
    fetch(&artifact(&object)?).await?;
    until("the new artifact is announced", || async {
        Ok(scene.env.told(&scene.tenant, "one", "NewArtifact").await? == 2)
    })
    .await?;
    scene.leads(0).await?;
    scene.stands_by(1).await?;
    let seen = scene.registry.requests().len();
    assert_eq!(replicas_of(&scene.pulls_after(seen).await)?, BTreeSet::from([0]));
    for replica in &scene.replicas {
        assert!(replica.ended()?.is_none(), "no restart");
    }
    Ok(())
}
