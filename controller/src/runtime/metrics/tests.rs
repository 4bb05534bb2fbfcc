use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::service::Service;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

struct Objects(usize);

impl ReadySource for Objects {
    fn count(&self) -> usize {
        self.0
    }

    fn visit(&self, visit: &mut dyn FnMut(&str, &str, &str, bool)) {
        for number in 0..self.0 {
            visit("OCIRepository", "team", &format!("app{number}"), number % 2 == 0);
        }
    }
}

#[test]
fn reconcile_durations_use_fluxs_name_and_buckets() {
    let metrics = Metrics::default();
    metrics.observe_reconcile("OCIRepository", "team", "app", SECOND);
    let text = metrics.encode().unwrap();
    let bounds: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("gotk_reconcile_duration_seconds_bucket"))
        .filter_map(|line| line.split("le=\"").nth(1)?.split('"').next())
        .collect();
    assert_eq!(bounds.len(), 11, "ten buckets and +Inf: {bounds:?}");
    assert_eq!(bounds[0], "0.01");
    assert!((bounds[9].parse::<f64>().unwrap() - 1800.0).abs() < 0.001);
    let sum = r#"gotk_reconcile_duration_seconds_sum{kind="OCIRepository",name="app",namespace="team"} 1.0"#;
    assert!(text.contains(sum), "{text}");
}

