//! Time and repetition: retries, rate limits, slow and silent registries, worker slots, dead hosts.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use mintmark::registry::{Failure, RegistryClient, RegistryConfig, SessionSpec};
use mintmark_tests::fault_registry::{Artifact, Fault, FaultRegistry, Route};
use rstest::rstest;
use tokio::sync::Semaphore;

use crate::support::*;

async fn registry() -> FaultRegistry {
    let registry = FaultRegistry::start(None).await;
    registry.push(REPOSITORY, "v1", &Artifact::flux(&[("a.yaml", "a: 1\n")]));
    registry
}

#[rstest]
#[case::server_error(Fault::status(503))]
#[case::request_timeout(Fault::status(408))]
#[case::too_many(Fault::status(429))]
#[case::retry_after_seconds(Fault::retry_after(429, "0"))]
#[case::retry_after_a_past_date(Fault::retry_after(503, "Sun, 06 Nov 1994 08:49:37 GMT"))]
#[case::reset(Fault::Reset)]
#[tokio::test]
async fn two_momentary_failures_are_survived_a_third_is_not(#[case] fault: Fault) {
    let registry = registry().await;
    registry.times(2, Route::ManifestGet, fault.clone());
    pull_with(&client(), spec(&registry.host(), None), &anonymous())
        .await
        .unwrap();
    assert_eq!(registry.log().len(), 5);
    registry.heal();
    registry.always(Route::ManifestGet, fault);
    registry.clear_records();
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert!(error.retryable(), "{error}");
    assert_eq!(registry.log().len(), 4);
}

#[rstest]
#[case(400)]
#[case(404)]
#[case(410)]
#[tokio::test]
async fn other_client_errors_are_not_repeated(#[case] status: u16) {
    let registry = registry().await;
    registry.always(Route::Any, Fault::status(status));
    refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert_eq!(registry.log().len(), 1);
}

#[rstest]
#[case::seconds("61")]
#[case::date(&httpdate::fmt_http_date(SystemTime::now() + Duration::from_hours(1)))]
#[tokio::test]
async fn a_long_retry_after_fails_at_once_and_is_passed_on(#[case] value: &str) {
    let registry = registry().await;
    registry.always(Route::Any, Fault::retry_after(429, value));
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert!(matches!(error.failure(), Failure::RateLimited { .. }), "{error}");
    assert!(error.retry_after().unwrap() > Duration::from_mins(1));
    assert_eq!(registry.log().len(), 1);
}

#[tokio::test]
async fn a_wait_that_would_outlast_the_pass_fails_it_at_once() {
    let registry = registry().await;
    registry.always(Route::Any, Fault::retry_after(503, "30"));
    let started = Instant::now();
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert!(
        matches!(error.failure(), Failure::Unavailable { status: 503, .. }),
        "{error}"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(registry.log().len(), 1);
}

#[tokio::test]
async fn waiting_holds_no_worker_slot_and_is_announced() {
    let registry = registry().await;
    registry.once(Route::ManifestHead, Fault::status(503));
    let workers = Arc::new(Semaphore::new(1));
    let client = RegistryClient::new(RegistryConfig {
        workers: Some(Arc::clone(&workers)),
        ..config()
    });
    let waits = Arc::new(Mutex::new(Vec::new()));
    let on_wait = {
        let (workers, waits) = (Arc::clone(&workers), Arc::clone(&waits));
        Arc::new(move |error: &mintmark::registry::RegistryError, _: Duration| {
            waits
                .lock()
                .unwrap()
                .push((error.message(), workers.available_permits()));
        })
    };
    let spec = SessionSpec {
        on_wait: Some(on_wait),
        ..spec(&registry.host(), None)
    };
    let mut session = client.session(spec, anonymous());
    session.enter().await;
    assert_eq!(workers.available_permits(), 0);
    session.resolve("v1").await.unwrap();
    assert_eq!(
        *waits.lock().unwrap(),
        [("registry answered with status 503".to_owned(), 1)]
    );
    assert_eq!(workers.available_permits(), 0);
    session.leave();
    assert_eq!(workers.available_permits(), 1);
}

#[tokio::test]
async fn a_silent_registry_times_out() {
    let registry = registry().await;
    registry.always(Route::Blob, Fault::Stall(3));
    let spec = SessionSpec {
        timeout: Duration::from_millis(150),
        ..spec(&registry.host(), None)
    };
    let error = refused(pull_with(&client(), spec, &anonymous()).await);
    assert!(matches!(error.failure(), Failure::TimedOut), "{error}");
}

#[rstest]
#[case::blob(Route::Blob)]
#[case::manifest(Route::ManifestGet)]
#[tokio::test]
async fn a_slow_registry_fails(#[case] route: Route) {
    let registry = registry().await;
    registry.always(route, Fault::Stall(3));
    let client = RegistryClient::new(RegistryConfig {
        slow_after: Duration::from_millis(50),
        ..config()
    });
    let error = refused(pull_with(&client, spec(&registry.host(), None), &anonymous()).await);
    assert!(
        matches!(error.failure(), Failure::TooSlow { minimum: 16384 }),
        "{error}"
    );
}

#[tokio::test]
async fn a_dead_host_is_only_probed() {
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let client = client();
    let unreachable = async || refused(pull_with(&client, spec(&dead, None), &anonymous()).await);
    assert!(matches!(unreachable().await.failure(), Failure::Unreachable));
    let error = unreachable().await;
    assert!(
        matches!(error.failure(), Failure::CircuitOpen { .. }),
        "the fifth failure opens it: {error}"
    );
    assert!(error.retry_after().unwrap() <= Duration::from_mins(1));

    let other = registry().await;
    pull_with(&client, spec(&other.host(), None), &anonymous())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_host_is_used_by_a_bounded_number_of_passes() {
    let registry = registry().await;
    let client = RegistryClient::new(RegistryConfig {
        concurrency: 2,
        ..config()
    });
    let passes = (0..20).map(|i| {
        let mut spec = spec(&registry.host(), None);
        spec.object_uid = format!("uid-{i}").into();
        spec.namespace = format!("tenant-{}", i % 3).into();
        let client = client.clone();
        async move { pull_with(&client, spec, &anonymous()).await.unwrap() }
    });
    futures::future::join_all(passes).await;
    assert_eq!(registry.log().len(), 60);
    assert!(registry.connections().len() <= 4, "{}", registry.connections().len());
}

#[tokio::test]
async fn a_connection_idle_for_too_long_is_not_used() {
    let registry = registry().await;
    let client = RegistryClient::new(RegistryConfig {
        idle_timeout: Duration::from_nanos(1),
        ..config()
    });
    pull_with(&client, spec(&registry.host(), None), &anonymous())
        .await
        .unwrap();
    assert_eq!(registry.connections().len(), 3);
}
