//! Tells people what happened to an object: Kubernetes Events, and the webhook of Flux's notification-controller.
//!
//! [`EventRecorder::record`] puts an event into two bounded queues that are fair between namespaces and returns at once;
//! [`Sinks`] are the supervised tasks that deliver. What cannot be queued or delivered is dropped and counted: an event is
//! never worth holding up a pass. Rights: create and patch on core `events`.

mod event;
mod kubernetes;
mod queue;
mod series;
#[cfg(test)]
mod tests;
mod webhook;

use std::sync::Arc;

use kube::Client;
use tokio_util::sync::CancellationToken;
use url::Url;

use self::queue::Queue;
pub use self::{
    event::{Action, EventType, MESSAGE_LIMIT, NewEvent, SOURCE_GROUP, metadata},
    webhook::WebhookError,
};
use crate::runtime::{
    log::redact,
    metrics::{EventSink, Metrics},
};

/// Name of the source component, reporting controller and field manager.
pub const COMPONENT: &str = "mintmark";

/// Events waiting for one sink. At about 1 KiB each, a full queue is a few megabytes; it holds a cold start of this many
/// objects.
pub const QUEUE_CAPACITY: usize = 8_192;

/// Records events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventRecorder {
    kubernetes: Arc<Queue<Arc<NewEvent>>>,
    webhook: Option<Arc<Queue<Arc<NewEvent>>>>,
    metrics: Metrics,
}

/// The receiving ends of an [`EventRecorder`], each to be run once as a supervised task.
#[derive(Debug)]
pub struct Sinks {
    /// Writes Kubernetes Events.
    pub kubernetes: KubernetesSink,
    /// Posts to `--events-addr`, where one is given.
    pub webhook: Option<WebhookSink>,
}

/// Writes core/v1 Events.
#[derive(Debug)]
pub struct KubernetesSink {
    queue: Arc<Queue<Arc<NewEvent>>>,
    metrics: Metrics,
    instance: Arc<str>,
}

/// Posts to one webhook.
#[derive(Debug)]
pub struct WebhookSink {
    queue: Arc<Queue<Arc<NewEvent>>>,
    metrics: Metrics,
    webhook: webhook::Webhook,
}

impl EventRecorder {
    /// `events_addr`: where events are posted to (http or https), if anywhere; `instance`: this process's name, usually
    /// the Pod's. A process-wide rustls provider must be installed.
    pub fn new(events_addr: Option<Url>, instance: &str, metrics: Metrics) -> Result<(Self, Sinks), WebhookError> {
        let kubernetes = Arc::new(Queue::new(QUEUE_CAPACITY));
        let webhook = events_addr
            .map(|url| webhook::Webhook::new(url, instance))
            .transpose()?;
        let webhook = webhook.map(|webhook| WebhookSink {
            queue: Arc::new(Queue::new(QUEUE_CAPACITY)),
            metrics: metrics.clone(),
            webhook,
        });
        let recorder = Self {
            kubernetes: Arc::clone(&kubernetes),
            webhook: webhook.as_ref().map(|sink| Arc::clone(&sink.queue)),
            metrics: metrics.clone(),
        };
        let kubernetes = KubernetesSink {
            queue: kubernetes,
            metrics,
            instance: instance.into(),
        };
        Ok((recorder, Sinks { kubernetes, webhook }))
    }

    /// Queues `event` for all sinks. Never blocks and never fails: where a queue is full, the oldest event of the
    /// namespace with the most waiting is dropped and counted.
    pub fn record(&self, mut event: NewEvent) {
        event.message = event::cut(&redact(&event.message), MESSAGE_LIMIT).into_owned();
        let namespace: Arc<str> = event.namespace().into();
        let event = Arc::new(event);
        if let Some(webhook) = &self.webhook {
            self.push(webhook, EventSink::Webhook, &namespace, &event);
        }
        self.push(&self.kubernetes, EventSink::Kubernetes, &namespace, &event);
    }

    fn push(&self, queue: &Queue<Arc<NewEvent>>, sink: EventSink, namespace: &Arc<str>, event: &Arc<NewEvent>) {
        if queue.push(Arc::clone(namespace), Arc::clone(event)).is_some() {
            self.metrics.event_dropped(sink);
        }
    }
}

impl KubernetesSink {
    /// Delivers until `stop`, then what is still queued.
    pub async fn run(self, client: Client, stop: CancellationToken) {
        let writer = kubernetes::Writer::new(client, self.instance);
        let (writer, metrics) = (&writer, &self.metrics);
        let deliver = |event: Arc<NewEvent>| async move {
            metrics.event_sent(EventSink::Kubernetes, writer.deliver(&event).await);
        };
        self.queue.deliver_all(kubernetes::WORKERS, stop, deliver).await;
    }
}

impl WebhookSink {
    /// Delivers until `stop`, then what is still queued.
    pub async fn run(self, stop: CancellationToken) {
        let (webhook, metrics) = (&self.webhook, &self.metrics);
        let deliver = |event: Arc<NewEvent>| async move {
            metrics.event_sent(EventSink::Webhook, webhook.deliver(&event).await);
        };
        self.queue.deliver_all(webhook::WORKERS, stop, deliver).await;
    }
}
