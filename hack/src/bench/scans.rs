//! Scans of tag lists: N ImageRepositories of one image with M tags, from the first create until all are Ready and then by
//! interval; and one ImageRepository of very many tags, whose scan has a peak of memory.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use mintmark_api::image_repository::{ImageRepository, ImageRepositorySpec};
use serde::Serialize;
use serde_json::json;

use super::{
    objects::{self, create_namespace, name},
    observe::{ColdStart, DEADLINE, Observer, metric, number},
    tag_registry::TagRegistry,
    usage::{self, Memory},
};
use crate::{
    cluster::{Cluster, ClusterOptions},
    controller::{Controller, Installation, Ports, install},
};

/// The annotation that asks for a pass, and so for a scan.
const REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";

/// The metric with the durations of passes, by object; there is but one.
const PASS_SECONDS: &str = "gotk_reconcile_duration_seconds_sum";

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct Scans {
    pub objects: usize,
    /// Tags of their image.
    pub tags: usize,
    /// Tags of the image with many.
    pub many: usize,
    pub interval: Duration,
    /// How long scans by interval are observed.
    pub steady: Duration,
}

/// What they took.
#[derive(Debug, Serialize)]
pub struct ScansReport {
    /// How many objects.
    pub objects: usize,
    /// Tags of their image.
    pub tags: usize,
    /// From nothing to all Ready.
    pub cold_start: ColdStart,
    /// By interval.
    pub steady: SteadyScans,
    /// The image with many tags.
    pub large: LargeScan,
}

/// Scans that find the same tags again.
#[derive(Debug, Serialize)]
pub struct SteadyScans {
    /// Seconds observed.
    pub seconds: f64,
    /// Scans seen by the registry.
    pub scans: usize,
    /// CPU milliseconds of the controller per scan.
    pub controller_cpu_ms_per_scan: f64,
    /// Requests of the controller to the API server per scan, watches left out.
    pub api_requests_per_scan: f64,
    /// Requests of the controller to the registry per scan.
    pub registry_requests_per_scan: f64,
    /// The controller's memory at the end.
    pub controller_memory: Memory,
}

/// One object with very many tags.
#[derive(Debug, Serialize)]
pub struct LargeScan {
    /// How many.
    pub tags: usize,
    /// Bytes of the tags themselves.
    pub tag_bytes: usize,
    /// The controller's memory before.
    pub idle: Memory,
    /// The first scan, whose tags are stored.
    pub first: OneScan,
    /// The second, which finds the same.
    pub again: OneScan,
}

/// The one pass of an object that scans.
#[derive(Debug, Serialize)]
pub struct OneScan {
    /// Seconds of the pass with its status write, by the controller's own measure: the API server tells of a new object, or
    /// of a request, as much as two seconds later.
    pub seconds: f64,
    /// CPU seconds of the controller.
    pub controller_cpu_seconds: f64,
    /// The controller's memory afterwards; the peak is that of this scan.
    pub controller_memory: Memory,
}

/// Measures both, each with a controller of its own.
pub async fn run(scans: Scans) -> Result<ScansReport> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let installation = install(&cluster, "mintmark-system").await?;
    let client = cluster.client().await?;
    create_namespace(&client).await?;
    let observer = Observer::new(&cluster, &installation);
    let large = large(&observer, &installation, &client, scans.many).await?;

    let registry = TagRegistry::start(&versions(scans.tags)).await?;
    let controller = start(&installation).await?;
    let spec = spec(&registry, scans.interval)?;
    let objects = (0..scans.objects).map(|index| ImageRepository::new(&name(index), spec.clone()));
    let cold_start = observer.cold_start(&client, objects.collect()).await?;
    // The last Events of the cold start are still on their way.
    tokio::time::sleep(scans.interval).await;
    let steady = steady(&observer, &registry, scans.steady).await?;
    controller.kill()?;
    cluster.end()?;
    Ok(ScansReport {
        objects: scans.objects,
        tags: scans.tags,
        cold_start,
        steady,
        large,
    })
}

/// A controller that says nothing, once it is ready.
pub async fn start(installation: &Installation) -> Result<Controller> {
    let controller = Controller::start(installation, Ports::free()?, &["--log-level=error"])?;
    controller.wait_ready().await?;
    Ok(controller)
}

