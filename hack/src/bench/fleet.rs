//! Cold start and steady state of a fleet: N OCIRepositories of one 4 KiB artifact, from the first create until all are
//! Ready, then passes by interval.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use mintmark_api::oci_repository::OciRepository;
use serde::Serialize;

use super::{
    objects::{create_namespace, name},
    observe::{ColdStart, Observer, number},
    rig::{Presents, Rig},
    usage::Memory,
};
use crate::{
    cluster::{Cluster, ClusterOptions},
    controller::install,
    registry::RegistryServer,
};

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
    let observer = Observer::new(&cluster, &installation);
    let spec = rig.spec(fleet.interval)?;
    let objects = (0..fleet.objects).map(|index| OciRepository::new(&name(index), spec.clone()));
    let cold_start = observer.cold_start(&client, objects.collect()).await?;
    let steady = match fleet.steady {
        None => None,
        Some(span) => {
            // The last Events of the cold start are still on their way.
            tokio::time::sleep(fleet.interval).await;
            Some(steady(&observer, &rig.registry, span).await?)
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

/// Lets passes come by interval for `span`. This is the one place where time itself is what is measured.
async fn steady(observer: &Observer<'_>, registry: &RegistryServer, span: Duration) -> Result<Steady> {
    let mut seen = registry.access_mark()?;
    let begun = observer.span()?;
    tokio::time::sleep(span).await;
    let used = observer.used(&begun)?;
    let asked = registry.access_log_since(&mut seen)?;
    let heads = asked
        .iter()
        .filter(|entry| entry.method == "HEAD" && entry.status == 200);
    let passes = heads.count();
    let per_pass = |value: f64| value / number(passes.max(1));
    let api_requests: usize = used.api_requests.values().sum();
    let cpu = used.cpu_seconds.into_iter();
    Ok(Steady {
        seconds: used.seconds,
        passes,
        controller_cpu_ms_per_pass: per_pass(used.controller_cpu_seconds * 1000.0),
        cpu_ms_per_pass: cpu.map(|(name, seconds)| (name, per_pass(seconds * 1000.0))).collect(),
        api_requests_per_pass: per_pass(number(api_requests)),
        registry_requests_per_pass: per_pass(number(asked.len())),
        memory: used.memory,
        controller_memory: used.controller_memory,
    })
}
