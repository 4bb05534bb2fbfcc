//! Follows the objects of a namespace on a watch: which of them are ready with which revision, and every failure of one
//! that had been ready.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use kube::{
    Api, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use mintmark_api::{artifact::Artifact, oci_repository::OciRepository};
use tokio::task::JoinHandle;

use crate::env::condition;

/// What the watch has shown so far.
#[derive(Debug, Default)]
pub struct Shown {
    /// Objects whose Ready is True, with the revision of their artifact.
    pub ready: BTreeMap<String, String>,
    /// The artifact in each object's status, whether it is ready or not.
    pub artifacts: BTreeMap<String, Artifact>,
    /// Every time that an object was seen with Ready=False after it had been ready once: name, reason and message.
    pub failed: Vec<String>,
    once: BTreeSet<String>,
}

/// The watch. It ends when this is dropped; while the API server is away it tries again.
#[derive(Debug)]
pub struct Observer {
    shown: Arc<Mutex<Shown>>,
    watching: JoinHandle<()>,
}

impl Observer {
    /// Begins to watch.
    pub fn new(objects: Api<OciRepository>) -> Self {
        let shown = Arc::new(Mutex::new(Shown::default()));
        let written = shown.clone();
        let watching = tokio::spawn(async move {
            let objects = watcher(objects, watcher::Config::default());
            let mut objects = std::pin::pin!(objects.default_backoff().touched_objects());
            while let Some(object) = objects.next().await {
                if let Ok(object) = object {
                    lock(&written).add(&object);
                }
            }
        });
        Self { shown, watching }
    }

    /// What it has shown so far.
    pub fn shown(&self) -> MutexGuard<'_, Shown> {
        lock(&self.shown)
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Shown {
    fn add(&mut self, object: &OciRepository) {
        let name = object.name_any();
        let artifact = object.status.as_ref().and_then(|status| status.artifact.clone());
        match &artifact {
            Some(artifact) => drop(self.artifacts.insert(name.clone(), artifact.clone())),
            None => drop(self.artifacts.remove(&name)),
        }
        match condition(object, "Ready") {
            Some(ready) if ready.status == "True" => {
                let revision = artifact.map(|artifact| artifact.revision).unwrap_or_default();
                self.once.insert(name.clone());
                self.ready.insert(name, revision);
            }
            other => {
                self.ready.remove(&name);
                // Unknown tells of a pull that takes long.
                let failure = other.filter(|ready| ready.status == "False" && self.once.contains(&name));
                self.failed
                    .extend(failure.map(|ready| format!("{name}: {}: {}", ready.reason, ready.message)));
            }
        }
    }
}

fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}
