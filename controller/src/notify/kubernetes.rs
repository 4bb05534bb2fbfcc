//! Writes core/v1 Events in the form that client-go's recorder, and so Flux, gives them: `count`, `firstTimestamp` and
//! `lastTimestamp`, no `eventTime` (with it, the API server refuses messages over 1,024 bytes).

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::time::sleep;

use super::{
    COMPONENT,
    event::NewEvent,
    series::{SeriesTable, Write},
};

/// Namespaces served at a time.
pub(super) const WORKERS: usize = 8;

/// Pauses between the attempts for one event. After that the API server is away for longer than an event is worth
/// waiting for.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(10)];

pub(super) struct Writer {
    client: Client,
    instance: Arc<str>,
    series: Mutex<SeriesTable>,
    pub(super) pauses: &'static [Duration],
}

impl Writer {
    pub(super) fn new(client: Client, instance: Arc<str>) -> Self {
        Self {
            client,
            instance,
            series: Mutex::default(),
            pauses: &PAUSES,
        }
    }

    /// Writes `event`, as a new Event or one more occurrence. Returns the outcome for the metric.
    pub(super) async fn deliver(&self, event: &NewEvent) -> &'static str {
        let mut write = self.series().plan(event);
        let mut pauses = self.pauses.iter();
        loop {
            let Err(error) = self.write(event, &write).await else {
                return "sent";
            };
            match (status(&error), &write) {
                // An earlier attempt arrived although its answer did not.
                (Some(409), Write::Create { .. }) => return "sent",
                // Its time to live was over.
                (Some(404), Write::Repeat { event: name, .. }) => {
                    self.series().forget(event, name);
                    write = self.series().plan(event);
                    continue;
                }
                _ => {}
            }
            if let Some(pause) = pauses.next().filter(|_| is_transient(&error)) {
                sleep(*pause).await;
                continue;
            }
            let (Write::Create { event: name } | Write::Repeat { event: name, .. }) = &write;
            self.series().forget(event, name);
            let (reason, namespace) = (&*event.reason, event.namespace());
            let error: &dyn std::error::Error = &error;
            tracing::debug!(error, reason, namespace, "an Event could not be written");
            return "failed";
        }
    }

    fn series(&self) -> std::sync::MutexGuard<'_, SeriesTable> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(&self, event: &NewEvent, write: &Write) -> kube::Result<()> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), event.namespace());
        match write {
            Write::Create { event: name } => {
                let params = PostParams {
                    field_manager: Some(COMPONENT.to_owned()),
                    ..PostParams::default()
                };
                api.create(&params, &self.body(event, name)).await.map(drop)
            }
            Write::Repeat { event: name, count } => {
                let patch = json!({
                    "count": count,
                    "lastTimestamp": Time(event.timestamp),
                    "message": event.message,
                });
                let params = PatchParams {
                    field_manager: Some(COMPONENT.to_owned()),
                    ..PatchParams::default()
                };
                api.patch(name, &params, &Patch::Merge(patch)).await.map(drop)
            }
        }
    }

    fn body(&self, event: &NewEvent, name: &str) -> Event {
        let time = Time(event.timestamp);
        Event {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(event.namespace().to_owned()),
                annotations: Some(event.metadata.clone()).filter(|metadata| !metadata.is_empty()),
                ..ObjectMeta::default()
            },
            involved_object: event.object.clone(),
            type_: Some(event.event_type.as_str().to_owned()),
            reason: Some(event.reason.clone().into_owned()),
            message: Some(event.message.clone()),
            count: Some(1),
            first_timestamp: Some(time.clone()),
            last_timestamp: Some(time),
            source: Some(EventSource {
                component: Some(COMPONENT.to_owned()),
                host: None,
            }),
            reporting_component: Some(COMPONENT.to_owned()),
            reporting_instance: Some(self.instance.as_ref().to_owned()),
            ..Event::default()
        }
    }
}

fn status(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Whether another attempt can help: the request did not arrive, or the API server is overloaded or failing.
fn is_transient(error: &kube::Error) -> bool {
    match status(error) {
        Some(code) => code == 429 || code >= 500,
        None => matches!(
            error,
            kube::Error::HyperError(_) | kube::Error::Service(_) | kube::Error::ReadEvents(_)
        ),
    }
}
