//! Cold start and steady state: N anonymous OCIRepositories of one 4 KiB artifact over plain HTTP, from the first create until
//! all are Ready, then passes by interval.

use std::{
    collections::BTreeMap,
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
use serde_json::json;

use super::usage::{self, Usage};
use crate::{
    cluster::Cluster,
    controller::{self, Controller, Installation, Ports},
    registry::{Artifact, RegistryOptions, RegistryServer},
};

/// Clients that create objects at a time.
const CLIENTS: usize = 8;
/// How long a cold start may take before the bench gives up.
const DEADLINE: Duration = Duration::from_mins(10);
const TENANT: &str = "bench";

/// What one fleet took.
#[derive(Debug, Serialize)]
pub struct FleetReport {
    /// How many objects.
    pub objects: usize,
    /// Seconds from the first create until the last is Ready.
    pub cold_start_seconds: f64,
    /// Seconds until the last create was acknowledged: the API server's share of the cold start.
    pub create_seconds: f64,
    /// CPU seconds of each process over the cold start.
    pub cold_start_cpu_seconds: BTreeMap<String, f64>,
    /// Resident MiB of the controller afterwards.
    pub resident_mib: f64,
    /// Steady state.
    pub steady: SteadyReport,
}

/// Passes that find nothing new.
#[derive(Debug, Serialize)]
pub struct SteadyReport {
    /// Seconds observed.
    pub seconds: f64,
    /// Passes seen by the registry.
    pub passes: usize,
    /// CPU milliseconds of the controller per pass.
    pub cpu_ms_per_pass: f64,
    /// Requests of the controller to the API server per pass, watches left out.
    pub api_requests_per_pass: f64,
    /// Resident MiB of the controller at the end.
    pub resident_mib: f64,
}

/// Runs one fleet of `objects` with this interval, and observes it for `steady`.
pub async fn run(
    cluster: &Cluster,
    installation: &Installation,
    objects: usize,
    interval: Duration,
    steady: Duration,
) -> Result<FleetReport> {
    let client = cluster.client().await?;
    let registry = RegistryServer::start(RegistryOptions::default())?;
    // Incompressible, so that the layer is as large as the content.
    let content: Vec<u8> = (0..4096).map(|_| rand::random()).collect();
    registry
        .push("bench/app", "v1", &Artifact::from_files(&[("app.bin", &content)])?)
        .await?;
    registry.allow_anonymous("bench/app")?;
    create_namespace(&client).await?;
    let controller = Controller::start(installation, Ports::free()?, &["--log-level=error"])?;
    controller.wait_ready().await?;

    let before = usage::below_this_process()?;
    let started = Instant::now();
    let ready = tokio::spawn(all_ready(Api::namespaced(client.clone(), TENANT), objects));
    create(&client, &registry, objects, interval).await?;
    let create_seconds = started.elapsed().as_secs_f64();
    tokio::time::timeout(DEADLINE, ready)
        .await
        .context("not all Ready in time")???;
    let cold_start_seconds = started.elapsed().as_secs_f64();
    let after = usage::below_this_process()?;
    // The last Events of the cold start are still on their way.
    tokio::time::sleep(interval).await;
    let steady = observe(cluster, installation, &registry, steady).await?;
    Ok(FleetReport {
        objects,
        cold_start_seconds,
        create_seconds,
        cold_start_cpu_seconds: spent(&before, &after),
        resident_mib: mib(&after),
        steady,
    })
}

async fn create_namespace(client: &Client) -> Result<()> {
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

async fn create(client: &Client, registry: &RegistryServer, objects: usize, interval: Duration) -> Result<()> {
    let api: Api<OciRepository> = Api::namespaced(client.clone(), TENANT);
    let spec: OciRepositorySpec = serde_json::from_value(json!({
        "url": registry.url("bench/app"),
        "insecure": true,
        "ref": {"tag": "v1"},
        "interval": format!("{}s", interval.as_secs()),
    }))?;
    stream::iter(0..objects)
        .map(|index| {
            let object = OciRepository::new(&format!("app-{index:05}"), spec.clone());
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
    let mut ready = std::collections::BTreeSet::new();
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

/// Lets passes come by interval for `span`. This is the one place where time itself is what is measured.
async fn observe(
    cluster: &Cluster,
    installation: &Installation,
    registry: &RegistryServer,
    span: Duration,
) -> Result<SteadyReport> {
    let (before, mark, seen) = (
        usage::below_this_process()?,
        cluster.audit().mark()?,
        registry.access_log()?.len(),
    );
    let started = Instant::now();
    tokio::time::sleep(span).await;
    let after = usage::below_this_process()?;
    let seconds = started.elapsed().as_secs_f64();
    let passes = registry.access_log()?.len().saturating_sub(seen);
    let user = format!("system:serviceaccount:{}:mintmark", installation.namespace);
    let requests = cluster
        .audit()
        .events_of(&user, mark)?
        .iter()
        .filter(|event| event.verb != "watch")
        .count();
    let cpu = spent(&before, &after)
        .get(&controller_name())
        .copied()
        .unwrap_or_default();
    Ok(SteadyReport {
        seconds,
        passes,
        cpu_ms_per_pass: cpu * 1000.0 / number(passes.max(1)),
        api_requests_per_pass: number(requests) / number(passes.max(1)),
        resident_mib: mib(&after),
    })
}

/// Name of the controller's process, as Linux cuts it.
fn controller_name() -> String {
    let name = controller::binary().ok().and_then(|path| path.file_name());
    name.map(|name| name.to_string_lossy().chars().take(15).collect())
        .unwrap_or_default()
}

fn spent(before: &BTreeMap<String, Usage>, after: &BTreeMap<String, Usage>) -> BTreeMap<String, f64> {
    let earlier = |name: &String| before.get(name).map_or(0.0, |usage| usage.cpu_seconds);
    after
        .iter()
        .map(|(name, usage)| (name.clone(), usage.cpu_seconds - earlier(name)))
        .filter(|(_, seconds)| *seconds > 0.0)
        .collect()
}

fn mib(used: &BTreeMap<String, Usage>) -> f64 {
    let bytes = used.get(&controller_name()).map_or(0, |usage| usage.resident_bytes);
    number(usize::try_from(bytes).unwrap_or(usize::MAX)) / (1024.0 * 1024.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn number(count: usize) -> f64 {
    count as f64
}
