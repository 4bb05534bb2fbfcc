//! Follows one Secret by name: every content it ever has is handed on, and that it does not exist. Needs get, list and watch
//! on that one Secret. While the API server is away nothing is handed on; the watch goes on by itself afterwards.

use std::collections::BTreeMap;

use futures::StreamExt;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client, runtime::watcher};
use zeroize::Zeroize;

use super::watch_events;

/// The data of a Secret.
pub type SecretData = BTreeMap<String, ByteString>;

/// Calls `on` with the data of Secret `name`, at first and after every change; `None` when there is no such Secret. The
/// data is wiped when `on` returns. Never returns.
pub async fn follow_secret(client: Client, namespace: &str, name: &str, mut on: impl FnMut(Option<&SecretData>)) {
    let api: Api<Secret> = Api::namespaced(client, namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut events = std::pin::pin!(watch_events(api, config));
    let mut seen = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => seen = false,
            Ok(watcher::Event::InitApply(secret) | watcher::Event::Apply(secret)) => {
                seen = true;
                let mut data = secret.data.unwrap_or_default();
                on(Some(&data));
                for value in data.values_mut() {
                    value.0.zeroize();
                }
            }
            Ok(watcher::Event::InitDone) if seen => {}
            Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => on(None),
            Err(error) => tracing::error!(secret = name, %error, "watch interrupted; retrying"),
        }
    }
}
