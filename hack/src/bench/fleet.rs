//! Cold start and steady state of a fleet: N OCIRepositories of one 4 KiB artifact, from the first create until all are
//! Ready, then passes by interval.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
    runtime::watcher,
};
use mintmark_api::oci_repository::{OciRepository, OciRepositorySpec};
use serde::Serialize;

use super::{
    rig::{Presents, Rig, TENANT, name},
    usage::{Memory, Snapshot},
};
use crate::{
    cluster::{AuditMark, Cluster, ClusterOptions},
    controller::install,
    registry::RegistryServer,
};

/// Clients that create objects at a time.
const CLIENTS: usize = 8;
/// How long a cold start may take before the bench gives up.
const DEADLINE: Duration = Duration::from_mins(30);

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Fleet {
    pub presents: Presents,
    pub objects: usize,
    pub interval: Duration,
    /// How long its steady state is observed, if at all.
    pub steady: Option<Duration>,
}

/// What one fleet took.
#[derive(Debug, Serialize)]
pub struct FleetReport {
    /// What the objects present.
    pub presents: Presents,
    /// How many objects.
    pub objects: usize,
    /// From nothing to all Ready.
    pub cold_start: ColdStart,
    /// Steady state.
    pub steady: Option<Steady>,
}

/// From the first create until all are Ready.
#[derive(Debug, Serialize)]
pub struct ColdStart {
    /// Seconds from the first create until the last is Ready.
    pub seconds: f64,
    /// Seconds until the last create was acknowledged: the API server's share.
    pub create_seconds: f64,
    /// CPU seconds of each process.
    pub cpu_seconds: BTreeMap<String, f64>,
    /// Requests of the controller to the API server per object, by verb and resource; watches left out.
    pub api_requests_per_object: BTreeMap<String, f64>,
    /// Memory of each process afterwards.
    pub memory: BTreeMap<String, Memory>,
    /// The controller's memory afterwards.
    pub controller_memory: Memory,
    /// The controller's share of the CPU seconds.
    pub controller_cpu_seconds: f64,
}

/// Passes that find nothing new.
#[derive(Debug, Serialize)]
pub struct Steady {
    /// Seconds observed.
    pub seconds: f64,
    /// Passes seen by the registry.
    pub passes: usize,
    /// CPU milliseconds of the controller per pass.
    pub controller_cpu_ms_per_pass: f64,
    /// CPU milliseconds of each process per pass.
    pub cpu_ms_per_pass: BTreeMap<String, f64>,
    /// Requests of the controller to the API server per pass, watches left out.
    pub api_requests_per_pass: f64,
    /// Requests of the controller to the registry per pass.
    pub registry_requests_per_pass: f64,
    /// Memory of each process at the end.
    pub memory: BTreeMap<String, Memory>,
    /// The controller's memory at the end.
    pub controller_memory: Memory,
}

/// Runs one fleet in a cluster of its own.
pub async fn run(fleet: Fleet) -> Result<FleetReport> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let installation = install(&cluster, "mintmark-system").await?;
    let client = cluster.client().await?;
    create_namespace(&client).await?;
    let rig = Rig::start(&cluster, &installation, fleet.presents, fleet.objects).await?;
    let observer = Observer {
        cluster: &cluster,
        registry: &rig.registry,
        user: format!("system:serviceaccount:{}:mintmark", installation.namespace),
    };
    let cold_start = observer
        .cold_start(&client, fleet.objects, rig.spec(fleet.interval)?)
        .await?;
    let steady = match fleet.steady {
        None => None,
        Some(span) => {
            // The last Events of the cold start are still on their way.
            tokio::time::sleep(fleet.interval).await;
            Some(observer.steady(span).await?)
        }
    };
    rig.controller.kill()?;
    rig.registry.stop()?;
    cluster.end()?;
    Ok(FleetReport {
        presents: fleet.presents,
        objects: fleet.objects,
        cold_start,
        steady,
    })
}

/// Creates the namespace of all objects.
pub async fn create_namespace(client: &Client) -> Result<()> {
    let metadata = ObjectMeta {
        name: Some(TENANT.to_owned()),
        ..ObjectMeta::default()
    };
    let namespace = Namespace {
        metadata,
        ..Namespace::default()
    };
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    Ok(())
}

