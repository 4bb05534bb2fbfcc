use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use url::Url;

use super::*;
use crate::runtime::serve::{ListenAddress, ServeOptions, Server, full};

/// One request as it arrived: method, path with query, body.
type Seen = (String, String, Value);

/// An HTTP server that answers with scripted statuses (200 when none is left) and shows what arrived.
struct Double {
    url: Url,
    seen: mpsc::UnboundedReceiver<Seen>,
    _task: AbortOnDropHandle<()>,
}

impl Double {
    fn start(statuses: &[u16]) -> Self {
        let server = Server::bind(&ListenAddress::loopback(), ServeOptions::new("double", 64)).unwrap();
        let url = format!("http://{}/", server.local_addr()).parse().unwrap();
        let (sender, seen) = mpsc::unbounded_channel();
        let script = Arc::new(Mutex::new(statuses.iter().copied().collect::<VecDeque<_>>()));
        let service = service_fn(move |request: Request<Incoming>| {
            let (sender, script) = (sender.clone(), Arc::clone(&script));
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let json: Value = serde_json::from_slice(&body).unwrap();
                sender
                    .send((head.method.to_string(), head.uri.to_string(), json.clone()))
                    .unwrap();
                let status = script.lock().unwrap().pop_front().unwrap_or(200);
                let answer = if status < 300 {
                    event_answer(json)
                } else {
                    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": "no",
                        "reason": "Scripted"})
                };
                let mut response = Response::new(full(answer.to_string()));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        let task = tokio::spawn(async move {
            server.run(service, CancellationToken::new()).await.unwrap();
        });
        Self {
            url,
            seen,
            _task: AbortOnDropHandle::new(task),
        }
    }

    fn client(&self) -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Client::try_from(kube::Config::new(self.url.as_str().parse().unwrap())).unwrap()
    }
}

/// What an API server would answer to a create or patch of an Event.
fn event_answer(mut body: Value) -> Value {
    let defaults = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "x"}, "involvedObject": {}});
    for (key, value) in defaults.as_object().unwrap() {
        body.as_object_mut()
            .unwrap()
            .entry(key)
            .or_insert_with(|| value.clone());
    }
    body
}

fn event(message: &str) -> NewEvent {
    NewEvent {
        object: ObjectReference {
            api_version: Some("source.toolkit.fluxcd.io/v1".into()),
            kind: Some("OCIRepository".into()),
            namespace: Some("team".into()),
            name: Some("app".into()),
            uid: Some("0f3b".into()),
            resource_version: Some("7".into()),
            ..ObjectReference::default()
        },
        event_type: EventType::Warning,
        reason: Cow::Borrowed("OCIArtifactPullFailed"),
        message: message.into(),
        action: Action::Reconcile,
        metadata: BTreeMap::from([("source.toolkit.fluxcd.io/revision".to_owned(), "latest".to_owned())]),
        timestamp: "2026-11-22T18:45:14.5Z".parse().unwrap(),
    }
}

/// Four retries without a pause.
const AT_ONCE: &[Duration] = &[Duration::ZERO; 4];

fn writer(double: &Double) -> kubernetes::Writer {
    let mut writer = kubernetes::Writer::new(double.client(), "pod-1".into());
    writer.pauses = AT_ONCE;
    writer
}

fn hook(double: &Double) -> webhook::Webhook {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut webhook = webhook::Webhook::new(double.url.clone(), "pod-1").unwrap();
    webhook.pauses = AT_ONCE;
    webhook
}

#[tokio::test]
async fn a_kubernetes_event_has_the_form_of_fluxs() {
    let mut double = Double::start(&[]);
    assert_eq!(writer(&double).deliver(&event("refused")).await, "sent");
    let (method, path, body) = double.seen.recv().await.unwrap();
    assert_eq!(method, "POST");
    assert_eq!(path, "/api/v1/namespaces/team/events?&fieldManager=mintmark");
    assert_eq!(body["type"], "Warning");
    assert_eq!(body["reason"], "OCIArtifactPullFailed");
    assert_eq!(body["message"], "refused");
    assert_eq!(body["count"], 1);
    assert_eq!(body["source"], json!({"component": "mintmark"}));
    assert_eq!(body["reportingComponent"], "mintmark");
    assert_eq!(body["reportingInstance"], "pod-1");
    assert_eq!(body["firstTimestamp"], body["lastTimestamp"]);
    assert!(
        body.get("eventTime").is_none_or(Value::is_null),
        "with it the message is limited to 1,024 bytes"
    );
    assert_eq!(body["involvedObject"]["uid"], "0f3b");
    assert_eq!(
        body["metadata"]["annotations"],
        json!({"source.toolkit.fluxcd.io/revision": "latest"})
    );
}

