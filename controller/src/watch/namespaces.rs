//! The labels of all namespaces, which say which image policies may use a repository of another namespace. Metadata is read
//! alone. Needs list and watch on namespaces.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt, core::PartialObjectMeta, runtime::watcher::Event};
use tokio::sync::watch;

use super::watch_events;

/// Labels by name.
type Labels = BTreeMap<String, String>;

/// The namespaces as the API server last told them.
#[derive(Debug)]
pub struct Namespaces {
    labels: RwLock<HashMap<Box<str>, Arc<Labels>>>,
    synced: watch::Sender<bool>,
}

impl Default for Namespaces {
    fn default() -> Self {
        Self {
            labels: RwLock::default(),
            synced: watch::Sender::new(false),
        }
    }
}

impl Namespaces {
    /// Waits until all of them were read once.
    pub async fn synced(&self) {
        // The sender is here, so that the wait does not fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// The labels of a namespace, if it exists.
    pub fn labels(&self, name: &str) -> Option<Arc<Labels>> {
        let labels = self.labels.read().unwrap_or_else(PoisonError::into_inner);
        labels.get(name).cloned()
    }

    /// Returns whether that is news.
    fn set(&self, name: &str, new: Option<Labels>) -> bool {
        let mut labels = self.labels.write().unwrap_or_else(PoisonError::into_inner);
        match new {
            None => labels.remove(name).is_some(),
            Some(new) if labels.get(name).is_some_and(|held| **held == new) => false,
            Some(new) => {
                labels.insert(name.into(), Arc::new(new));
                true
            }
        }
    }

    /// Takes in an event. Returns the namespaces whose labels are other ones than before. `listed` are those of the list
    /// under way.
    fn handle(&self, event: Event<PartialObjectMeta<Namespace>>, listed: &mut HashSet<String>) -> Vec<String> {
        let changed = |namespace: PartialObjectMeta<Namespace>| {
            let name = namespace.name_any();
            let is_news = self.set(&name, Some(namespace.metadata.labels.unwrap_or_default()));
            is_news.then_some(name).into_iter().collect()
        };
        match event {
            Event::Init => {
                listed.clear();
                Vec::new()
            }
            Event::InitApply(namespace) => {
                listed.insert(namespace.name_any());
                changed(namespace)
            }
            Event::InitDone => {
                let gone = self.names().into_iter().filter(|name| !listed.contains(name));
                let gone = gone.filter(|name| self.set(name, None)).collect();
                self.synced.send_replace(true);
                gone
            }
            Event::Apply(namespace) => changed(namespace),
            Event::Delete(namespace) => {
                let name = namespace.name_any();
                self.set(&name, None).then_some(name).into_iter().collect()
            }
        }
    }

    fn names(&self) -> Vec<String> {
        let labels = self.labels.read().unwrap_or_else(PoisonError::into_inner);
        labels.keys().map(ToString::to_string).collect()
    }

    /// Watches for ever; `on_change` is told of every namespace whose labels changed.
    pub async fn watch(&self, client: Client, on_change: impl Fn(&str)) {
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(client);
        let mut events = std::pin::pin!(watch_events(api, kube::runtime::watcher::Config::default()));
        let mut listed = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    for name in self.handle(event, &mut listed) {
                        on_change(&name);
                    }
                }
                Err(error) => tracing::error!(%error, "watch of namespaces interrupted; retrying"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn namespace(name: &str, team: &str) -> PartialObjectMeta<Namespace> {
        serde_json::from_value(json!({"metadata": {"name": name, "labels": {"team": team}}})).unwrap()
    }

    #[tokio::test]
    async fn only_other_labels_are_news() {
        let namespaces = Namespaces::default();
        let mut listed = HashSet::new();
        let mut handle = |event| namespaces.handle(event, &mut listed);
        handle(Event::Init);
        assert_eq!(handle(Event::InitApply(namespace("a", "x"))), ["a"]);
        assert_eq!(handle(Event::InitApply(namespace("b", "x"))), ["b"]);
        assert!(handle(Event::InitDone).is_empty());
        namespaces.synced().await;
        assert!(handle(Event::Apply(namespace("a", "x"))).is_empty());
        assert_eq!(handle(Event::Apply(namespace("a", "y"))), ["a"]);
        assert_eq!(
            namespaces.labels("a").unwrap().get("team").map(String::as_str),
            Some("y")
        );
        handle(Event::Init);
        assert!(handle(Event::InitApply(namespace("a", "y"))).is_empty());
        assert_eq!(handle(Event::InitDone), ["b"], "gone while nobody watched");
        assert_eq!(handle(Event::Delete(namespace("a", "y"))), ["a"]);
        assert_eq!(namespaces.labels("a"), None);
    }
}
