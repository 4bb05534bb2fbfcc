//! `--publish-configmap`: a copy of the documents in a `ConfigMap`, for those who host them elsewhere. Written by server-side
//! apply, by whoever holds the lease of the key ring, at every change and when the lease is taken; never read back, so
//! what somebody else changes in it is repaired with the next change only. Needs create and patch on that one `ConfigMap`.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use mintmark_issuer::Documents;
use serde_json::{Map, Value, json};

use crate::{
    issuing::DocumentsReceiver,
    runtime::{api_server::timely, lease::Leadership},
};

/// First and longest delay after a failed write.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

/// The field manager of the copy.
const MANAGER: &str = "mintmark";

/// Keeps one `ConfigMap` like the documents.
pub struct ConfigMapCopy {
    /// The controller's namespace.
    pub namespace: String,
    /// `--publish-configmap`.
    pub name: String,
    /// Who writes: the holder of the key ring's lease.
    pub leadership: Leadership,
    /// What is published.
    pub documents: DocumentsReceiver,
}

impl ConfigMapCopy {
    /// Writes every change, for ever.
    pub async fn run(mut self, client: Client) {
        let api = Api::namespaced(client, &self.namespace);
        let mut states = self.leadership.subscribe();
        let mut delay = RETRY.0;
        loop {
            let current = self.documents.borrow_and_update().clone();
            states.mark_unchanged();
            let failed = match current {
                Some(documents) if self.leadership.is_leading() => !self.write(&api, &documents).await,
                _ => false,
            };
            let again = async {
                if failed {
                    tokio::time::sleep(delay).await;
                } else {
                    std::future::pending::<()>().await;
                }
            };
            let ended = tokio::select! {
                changed = self.documents.changed() => changed.is_err(),
                changed = states.changed() => changed.is_err(),
                () = again => false,
            };
            if ended {
                std::future::pending::<()>().await;
            }
            delay = if failed { (delay * 2).min(RETRY.1) } else { RETRY.0 };
        }
    }

    /// Whether it was written.
    async fn write(&self, api: &Api<ConfigMap>, documents: &Arc<Documents>) -> bool {
        let parameters = PatchParams::apply(MANAGER).force();
        let object = Patch::Apply(config_map(&self.name, documents));
        match timely(api.patch(&self.name, &parameters, &object)).await {
            Ok(_) => {
                tracing::info!(name = self.name, "documents copied into the ConfigMap");
                true
            }
            Err(error) => {
                tracing::error!(name = self.name, %error, "documents not copied into the ConfigMap; retrying");
                false
            }
        }
    }
}

/// The `ConfigMap` with one key per document. All of them are UTF-8.
fn config_map(name: &str, documents: &Documents) -> Value {
    let data: Map<String, Value> = documents
        .named()
        .map(|(key, document)| (key.to_owned(), String::from_utf8_lossy(&document.body).into()))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": name, "labels": { "app.kubernetes.io/part-of": "mintmark" } },
        "data": data,
    })
}
