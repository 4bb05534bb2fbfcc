//! Posts events to the notification-controller in the form of Flux's Event API.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Time};
use reqwest::{Client, StatusCode, redirect::Policy};
use serde::Serialize;
use tokio::time::sleep;
use url::Url;

use super::{COMPONENT, event::NewEvent};

/// Namespaces served at a time.
pub(super) const WORKERS: usize = 4;

/// For one attempt, as in Flux.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Pauses between the attempts for one event, as Flux's client makes them.
const PAUSES: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// Why `--events-addr` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Neither http nor https.
    #[error("--events-addr: '{0}' is not http or https")]
    Scheme(String),
    /// The client could not be set up.
    #[error("--events-addr: cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

#[derive(Debug)]
pub(super) struct Webhook {
    client: Client,
    url: Url,
    instance: String,
    /// Events given up in a row.
    failures: AtomicU32,
    pub(super) pauses: &'static [Duration],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    involved_object: &'a ObjectReference,
    severity: &'static str,
    timestamp: Time,
    message: &'a str,
    reason: &'a str,
    action: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: &'a BTreeMap<String, String>,
    reporting_controller: &'static str,
    reporting_instance: &'a str,
}

/// What one attempt came to.
enum Attempt {
    Done(&'static str),
    Again(String),
    GivenUp(String),
}

impl Webhook {
    pub(super) fn new(url: Url, instance: &str) -> Result<Self, WebhookError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(WebhookError::Scheme(url.scheme().to_owned()));
        }
        let client = Client::builder()
            .timeout(TIMEOUT)
            .redirect(Policy::none())
            .user_agent(concat!("mintmark/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(WebhookError::Client)?;
        Ok(Self {
            client,
            url,
            instance: instance.to_owned(),
            failures: AtomicU32::new(0),
            pauses: &PAUSES,
        })
    }

    /// Posts `event`; returns the outcome for the metric.
    pub(super) async fn deliver(&self, event: &NewEvent) -> &'static str {
        let mut pauses = self.pauses.iter();
        loop {
            let error = match self.attempt(event).await {
                Attempt::Done(outcome) => {
                    self.failures.store(0, Ordering::Relaxed);
                    return outcome;
                }
                Attempt::GivenUp(error) => error,
                Attempt::Again(error) => match pauses.next() {
                    Some(pause) => {
                        sleep(*pause).await;
                        continue;
                    }
                    None => error,
                },
            };
            let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            // Lines at 1, 2, 4, 8 … failures in a row: a receiver that is away does not fill the log.
            if failures.is_power_of_two() {
                tracing::error!(
                    error,
                    failures,
                    host = self.url.host_str(),
                    "an event could not be posted"
                );
            }
            return "failed";
        }
    }

    async fn attempt(&self, event: &NewEvent) -> Attempt {
        let body = Body {
            involved_object: &event.object,
            severity: event.event_type.severity(),
            timestamp: Time(event.timestamp),
            message: &event.message,
            reason: &event.reason,
            action: event.action.as_str(),
            metadata: &event.metadata,
            reporting_controller: COMPONENT,
            reporting_instance: &self.instance,
        };
        let status = match self.client.post(self.url.clone()).json(&body).send().await {
            Ok(response) => response.status(),
            Err(error) => return Attempt::Again(crate::runtime::supervise::chain(&error.without_url())),
        };
        if status.is_success() {
            return Attempt::Done("sent");
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            // The notification-controller has seen the same event within its window.
            return Attempt::Done("duplicate");
        }
        let error = format!("the receiver answered {status}");
        if status.is_server_error() {
            Attempt::Again(error)
        } else {
            Attempt::GivenUp(error)
        }
    }
}