/// The spec of an object that looks at the registry's image.
pub fn spec(registry: &TagRegistry, interval: Duration) -> Result<ImageRepositorySpec> {
    Ok(serde_json::from_value(json!({
        "image": registry.image(),
        "interval": format!("{}s", interval.as_secs()),
        "insecure": true,
    }))?)
}

/// Tags as releases have them: `1.<minor>.<patch>`, ten patches each.
pub fn versions(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("1.{}.{}", number / 10, number % 10))
        .collect()
}

/// Tags as builds have them: branch, commit and time.
fn builds(count: usize) -> Vec<String> {
    let commit = |number: usize| {
        u64::try_from(number)
            .unwrap_or_default()
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            >> 36
    };
    (0..count)
        .map(|number| format!("main-{:07x}-{}", commit(number), 1_700_000_000 + number * 60))
        .collect()
}

/// Asks for a pass over the object with this name.
pub async fn request(client: &Client, name: &str, token: &str) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {REQUESTED_AT: token}}});
    objects::api::<ImageRepository>(client)
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

/// Lets scans come by interval for `span`: time itself is what is measured.
async fn steady(observer: &Observer<'_>, registry: &TagRegistry, span: Duration) -> Result<SteadyScans> {
    let (lists, requests) = registry.asked();
    let begun = observer.span()?;
    tokio::time::sleep(span).await;
    let used = observer.used(&begun)?;
    let (lists_after, requests_after) = registry.asked();
    let scans = lists_after - lists;
    let per_scan = |value: f64| value / number(scans.max(1));
    Ok(SteadyScans {
        seconds: used.seconds,
        scans,
        controller_cpu_ms_per_scan: per_scan(used.controller_cpu_seconds * 1000.0),
        api_requests_per_scan: per_scan(number(used.api_requests.values().sum())),
        registry_requests_per_scan: per_scan(number(requests_after - requests)),
        controller_memory: used.controller_memory,
    })
}

async fn large(
    observer: &Observer<'_>,
    installation: &Installation,
    client: &Client,
    count: usize,
) -> Result<LargeScan> {
    const NAME: &str = "many";
    let tags = builds(count);
    let registry = TagRegistry::start(&tags).await?;
    let controller = start(installation).await?;
    let object = ImageRepository::new(NAME, spec(&registry, Duration::from_hours(1))?);
    let idle = usage::Snapshot::take()?.controller().memory;
    let create = async || objects::create(client, vec![object.clone()]).await;
    let first = one(observer, &controller, client, create, objects::Object::is_ready).await?;
    let ask = async || request(client, NAME, "again").await;
    let is_handled = |object: &ImageRepository| {
        let status = object.status.as_ref();
        status.and_then(|it| it.last_handled_reconcile_at.as_deref()) == Some("again")
    };
    let again = one(observer, &controller, client, ask, is_handled).await?;
    objects::api::<ImageRepository>(client)
        .delete(NAME, &kube::api::DeleteParams::default())
        .await?;
    controller.kill()?;
    Ok(LargeScan {
        tags: count,
        tag_bytes: tags.iter().map(String::len).sum(),
        idle,
        first,
        again,
    })
}

/// Does `begin` and waits until the only object is as wanted.
async fn one(
    observer: &Observer<'_>,
    controller: &Controller,
    client: &Client,
    begin: impl AsyncFnOnce() -> Result<()>,
    is_wanted: impl Fn(&ImageRepository) -> bool + Send + 'static,
) -> Result<OneScan> {
    usage::forget_controller_peak()?;
    let before = metric(controller, PASS_SECONDS).await?;
    let span = observer.span()?;
    let wanted = tokio::spawn(objects::all(objects::api::<ImageRepository>(client), 1, is_wanted));
    begin().await?;
    tokio::time::timeout(DEADLINE, wanted)
        .await
        .context("the scan did not end in time")???;
    let used = observer.used(&span)?;
    Ok(OneScan {
        seconds: metric(controller, PASS_SECONDS).await? - before,
        controller_cpu_seconds: used.controller_cpu_seconds,
        controller_memory: used.controller_memory,
    })
}
