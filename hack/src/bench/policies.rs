//! One ImageRepository and N ImagePolicies on it: from the first create until all are Ready, and from a new tag until all have
//! selected it.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use mintmark_api::{
    image_policy::{ImagePolicy, ImagePolicySpec},
    image_repository::ImageRepository,
};
use serde::Serialize;
use serde_json::json;

use super::{
    objects::{self, create_namespace, name},
    observe::{ColdStart, DEADLINE, Observer, metric, number},
    scans::{request, spec, start, versions},
    tag_registry::TagRegistry,
    usage::Memory,
};
use crate::{
    cluster::{Cluster, ClusterOptions},
    controller::install,
};

/// Name of the ImageRepository.
const REPOSITORY: &str = "app";
/// The metric that counts reads of stored tags.
const TAG_LIST_READS: &str = "mintmark_tag_list_reads_total";
/// Newer than all tags before it.
const NEW: &str = "2.0.0";

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Policies {
    pub objects: usize,
    /// Tags of the image.
    pub tags: usize,
}

/// What they took.
#[derive(Debug, Serialize)]
pub struct PoliciesReport {
    /// How many objects.
    pub objects: usize,
    /// Tags of the image.
    pub tags: usize,
    /// From nothing to all Ready; the repository was scanned before.
    pub cold_start: ColdStart,
    /// A new tag.
    pub update: Update,
}

/// From the request for a scan that finds a new tag until all have selected it.
#[derive(Debug, Serialize)]
pub struct Update {
    /// How long it took.
    pub seconds: f64,
    /// CPU seconds of each process.
    pub cpu_seconds: BTreeMap<String, f64>,
    /// The controller's share of them.
    pub controller_cpu_seconds: f64,
    /// Requests of the controller to the API server per policy, by verb and resource; watches left out.
    pub api_requests_per_object: BTreeMap<String, f64>,
    /// Requests to the registry.
    pub registry_requests: usize,
    /// How often the stored tags were read, by the controller's own count.
    pub tag_list_reads: f64,
    /// The controller's memory afterwards.
    pub controller_memory: Memory,
}

/// Measures both.
pub async fn run(policies: Policies) -> Result<PoliciesReport> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let installation = install(&cluster, "mintmark-system").await?;
    let client = cluster.client().await?;
    create_namespace(&client).await?;
    let observer = Observer::new(&cluster, &installation);
    let mut tags = versions(policies.tags);
    let registry = TagRegistry::start(&tags).await?;
    let controller = start(&installation).await?;
    let repository = ImageRepository::new(REPOSITORY, spec(&registry, Duration::from_hours(1))?);
    observer.cold_start(&client, vec![repository]).await?;
    let policy: ImagePolicySpec = serde_json::from_value(json!({
        "imageRepositoryRef": {"name": REPOSITORY},
        "policy": {"semver": {"range": ">=1.0.0"}},
    }))?;
    let objects = (0..policies.objects).map(|index| ImagePolicy::new(&name(index), policy.clone()));
    let cold_start = observer.cold_start(&client, objects.collect()).await?;

    tags.push(NEW.to_owned());
    registry.set(&tags)?;
    let (_, asked) = registry.asked();
    let reads = metric(&controller, TAG_LIST_READS).await?;
    let span = observer.span()?;
    let api = objects::api::<ImagePolicy>(&client);
    let selected = tokio::spawn(objects::all(api, policies.objects, has_selected));
    request(&client, REPOSITORY, "new").await?;
    tokio::time::timeout(DEADLINE, selected)
        .await
        .context("not all selected the new tag in time")???;
    let used = observer.used(&span)?;
    let requests = used.api_requests.into_iter();
    let update = Update {
        seconds: used.seconds,
        cpu_seconds: used.cpu_seconds,
        controller_cpu_seconds: used.controller_cpu_seconds,
        api_requests_per_object: requests
            .map(|(what, requests)| (what, number(requests) / number(policies.objects.max(1))))
            .collect(),
        registry_requests: registry.asked().1 - asked,
        tag_list_reads: metric(&controller, TAG_LIST_READS).await? - reads,
        controller_memory: used.controller_memory,
    };
    controller.kill()?;
    cluster.end()?;
    Ok(PoliciesReport {
        objects: policies.objects,
        tags: policies.tags,
        cold_start,
        update,
    })
}

fn has_selected(policy: &ImagePolicy) -> bool {
    let latest = policy.status.as_ref().and_then(|status| status.latest_ref.as_ref());
    latest.is_some_and(|latest| latest.tag == NEW)
}
