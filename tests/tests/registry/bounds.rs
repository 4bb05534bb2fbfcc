//! What bounds a pass and the passes beside it: the object's timeout on every request, permits of a host between namespaces,
//! one probe of a host that cannot be connected to, and how many connections and roots are kept.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::join_all;
use mintmark::registry::{
    CaBundle, Failure, RegistryClient, RegistryConfig, RegistryError, RepositoryUrl, RetryPolicy, SessionSpec,
};
use mintmark_tests::fault_registry::{Artifact, Authority, ClientAuth, Fault, FaultRegistry, Route, Tls, Verdict};
use rstest::rstest;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

use crate::support::*;

async fn registry() -> FaultRegistry {
    let registry = FaultRegistry::start(None).await;
    registry.push(REPOSITORY, "v1", &Artifact::flux(&[("a.yaml", "a: 1\n")]));
    registry
}

/// A pass of an object with this UID in this namespace.
fn spec_of(registry: &FaultRegistry, namespace: &str, uid: &str) -> SessionSpec {
    SessionSpec {
        object_uid: uid.into(),
        namespace: namespace.into(),
        ..spec(&registry.host(), None)
    }
}

#[rstest]
#[case::head(Route::ManifestHead)]
#[case::manifest(Route::ManifestGet)]
#[case::blob(Route::Blob)]
#[case::tags(Route::Tags)]
#[case::realm(Route::Path("/token".to_owned()))]
#[tokio::test]
async fn the_timeout_of_the_object_bounds_every_request(#[case] route: Route) {
    let registry = registry().await;
    if matches!(route, Route::Path(_)) {
        let realm = format!("Bearer realm=\"{}/token\",service=\"s\"", registry.origin());
        registry.set_gate(move |_| Verdict::Challenge(vec![realm.clone()]));
    }
    registry.always(route.clone(), Fault::Hang);
    let spec = SessionSpec {
        timeout: Duration::from_millis(150),
        ..spec(&registry.host(), None)
    };
    let started = Instant::now();
    let error = if route == Route::Tags {
        let client = client();
        let mut session = client.session(spec, anonymous());
        let mut tags = session.tags();
        tags.next().await.map(|_| ()).unwrap_err()
    } else {
        refused(pull_with(&client(), spec, &anonymous()).await)
    };
    assert!(matches!(error.failure(), Failure::TimedOut), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_permit_that_comes_too_late_ends_the_pass_with_what_failed() {
    let registry = registry().await;
    registry.once(Route::Blob, Fault::Truncate(1));
    registry.always(Route::ManifestHead, Fault::Hang);
    let client = RegistryClient::new(RegistryConfig {
        concurrency: 1,
        ..config()
    });
    let artifact = Artifact::flux(&[("a.yaml", "a: 1\n")]);
    let spec = SessionSpec {
        timeout: Duration::from_secs(1),
        ..spec_of(&registry, "a", "cut")
    };
    let mut cut = client.session(spec, anonymous());
    let manifest = cut.manifest(&artifact.digest().parse().unwrap()).await.unwrap();
    // Takes the permit as soon as the cut transfer waits, and keeps it.
    let mut hog = client.session(spec_of(&registry, "b", "hog"), anonymous());
    let hog = tokio::spawn(async move { hog.resolve("v1").await });
    let error = cut.blob(&manifest.layers[0], 0, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::ConnectionLost), "{error}");
    assert!(!hog.is_finished());
    hog.abort();
}

#[tokio::test]
async fn a_crowd_at_a_hanging_registry_leaves_the_host_to_others() {
    let registry = registry().await;
    registry.push("crowd/app", "v1", &Artifact::with_layer(b"x"));
    registry.always(Route::Path("/v2/crowd/app/manifests/v1".to_owned()), Fault::Hang);
    let workers = Arc::new(Semaphore::new(4));
    let client = RegistryClient::new(RegistryConfig {
        concurrency: 4,
        workers: Some(Arc::clone(&workers)),
        ..config()
    });
    let mut crowd = JoinSet::new();
    for i in 0..300 {
        let mut spec = spec_of(&registry, "crowd", &format!("crowd-{i}"));
        spec.url = RepositoryUrl::parse(&registry.url("crowd/app"), true).unwrap();
        let client = client.clone();
        crowd.spawn(async move { client.session(spec, anonymous()).resolve("v1").await.map(|_| ()) });
    }
    registry
        .until("the crowd has its half", |requests| requests.len() == 2)
        .await;
    let source = anonymous();
    let others = (0..10).map(|i| pull_with(&client, spec_of(&registry, "other", &format!("other-{i}")), &source));
    for pulled in join_all(others).await {
        pulled.unwrap();
    }
    assert_eq!(registry.log().len(), 2 + 30, "half of the permits to one namespace");
    assert_eq!(workers.available_permits(), 2, "298 passes wait without a worker slot");
    crowd.shutdown().await;
    assert_eq!(workers.available_permits(), 4);
}

#[tokio::test]
async fn a_host_that_is_back_is_found_by_a_probe() {
    let address: SocketAddr = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let client = RegistryClient::new(RegistryConfig {
        retry: RetryPolicy {
            probe_delay: Duration::from_millis(20),
            ..config().retry
        },
        ..config()
    });
    let attempt = async || pull_with(&client, spec(&address.to_string(), None), &anonymous()).await;
    refused(attempt().await);
    let error = refused(attempt().await);
    assert!(matches!(error.failure(), Failure::CircuitOpen { .. }), "{error}");
    let back = FaultRegistry::start_on(address, None).await;
    back.push(REPOSITORY, "v1", &Artifact::flux(&[("a.yaml", "a: 1\n")]));
    let found = async {
        while let Err(error) = attempt().await {
            tokio::time::sleep(error.retry_after().expect("only a closed circuit refuses")).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), found).await.unwrap();
    let all = (0..10).map(|_| attempt());
    assert!(
        join_all(all).await.into_iter().all(|pulled| pulled.is_ok()),
        "closed again"
    );
}

#[tokio::test]
async fn connections_that_become_more_make_others_go() {
    let (quiet, busy) = (registry().await, registry().await);
    let client = RegistryClient::new(RegistryConfig {
        idle_connections: 4,
        // No connection goes for another reason.
        idle_timeout: Duration::from_hours(1),
        ..config()
    });
    for registry in [&quiet, &busy] {
        pull_with(&client, spec_of(registry, &registry.host(), "first"), &anonymous())
            .await
            .unwrap();
    }
    quiet.until_open("both are kept", |open| open.len() == 1).await;
    busy.times(4, Route::ManifestHead, Fault::Hang);
    let mut passes = JoinSet::new();
    for i in 0..4 {
        let mut session = client.session(spec_of(&busy, &busy.host(), &format!("more-{i}")), anonymous());
        passes.spawn(async move { session.resolve("v1").await.map(|_| ()) });
    }
    quiet
        .until_open("four of four are in use", std::collections::HashSet::is_empty)
        .await;
    passes.shutdown().await;
}

/// A registry over TLS with a CA of its own, pulled from once.
async fn pulled_with_own_ca(client: &RegistryClient, namespace: &str) -> Result<FaultRegistry, RegistryError> {
    let authority = Authority::new(namespace);
    let registry = FaultRegistry::start(Some(Tls {
        leaf: authority.server(&["127.0.0.1"]),
        client_auth: ClientAuth::None,
        tls12_only: false,
    }))
    .await;
    registry.push(REPOSITORY, "v1", &Artifact::flux(&[("a.yaml", "a: 1\n")]));
    let ca = CaBundle::from_pem(authority.pem().as_bytes()).unwrap();
    let spec = SessionSpec {
        namespace: namespace.into(),
        ..spec(&registry.host(), Some(&ca))
    };
    pull_with(client, spec, &anonymous()).await?;
    Ok(registry)
}

#[tokio::test]
async fn sets_of_roots_beyond_the_budget_go_with_their_connections() {
    let client = RegistryClient::new(RegistryConfig {
        max_transports: 2,
        // No connection goes for another reason.
        idle_timeout: Duration::from_hours(1),
        ..config()
    });
    let other = pulled_with_own_ca(&client, "other").await.unwrap();
    let first = pulled_with_own_ca(&client, "tenant").await.unwrap();
    first.until_open("its connection is kept", |open| open.len() == 1).await;
    let second = pulled_with_own_ca(&client, "tenant").await.unwrap();
    first
        .until_open("the tenant's half is one set", std::collections::HashSet::is_empty)
        .await;
    other.until_open("another tenant's stays", |open| open.len() == 1).await;
    second.until_open("and the new one", |open| open.len() == 1).await;
}
