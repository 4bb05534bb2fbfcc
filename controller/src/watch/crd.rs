//! The guard against a CRD that lacks our fields. Flux's own CRD of the same name prunes `spec.credential`, and a secured
//! object then looks anonymous at the same generation: while the served schema lacks our fields nothing of that kind is
//! reconciled. Needs get, list and watch on that one `CustomResourceDefinition`.

use std::time::Duration;

use futures::StreamExt;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    core::GroupVersionKind,
    runtime::watcher,
};
use serde_json::Value;
use tokio::{sync::watch, time::Instant};

use super::{Kind, watch_events};

/// For how long a definition that became complete again is not trusted: each API server goes on pruning objects with the
/// former one until it has seen the new one itself.
const SETTLE: Duration = Duration::from_secs(5);

/// What is known of a kind's CRD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CrdState {
    /// Not read yet, or not installed.
    Absent,
    /// Served without these fields of `spec`.
    Lacks(Vec<&'static str>),
    /// Served with all of them.
    Complete,
}

/// Tells whether a kind may be reconciled now.
#[derive(Debug, Clone)]
pub struct CrdGuard(watch::Receiver<CrdState>);

impl CrdGuard {
    /// True while the served schema has all our fields.
    pub fn is_complete(&self) -> bool {
        *self.0.borrow() == CrdState::Complete
    }

    /// Waits until the schema is complete.
    pub async fn complete(&self) {
        let mut state = self.0.clone();
        // A closed channel means the watch task ended, which ends the process.
        if state.wait_for(|state| *state == CrdState::Complete).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the schema is not complete.
    pub async fn incomplete(&self) {
        let mut state = self.0.clone();
        if state.wait_for(|state| *state != CrdState::Complete).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Every change of the state, for gates and metrics.
    pub fn subscribe(&self) -> watch::Receiver<CrdState> {
        self.0.clone()
    }
}

/// Watches one CRD by name.
pub struct CrdWatch {
    name: String,
    version: String,
    kind: &'static str,
    required: &'static [&'static str],
    state: watch::Sender<CrdState>,
}

impl CrdWatch {
    /// The watch on the CRD of kind `K`, and the guard it feeds.
    pub fn new<K: Kind>() -> (Self, CrdGuard) {
        let (state, receiver) = watch::channel(CrdState::Absent);
        let name = format!("{}.{}", K::PLURAL, K::group(&()));
        (
            Self {
                name,
                version: K::version(&()).into_owned(),
                kind: K::KIND,
                required: K::REQUIRED_FIELDS,
                state,
            },
            CrdGuard(receiver),
        )
    }

    /// Watches for ever.
    pub async fn run(self, client: Client) {
        let gvk = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let api: Api<DynamicObject> = Api::all_with(client, &ApiResource::from_gvk(&gvk));
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut events = std::pin::pin!(watch_events(api, config));
        let mut seen = false;
        let mut settled = None;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                () = until(settled) => {
                    settled = None;
                    self.set(&CrdState::Complete);
                    continue;
                }
            };
            let state = match event {
                None => return,
                Some(Ok(watcher::Event::Init)) => {
                    seen = false;
                    continue;
                }
                Some(Ok(watcher::Event::InitApply(crd) | watcher::Event::Apply(crd))) => {
                    seen = true;
                    schema_state(&crd.data, &self.version, self.required)
                }
                Some(Ok(watcher::Event::InitDone)) if seen => continue,
                Some(Ok(watcher::Event::InitDone | watcher::Event::Delete(_))) => CrdState::Absent,
                Some(Err(error)) => {
                    tracing::error!(crd = self.name, %error, "watch interrupted; retrying");
                    continue;
                }
            };
            if state != CrdState::Complete {
                settled = None;
            } else if matches!(*self.state.borrow(), CrdState::Lacks(_)) {
                settled.get_or_insert_with(|| Instant::now() + SETTLE);
                continue;
            }
            self.set(&state);
        }
    }

    fn set(&self, state: &CrdState) {
        let changed = self.state.send_if_modified(|held| {
            let changed = *held != *state;
            held.clone_from(state);
            changed
        });
        match state {
            _ if !changed => {}
            CrdState::Complete => tracing::info!(crd = self.name, "CRD is complete"),
            CrdState::Absent => {
                tracing::error!(crd = self.name, "CRD is not installed; no {} is reconciled", self.kind);
            }
            CrdState::Lacks(fields) => tracing::error!(
                crd = self.name,
                "CRD lacks spec.{}: another CRD was applied over ours. No {} is reconciled until ours is back",
                fields.join(", spec."),
                self.kind
            ),
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Whether a definition of kind `K` serves our fields.
pub fn definition_state<K: Kind>(crd: &Value) -> CrdState {
    schema_state(crd, &K::version(&()), K::REQUIRED_FIELDS)
}

/// Reads `spec.versions[name=version].schema` of a CRD.
fn schema_state(crd: &Value, version: &str, required: &[&'static str]) -> CrdState {
    let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
    let served = versions.into_iter().flatten().find(|candidate| {
        candidate.get("name").and_then(Value::as_str) == Some(version)
            && candidate.get("served").and_then(Value::as_bool) == Some(true)
    });
    let Some(served) = served else { return CrdState::Absent };
    let properties = served.pointer("/schema/openAPIV3Schema/properties/spec/properties");
    let lacks: Vec<_> = required
        .iter()
        .copied()
        .filter(|field| properties.and_then(|properties| properties.get(*field)).is_none())
        .collect();
    if lacks.is_empty() {
        CrdState::Complete
    } else {
        CrdState::Lacks(lacks)
    }
}

/// Reads the CRD of kind `K` now, past any watch: for a decision that must not rest on an older schema.
pub async fn read_schema<K: Kind>(client: &Client) -> kube::Result<CrdState> {
    let gvk = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    let crd = api.get_opt(&format!("{}.{}", K::PLURAL, K::group(&()))).await?;
    Ok(crd.map_or(CrdState::Absent, |crd| definition_state::<K>(&crd.data)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const REQUIRED: [&str; 2] = ["credential", "audiences"];

    fn crd(properties: &Value) -> Value {
        json!({"spec": {"versions": [{"name": "v1", "served": true, "schema": {"openAPIV3Schema": {"properties":
            {"spec": {"properties": properties}}}}}]}})
    }

    #[test]
    fn names_the_fields_that_are_missing() {
        assert_eq!(
            schema_state(&crd(&json!({"credential": {}, "audiences": {}})), "v1", &REQUIRED),
            CrdState::Complete
        );
        assert_eq!(
            schema_state(&crd(&json!({"credential": {}})), "v1", &REQUIRED),
            CrdState::Lacks(vec!["audiences"])
        );
        assert_eq!(
            schema_state(&crd(&json!({})), "v1", &REQUIRED),
            CrdState::Lacks(vec!["credential", "audiences"])
        );
        assert_eq!(schema_state(&crd(&json!({})), "v2", &REQUIRED), CrdState::Absent);
    }
}
