//! Memory of a large store: objects that have been Ready for long, as another life of the controller left them, are put into
//! etcd directly while the API server is away, which creates and status writes would take minutes for. The controller lists
//! them from the real API server. They are suspended, so that only the store, the queue and one short pass each count.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::{Api, api::ListParams};
use mintmark_api::oci_repository::OciRepository;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    objects::{TENANT, create_namespace, name},
    usage::{Memory, Snapshot},
};
use crate::{
    cluster::{Cluster, ClusterOptions, StoredObject},
    controller::{Controller, Ports, install},
};

/// Time between looks, and what a process at rest uses at most of it.
const LOOK: Duration = Duration::from_secs(2);
const AT_REST_SECONDS: f64 = 0.02;
/// How long it may take to come to rest.
const DEADLINE: Duration = Duration::from_mins(10);

/// What the store took.
#[derive(Debug, Serialize)]
pub struct StoreReport {
    /// How many objects.
    pub objects: usize,
    /// Bytes of JSON per object in etcd.
    pub object_bytes: usize,
    /// Seconds from the start of the process until it is ready: all are listed.
    pub ready_seconds: f64,
    /// CPU seconds of the controller until it came to rest.
    pub controller_cpu_seconds: f64,
    /// Its memory then.
    pub controller_memory: Memory,
}

/// Measures a controller that finds `objects` objects.
pub async fn run(objects: usize) -> Result<StoreReport> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let installation = install(&cluster, "mintmark-system").await?;
    let client = cluster.client().await?;
    create_namespace(&client).await?;
    let stored: Vec<StoredObject> = (0..objects).map(stored).collect::<Result<_>>()?;
    let object_bytes = stored.iter().map(|object| object.value.len()).sum::<usize>() / objects.max(1);
    cluster.put_stored(&stored).await?;
    drop(stored);
    let listed = Api::<OciRepository>::namespaced(client, TENANT)
        .list(&ListParams::default().limit(1))
        .await?;
    let more = listed.metadata.remaining_item_count.unwrap_or_default();
    if usize::try_from(more)? + listed.items.len() != objects {
        bail!("the API server shows another number of objects than were stored");
    }

    let started = Instant::now();
    let controller = Controller::start(&installation, Ports::free()?, &["--log-level=error"])?;
    wait_ready(&controller).await?;
    let ready_seconds = started.elapsed().as_secs_f64();
    let at_rest = tokio::time::timeout(DEADLINE, at_rest())
        .await
        .context("the controller does not come to rest")??;
    controller.kill()?;
    cluster.end()?;
    let used = at_rest.controller();
    Ok(StoreReport {
        objects,
        object_bytes,
        ready_seconds,
        controller_cpu_seconds: used.cpu_seconds,
        controller_memory: used.memory,
    })
}

/// Waits for a controller that has much to list.
async fn wait_ready(controller: &Controller) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match controller.wait_ready().await {
            Err(error) if controller.ended()?.is_some() || Instant::now() >= deadline => return Err(error),
            Err(_) => {}
            Ok(()) => return Ok(()),
        }
    }
}

/// Waits until the controller has nothing left to do.
async fn at_rest() -> Result<Snapshot> {
    let mut before = Snapshot::take()?;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = Snapshot::take()?;
        if now.controller_cpu_since(&before) <= AT_REST_SECONDS {
            return Ok(now);
        }
        before = now;
    }
}

/// An object as etcd holds it after some time in use: applied by kubectl, its status written by us.
fn stored(index: usize) -> Result<StoredObject> {
    let name = name(index);
    let digest = format!("sha256:{index:064x}");
    let spec = json!({
        "interval": "10m0s", "url": format!("oci://registry.example/tenant/{name}"),
        "ref": {"tag": "v1"}, "suspend": true, "timeout": "60s",
    });
    let applied = json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository",
        "metadata": {"name": name, "namespace": TENANT}, "spec": spec,
    });
    let object = json!({
        "apiVersion": "source.toolkit.fluxcd.io/v1",
        "kind": "OCIRepository",
        "metadata": {
            "name": name,
            "namespace": TENANT,
            "uid": format!("00000000-0000-4000-8000-{index:012x}"),
            "creationTimestamp": "2026-11-01T00:00:00Z",
            "generation": 1,
            "labels": {
                "kustomize.toolkit.fluxcd.io/name": "tenants",
                "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
            },
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": applied.to_string()},
            "managedFields": managed_fields(),
        },
        "spec": spec,
        "status": status(&name, &digest),
    });
    Ok(StoredObject {
        key: format!("source.toolkit.fluxcd.io/ocirepositories/{TENANT}/{name}"),
        value: serde_json::to_vec(&object)?,
    })
}

fn status(name: &str, digest: &str) -> Value {
    let file = format!("ocirepository/{TENANT}/{name}/{digest}.tar.gz");
    let host = "http://mintmark.mintmark-system.svc.cluster.local.";
    let message = format!("stored artifact for digest 'v1@{digest}'");
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "Succeeded", "message": message, "observedGeneration": 1,
            "lastTransitionTime": "2026-11-01T00:00:01Z"})
    };
    json!({
        "observedGeneration": 1,
        "conditions": [condition("Ready"), condition("ArtifactInStorage")],
        "url": format!("{host}/ocirepository/{TENANT}/{name}/latest.tar.gz"),
        "artifact": {
            "digest": digest, "lastUpdateTime": "2026-11-01T00:00:01Z", "path": file,
            "revision": format!("v1@{digest}"), "size": 4096, "url": format!("{host}/{file}"),
            "metadata": {
                "org.opencontainers.image.created": "2026-11-01T00:00:00Z",
                "org.opencontainers.image.revision": format!("main@sha1:{}", "0".repeat(40)),
                "org.opencontainers.image.source": "https://git.example/tenant/app.git",
            },
        },
    })
}

fn managed_fields() -> Value {
    let entry = |manager: &str, subresource: &str, fields: Value| {
        json!({"manager": manager, "operation": "Update", "apiVersion": "source.toolkit.fluxcd.io/v1",
            "time": "2026-11-01T00:00:01Z", "fieldsType": "FieldsV1", "subresource": subresource, "fieldsV1": fields})
    };
    let leaf = json!({});
    let condition = json!({".": leaf, "f:lastTransitionTime": leaf, "f:message": leaf, "f:observedGeneration": leaf,
        "f:reason": leaf, "f:status": leaf, "f:type": leaf});
    json!([
        entry(
            "kubectl-client-side-apply",
            "",
            json!({
            "f:metadata": {"f:annotations": {".": leaf, "f:kubectl.kubernetes.io/last-applied-configuration": leaf},
                "f:labels": {".": leaf, "f:kustomize.toolkit.fluxcd.io/name": leaf}},
            "f:spec": {".": leaf, "f:interval": leaf, "f:ref": {".": leaf, "f:tag": leaf}, "f:suspend": leaf,
                "f:timeout": leaf, "f:url": leaf}})
        ),
        entry(
            "mintmark",
            "status",
            json!({
            "f:status": {".": leaf,
                "f:artifact": {".": leaf, "f:digest": leaf, "f:lastUpdateTime": leaf, "f:metadata": leaf,
                    "f:path": leaf, "f:revision": leaf, "f:size": leaf, "f:url": leaf},
                "f:conditions": {".": leaf, "k:{\"type\":\"Ready\"}": condition,
                    "k:{\"type\":\"ArtifactInStorage\"}": condition},
                "f:observedGeneration": leaf, "f:url": leaf}})
        ),
    ])
}
