//! The watches on the two Secrets of the key ring: they tell that one changed, never what it holds, so that no private key
//! stands in a watch's cache; whoever is told reads both. Need get, list and watch on each Secret by name.

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt, core::PartialObjectMeta, runtime::watcher};
use tokio::sync::mpsc;

use super::Which;
use crate::watch::watch_events;

/// A Secret of the ring is at another version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which one.
    pub which: Which,
    /// Its version; `None` when it is gone.
    pub version: Option<String>,
}

/// Watches one of the two Secrets.
pub struct RingWatch {
    /// The controller's namespace.
    pub namespace: String,
    /// Which Secret.
    pub which: Which,
    /// Who is told.
    pub changes: mpsc::Sender<Change>,
}

impl RingWatch {
    /// Watches for ever; ends when nobody listens any more.
    pub async fn run(self, client: Client) {
        let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(client, &self.namespace);
        let name = self.which.name();
        let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut events = std::pin::pin!(watch_events(api, config));
        let mut seen = false;
        while let Some(event) = events.next().await {
            let version = match event {
                Ok(watcher::Event::Init) => {
                    seen = false;
                    continue;
                }
                Ok(watcher::Event::InitApply(secret) | watcher::Event::Apply(secret)) => {
                    seen = true;
                    secret.resource_version()
                }
                Ok(watcher::Event::InitDone) if seen => continue,
                Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => None,
                Err(error) => {
                    tracing::error!(secret = name, %error, "watch interrupted; retrying");
                    continue;
                }
            };
            let which = self.which;
            if self.changes.send(Change { which, version }).await.is_err() {
                return;
            }
        }
    }
}