#[tokio::test]
async fn a_repeated_failure_patches_its_event() {
    let mut double = Double::start(&[]);
    let writer = writer(&double);
    let mut later = event("refused");
    later.timestamp += Duration::from_mins(1);
    assert_eq!(writer.deliver(&event("refused")).await, "sent");
    assert_eq!(writer.deliver(&later).await, "sent");
    let (_, _, created) = double.seen.recv().await.unwrap();
    let (method, path, repeat) = double.seen.recv().await.unwrap();
    assert_eq!(method, "PATCH");
    let name = created["metadata"]["name"].as_str().unwrap();
    assert!(
        path.starts_with(&format!("/api/v1/namespaces/team/events/{name}?")),
        "{path}"
    );
    assert_eq!((&repeat["count"], &repeat["message"]), (&json!(2), &json!("refused")));
    assert_ne!(repeat["lastTimestamp"], created["lastTimestamp"]);
}

#[tokio::test]
async fn an_event_that_expired_is_created_again() {
    let mut double = Double::start(&[201, 404, 201]);
    let writer = writer(&double);
    for _ in 0..2 {
        assert_eq!(writer.deliver(&event("refused")).await, "sent");
    }
    let mut methods = Vec::new();
    for _ in 0..3 {
        methods.push(double.seen.recv().await.unwrap().0);
    }
    assert_eq!(methods, ["POST", "PATCH", "POST"]);
}

#[tokio::test]
async fn an_event_whose_first_answer_was_lost_is_not_written_twice() {
    let mut double = Double::start(&[500, 409]);
    let writer = writer(&double);
    assert_eq!(writer.deliver(&event("refused")).await, "sent");
    let (first, second) = (double.seen.recv().await.unwrap(), double.seen.recv().await.unwrap());
    assert_eq!(first, second);
    assert_eq!(writer.deliver(&event("refused")).await, "sent");
    assert_eq!(double.seen.recv().await.unwrap().0, "PATCH");
}

#[tokio::test]
async fn a_refused_event_is_not_tried_again() {
    let mut double = Double::start(&[403]);
    assert_eq!(writer(&double).deliver(&event("refused")).await, "failed");
    double.seen.recv().await.unwrap();
    assert!(double.seen.try_recv().is_err());
}

