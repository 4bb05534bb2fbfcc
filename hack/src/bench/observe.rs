//! What a controller leaves traces of: CPU and memory of the processes, its requests to the API server by the audit log; and
//! the first thing that is measured by them, objects from their creates until all are Ready.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use kube::Client;
use serde::Serialize;

use super::{
    objects::{self, Object},
    usage::{Memory, Snapshot},
};
use crate::{
    cluster::{AuditMark, Cluster},
    controller::{Controller, Installation},
};

/// How long something may take before the bench gives up.
pub const DEADLINE: Duration = Duration::from_mins(30);

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

/// Where the traces of the controller are found.
pub struct Observer<'a> {
    cluster: &'a Cluster,
    /// The controller, to the API server.
    user: String,
}

/// What was used since it was made.
pub struct Span {
    started: Instant,
    before: Snapshot,
    mark: AuditMark,
}

/// What was used in a [`Span`].
#[derive(Debug)]
pub struct Used {
    /// How long it was.
    pub seconds: f64,
    /// CPU seconds of each process.
    pub cpu_seconds: BTreeMap<String, f64>,
    /// The controller's share of them.
    pub controller_cpu_seconds: f64,
    /// Requests of the controller to the API server by verb and resource; watches left out.
    pub api_requests: BTreeMap<String, usize>,
    /// Memory at its end.
    pub memory: BTreeMap<String, Memory>,
    /// The controller's memory at its end.
    pub controller_memory: Memory,
}

impl<'a> Observer<'a> {
    /// Looks at the controller of `installation`.
    pub fn new(cluster: &'a Cluster, installation: &Installation) -> Self {
        Self {
            cluster,
            user: format!("system:serviceaccount:{}:mintmark", installation.namespace),
        }
    }

    /// From now on.
    pub fn span(&self) -> Result<Span> {
        Ok(Span {
            before: Snapshot::take()?,
            mark: self.cluster.audit().mark()?,
            started: Instant::now(),
        })
    }

    /// Until now.
    pub fn used(&self, span: &Span) -> Result<Used> {
        let seconds = span.started.elapsed().as_secs_f64();
        let after = Snapshot::take()?;
        Ok(Used {
            seconds,
            cpu_seconds: after.cpu_since(&span.before),
            controller_cpu_seconds: after.controller_cpu_since(&span.before),
            api_requests: self.requests(span.mark)?,
            memory: after.memory(),
            controller_memory: after.controller().memory,
        })
    }

    /// Creates objects and waits until all are Ready.
    pub async fn cold_start<K: Object>(&self, client: &Client, objects: Vec<K>) -> Result<ColdStart> {
        let count = objects.len();
        let span = self.span()?;
        let ready = tokio::spawn(objects::all(objects::api::<K>(client), count, K::is_ready));
        objects::create(client, objects).await?;
        let create_seconds = span.started.elapsed().as_secs_f64();
        tokio::time::timeout(DEADLINE, ready)
            .await
            .context("not all Ready in time")???;
        let used = self.used(&span)?;
        let requests = used.api_requests.into_iter();
        Ok(ColdStart {
            seconds: used.seconds,
            create_seconds,
            cpu_seconds: used.cpu_seconds,
            api_requests_per_object: requests
                .map(|(what, requests)| (what, number(requests) / number(count.max(1))))
                .collect(),
            memory: used.memory,
            controller_memory: used.controller_memory,
            controller_cpu_seconds: used.controller_cpu_seconds,
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

/// The sum of a metric of the controller over all labels.
pub async fn metric(controller: &Controller, name: &str) -> Result<f64> {
    let shown = reqwest::get(controller.ports().metrics_url()).await?.text().await?;
    let of_name = shown.lines().filter(|line| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    Ok(of_name
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum())
}

/// A count to divide by or to be divided.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
pub fn number(count: usize) -> f64 {
    count as f64
}