#[test]
fn readiness_is_computed_at_the_scrape() {
    let metrics = Metrics::default();
    metrics.set_ready_source(Arc::new(Objects(2)));
    let text = metrics.encode().unwrap();
    assert!(
        text.contains(r#"mintmark_object_ready{kind="OCIRepository",name="app0",namespace="team"} 1"#),
        "{text}"
    );
    assert!(
        text.contains(r#"mintmark_object_ready{kind="OCIRepository",name="app1",namespace="team"} 0"#),
        "{text}"
    );
}

#[test]
fn series_of_a_deleted_object_go() {
    let metrics = Metrics::default();
    metrics.observe_reconcile("OCIRepository", "team", "app", SECOND);
    metrics.observe_reconcile("OCIRepository", "team", "other", SECOND);
    metrics.forget_object("OCIRepository", "team", "app");
    let text = metrics.encode().unwrap();
    assert!(!text.contains(r#"name="app""#), "{text}");
    assert!(text.contains(r#"name="other""#), "{text}");
}

#[test]
fn above_the_limit_nothing_is_kept_per_object_until_there_is_room() {
    let metrics = Metrics::new(true, 10);
    for number in 0..11 {
        metrics.observe_reconcile("OCIRepository", "team", &format!("app{number}"), SECOND);
    }
    metrics.set_ready_source(Arc::new(Objects(11)));
    assert!(!metrics.encode().unwrap().contains("namespace=\"team\""));
    metrics.set_ready_source(Arc::new(Objects(10)));
    assert!(
        !metrics.encode().unwrap().contains("namespace=\"team\""),
        "a tenth must be free"
    );
    metrics.set_ready_source(Arc::new(Objects(9)));
    metrics.encode().unwrap();
    metrics.observe_reconcile("OCIRepository", "team", "app0", SECOND);
    let text = metrics.encode().unwrap();
    assert!(text.contains("gotk_reconcile_duration_seconds_count{"), "{text}");
    assert_eq!(text.matches("mintmark_object_ready{").count(), 9);
}

#[test]
fn per_object_metrics_can_be_switched_off() {
    let metrics = Metrics::new(false, PER_OBJECT_LIMIT);
    metrics.set_ready_source(Arc::new(Objects(1)));
    metrics.observe_reconcile("OCIRepository", "team", "app0", SECOND);
    assert!(!metrics.encode().unwrap().contains("namespace=\"team\""));
}

#[test]
fn every_family_has_its_documented_name() {
    let metrics = Metrics::default();
    metrics.credential_issued("SpiffeJWT", Duration::from_micros(40));
    metrics.credential_failed("SpiffeJWT", "NoSigningKey");
    metrics.registry_request("registry.test:5000", "ok");
    metrics.set_queue_depth("OCIRepository", 3);
    metrics.observe_queue_latency("OCIRepository", SECOND);
    metrics.set_running_passes("OCIRepository", 2);
    metrics.set_cache_entries("tokens", 7);
    metrics.set_storage(2, 4096, 1 << 30);
    metrics.set_crd_compatible("OCIRepository", true);
    metrics.set_signing_secret(SigningSecretState::LastGood);
    metrics.set_signing_advisory("path_len_zero", true);
    metrics.set_key_states([("k1", "signing")]);
    metrics.key_store_failed("write", "refused");
    metrics.key_store_replaced("changed");
    metrics.set_clock_skew(-0.5);
    metrics.set_leader_state("mintmark-issuer", "leading");
    metrics.leader_transition("mintmark-issuer", "leading");
    metrics.foreign_status_write("OCIRepository");
    metrics.event_sent(EventSink::Kubernetes, "sent");
    metrics.event_dropped(EventSink::Webhook);
    let connection = metrics.connection_opened("artifacts");
    metrics.connection_cut("artifacts", "no_progress");
    let text = metrics.encode().unwrap();
    for line in [
        r#"mintmark_credentials_issued_total{type="SpiffeJWT"} 1"#,
        r#"mintmark_credential_issue_failures_total{type="SpiffeJWT",reason="NoSigningKey"} 1"#,
        "mintmark_credential_issue_seconds_count 1",
        r#"mintmark_registry_requests_total{host="registry.test:5000",outcome="ok"} 1"#,
        r#"mintmark_queue_depth{kind="OCIRepository"} 3.0"#,
        r#"mintmark_queue_latency_seconds_count{kind="OCIRepository"} 1"#,
        r#"mintmark_cache_entries{cache="tokens"} 7.0"#,
        "mintmark_storage_bytes 4096.0",
        "mintmark_storage_objects 2.0",
        r#"mintmark_crd_compatible{kind="OCIRepository"} 1.0"#,
        r#"mintmark_signing_secret_state{state="last_good"} 1.0"#,
        r#"mintmark_signing_secret_state{state="valid"} 0.0"#,
        r#"mintmark_key_state{kid="k1",state="signing"} 1.0"#,
        r#"mintmark_key_store_failures_total{operation="write",reason="refused"} 1"#,
        r#"mintmark_key_store_replaced_total{what="changed"} 1"#,
        "mintmark_clock_skew_seconds -0.5",
        r#"mintmark_leader{lease="mintmark-issuer",state="leading"} 1.0"#,
        r#"mintmark_leader{lease="mintmark-issuer",state="standby"} 0.0"#,
        r#"mintmark_leader_transitions_total{lease="mintmark-issuer",to="leading"} 1"#,
        r#"mintmark_events_dropped_total{sink="webhook"} 1"#,
        r#"mintmark_server_connections{server="artifacts"} 1.0"#,
        r#"mintmark_server_connections_cut_total{server="artifacts",reason="no_progress"} 1"#,
        "mintmark_build_info{version=",
        "process_resident_memory_bytes ",
        "process_cpu_seconds_total ",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    drop(connection);
    assert!(
        metrics
            .encode()
            .unwrap()
            .contains(r#"mintmark_server_connections{server="artifacts"} 0.0"#)
    );
}

#[test]
fn key_states_replace_each_other() {
    let metrics = Metrics::default();
    metrics.set_key_states([("k1", "signing"), ("k2", "published")]);
    metrics.set_key_states([("k2", "signing")]);
    let text = metrics.encode().unwrap();
    assert_eq!(text.matches("mintmark_key_state{").count(), 1);
}

#[tokio::test]
async fn the_endpoint_answers_get_and_head_under_its_path_only() {
    let metrics = Metrics::default();
    let call = |method: Method, path: &'static str| {
        metrics.call(Request::builder().method(method).uri(path).body(()).unwrap())
    };
    let response = call(Method::GET, "/metrics").await.unwrap();
    let content_type = response.headers()[header::CONTENT_TYPE].clone();
    assert_eq!(
        content_type,
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .ends_with(b"# EOF\n")
    );
    let head = call(Method::HEAD, "/metrics").await.unwrap();
    assert_eq!(head.headers()[header::CONTENT_TYPE], content_type);
    assert!(head.into_body().collect().await.unwrap().to_bytes().is_empty());
    assert_eq!(call(Method::GET, "/").await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(
        call(Method::DELETE, "/metrics").await.unwrap().status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
}