async fn create(client: &Client, objects: usize, spec: &OciRepositorySpec) -> Result<()> {
    let api: Api<OciRepository> = Api::namespaced(client.clone(), TENANT);
    stream::iter(0..objects)
        .map(|index| {
            let object = OciRepository::new(&name(index), spec.clone());
            let api = api.clone();
            async move { api.create(&PostParams::default(), &object).await.map(drop) }
        })
        .buffer_unordered(CLIENTS)
        .try_collect::<()>()
        .await?;
    Ok(())
}

/// Ends when a watch has shown `objects` objects that are Ready.
async fn all_ready(api: Api<OciRepository>, objects: usize) -> Result<()> {
    let mut ready = BTreeSet::new();
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    while let Some(event) = events.next().await {
        let (watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = event? else {
            continue;
        };
        let conditions = object
            .status
            .as_ref()
            .map(|status| status.conditions.as_slice())
            .unwrap_or_default();
        if conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        {
            ready.insert(object.name_any());
        }
        if ready.len() == objects {
            return Ok(());
        }
    }
    bail!("the watch ended")
}

/// Where the traces of the controller are found.
struct Observer<'a> {
    cluster: &'a Cluster,
    registry: &'a RegistryServer,
    /// The controller, to the API server.
    user: String,
}

impl Observer<'_> {
    async fn cold_start(&self, client: &Client, objects: usize, spec: OciRepositorySpec) -> Result<ColdStart> {
        let (before, mark) = (Snapshot::take()?, self.cluster.audit().mark()?);
        let started = Instant::now();
        let ready = tokio::spawn(all_ready(Api::namespaced(client.clone(), TENANT), objects));
        create(client, objects, &spec).await?;
        let create_seconds = started.elapsed().as_secs_f64();
        tokio::time::timeout(DEADLINE, ready)
            .await
            .context("not all Ready in time")???;
        let seconds = started.elapsed().as_secs_f64();
        let after = Snapshot::take()?;
        let requests = self.requests(mark)?.into_iter();
        Ok(ColdStart {
            seconds,
            create_seconds,
            cpu_seconds: after.cpu_since(&before),
            api_requests_per_object: requests
                .map(|(what, count)| (what, number(count) / number(objects.max(1))))
                .collect(),
            memory: after.memory(),
            controller_memory: after.controller().memory,
            controller_cpu_seconds: after.controller_cpu_since(&before),
        })
    }

    /// Lets passes come by interval for `span`. This is the one place where time itself is what is measured.
    async fn steady(&self, span: Duration) -> Result<Steady> {
        let mut seen = self.registry.access_mark()?;
        let (before, mark) = (Snapshot::take()?, self.cluster.audit().mark()?);
        let started = Instant::now();
        tokio::time::sleep(span).await;
        let after = Snapshot::take()?;
        let seconds = started.elapsed().as_secs_f64();
        let asked = self.registry.access_log_since(&mut seen)?;
        let heads = asked
            .iter()
            .filter(|entry| entry.method == "HEAD" && entry.status == 200);
        let passes = heads.count();
        let per_pass = |value: f64| value / number(passes.max(1));
        let api_requests: usize = self.requests(mark)?.values().sum();
        let cpu = after.cpu_since(&before).into_iter();
        Ok(Steady {
            seconds,
            passes,
            controller_cpu_ms_per_pass: per_pass(after.controller_cpu_since(&before) * 1000.0),
            cpu_ms_per_pass: cpu.map(|(name, seconds)| (name, per_pass(seconds * 1000.0))).collect(),
            api_requests_per_pass: per_pass(number(api_requests)),
            registry_requests_per_pass: per_pass(number(asked.len())),
            memory: after.memory(),
            controller_memory: after.controller().memory,
        })
    }

    /// Requests of the controller since `mark` by verb and resource; watches left out.
    fn requests(&self, mark: AuditMark) -> Result<BTreeMap<String, usize>> {
        let mut requests = BTreeMap::new();
        for event in self.cluster.audit().events_of(&self.user, mark)? {
            if event.verb == "watch" {
                continue;
            }
            let object = event.object_ref.unwrap_or_default();
            let resource = match object.subresource.as_str() {
                "" => object.resource,
                part => format!("{}/{part}", object.resource),
            };
            *requests.entry(format!("{} {resource}", event.verb)).or_default() += 1;
        }
        Ok(requests)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn number(count: usize) -> f64 {
    count as f64
}