#[tokio::test]
async fn the_webhook_gets_every_documented_field() {
    let mut double = Double::start(&[]);
    assert_eq!(hook(&double).deliver(&event("refused")).await, "sent");
    let (method, path, body) = double.seen.recv().await.unwrap();
    assert_eq!((method.as_str(), path.as_str()), ("POST", "/"));
    let expected = json!({
        "involvedObject": {
            "apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository", "namespace": "team", "name": "app",
            "uid": "0f3b", "resourceVersion": "7",
        },
        "severity": "error",
        "timestamp": "2026-11-22T18:45:14Z",
        "message": "refused",
        "reason": "OCIArtifactPullFailed",
        "action": "Reconcile",
        "metadata": {"source.toolkit.fluxcd.io/revision": "latest"},
        "reportingController": "mintmark",
        "reportingInstance": "pod-1",
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_duplicate_is_not_posted_again() {
    let mut double = Double::start(&[429]);
    assert_eq!(hook(&double).deliver(&event("refused")).await, "duplicate");
    double.seen.recv().await.unwrap();
    assert!(double.seen.try_recv().is_err());
}

#[tokio::test]
async fn a_bad_request_is_not_posted_again() {
    let mut double = Double::start(&[400]);
    assert_eq!(hook(&double).deliver(&event("refused")).await, "failed");
    double.seen.recv().await.unwrap();
    assert!(double.seen.try_recv().is_err());
}

#[tokio::test]
async fn a_failing_receiver_is_asked_again() {
    let mut double = Double::start(&[503]);
    assert_eq!(hook(&double).deliver(&event("refused")).await, "sent");
    for _ in 0..2 {
        double.seen.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_receiver_that_goes_on_failing_is_given_up() {
    let mut double = Double::start(&[500, 502, 503, 504, 500]);
    assert_eq!(hook(&double).deliver(&event("refused")).await, "failed");
    for _ in 0..5 {
        double.seen.recv().await.unwrap();
    }
    assert!(double.seen.try_recv().is_err());
}

#[test]
fn only_http_receivers_are_taken() {
    let error = webhook::Webhook::new("ftp://receiver/".parse().unwrap(), "pod-1").unwrap_err();
    assert_eq!(error.to_string(), "--events-addr: 'ftp' is not http or https");
}

#[tokio::test]
async fn recorded_events_reach_both_sinks_without_secrets() {
    let (mut api, mut receiver) = (Double::start(&[]), Double::start(&[]));
    let client = api.client();
    let metrics = Metrics::default();
    let (recorder, sinks) = EventRecorder::new(Some(receiver.url.clone()), "pod-1", metrics.clone()).unwrap();
    recorder.record(event("GET https://s3.test/blob?signature=abc failed"));
    let stop = CancellationToken::new();
    stop.cancel();
    tokio::spawn(sinks.kubernetes.run(client, stop.clone())).await.unwrap();
    tokio::spawn(sinks.webhook.unwrap().run(stop)).await.unwrap();
    for (_, _, body) in [api.seen.recv().await.unwrap(), receiver.seen.recv().await.unwrap()] {
        assert_eq!(body["message"], "GET https://s3.test/blob?[redacted] failed");
    }
    let text = metrics.encode().unwrap();
    assert!(
        text.contains(r#"mintmark_events_sent_total{sink="kubernetes",outcome="sent"} 1"#),
        "{text}"
    );
    assert!(
        text.contains(r#"mintmark_events_sent_total{sink="webhook",outcome="sent"} 1"#),
        "{text}"
    );
}

#[tokio::test]
async fn recording_never_waits_and_counts_what_it_drops() {
    let metrics = Metrics::default();
    let (recorder, _sinks) = EventRecorder::new(None, "pod-1", metrics.clone()).unwrap();
    for _ in 0..QUEUE_CAPACITY + 3 {
        recorder.record(event("refused"));
    }
    let text = metrics.encode().unwrap();
    assert!(
        text.contains(r#"mintmark_events_dropped_total{sink="kubernetes"} 3"#),
        "{text}"
    );
}

#[test]
fn messages_are_cut_at_whole_characters() {
    let long = "ü".repeat(MESSAGE_LIMIT + 1);
    let cut = event::cut(&long, MESSAGE_LIMIT);
    assert_eq!(cut.chars().count(), MESSAGE_LIMIT);
    assert!(cut.ends_with("ü…"));
    assert_eq!(event::cut("short", MESSAGE_LIMIT), "short");
    assert_eq!(
        event::cut(&"ü".repeat(MESSAGE_LIMIT), MESSAGE_LIMIT).chars().count(),
        MESSAGE_LIMIT
    );
}

#[test]
fn metadata_takes_event_annotations_and_artifact_facts() {
    let annotations = BTreeMap::from([
        ("event.toolkit.fluxcd.io/team".to_owned(), "blue".to_owned()),
        (
            "kubectl.kubernetes.io/last-applied-configuration".to_owned(),
            "{}".to_owned(),
        ),
    ]);
    let made = metadata(&annotations, Some("latest@sha256:1"), Some("sha256:2"), None);
    let expected = [
        ("event.toolkit.fluxcd.io/team", "blue"),
        ("source.toolkit.fluxcd.io/digest", "sha256:2"),
        ("source.toolkit.fluxcd.io/revision", "latest@sha256:1"),
    ];
    assert!(
        made.iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .eq(expected)
    );
}

#[test]
fn an_object_without_a_namespace_is_reported_in_default() {
    let mut of_cluster = event("x");
    of_cluster.object.namespace = None;
    assert_eq!(of_cluster.namespace(), "default");
    let _: Timestamp = of_cluster.timestamp;
}
