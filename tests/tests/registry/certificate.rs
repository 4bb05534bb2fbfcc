//! Client certificates: connections that are an identity, and servers that do not want or do not take it.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use hyper_util::client::proxy::matcher::Matcher;
use mintmark::registry::{Failure, RegistryClient, RegistryConfig};
use mintmark_tests::fault_registry::{Artifact, Authority, ClientAuth, Fault, FaultRegistry, Route, Tls, Verdict};
use rstest::rstest;

use crate::support::*;

const URI: &str = "spiffe://example.org/ocirepositories/tenant/app";

async fn registry(client_auth: ClientAuth, tls12_only: bool) -> Secure {
    let secure = secure_with(client_auth, tls12_only).await;
    secure
        .registry
        .push(REPOSITORY, "v1", &Artifact::flux(&[("a.yaml", "a: 1\n")]));
    secure
}

#[rstest]
#[case::tls13(false)]
#[case::tls12(true)]
#[tokio::test]
async fn every_request_of_a_pass_comes_with_the_certificate_on_one_connection(#[case] tls12_only: bool) {
    let tenants = Authority::new("Tenant CA");
    let leaf = tenants.client(URI);
    let secure = registry(ClientAuth::required(&tenants), tls12_only).await;
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let client = client();
    for _ in 0..2 {
        pull_with(&client, spec.clone(), &certificate(&leaf, "Tenant CA", "1"))
            .await
            .unwrap();
    }
    let connections = secure.registry.connections();
    assert_eq!(connections.len(), 1);
    assert_eq!(connections[0].client_certificate.as_deref(), Some(&*leaf.chain[0]));
    assert!(
        secure
            .registry
            .requests()
            .iter()
            .all(|request| request.authorization().is_none())
    );
}

#[tokio::test]
async fn identities_share_neither_connections_nor_sessions() {
    let tenants = Authority::new("Tenant CA");
    let leaves = ["a", "b"].map(|name| tenants.client(&format!("spiffe://example.org/ocirepositories/tenant/{name}")));
    let secure = registry(ClientAuth::required(&tenants), false).await;
    let client = client();
    let pass = async |uid: &str, leaf: usize, generation: &str| {
        let mut spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
        spec.object_uid = uid.into();
        pull_with(&client, spec, &certificate(&leaves[leaf], "Tenant CA", generation))
            .await
            .unwrap();
        secure.registry.connections().len()
    };
    assert_eq!(pass("uid-a", 0, "a1").await, 1);
    assert_eq!(pass("uid-b", 1, "b1").await, 2, "another object");
    assert_eq!(
        pass("uid-c", 0, "a1").await,
        3,
        "another object, though the certificate is the same"
    );
    assert_eq!(
        pass("uid-a", 0, "a1").await,
        3,
        "the same identity keeps its connection"
    );
    assert_eq!(pass("uid-a", 0, "a2").await, 4, "another generation");
    client.forget(&"uid-a".into());
    assert_eq!(pass("uid-a", 0, "a2").await, 5, "a forgotten object");
    assert!(
        secure
            .registry
            .connections()
            .iter()
            .all(|connection| connection.resumed == Some(false))
    );
    for request in secure.registry.requests() {
        let sent = request.connection.client_certificate.unwrap();
        assert!(leaves.iter().any(|leaf| *leaf.chain[0] == *sent));
    }
}

#[tokio::test]
async fn connections_without_identity_are_shared_and_never_carry_one() {
    let tenants = Authority::new("Tenant CA");
    let secure = registry(ClientAuth::optional(&tenants), false).await;
    let client = client();
    let host = secure.registry.host_as("registry.test");
    pull_with(
        &client,
        spec(&host, Some(&secure.ca)),
        &certificate(&tenants.client(URI), "Tenant CA", "1"),
    )
    .await
    .unwrap();
    for uid in ["uid-2", "uid-3"] {
        let mut spec = spec(&host, Some(&secure.ca));
        spec.object_uid = uid.into();
        pull_with(&client, spec, &jwt(TOKEN, &["x"])).await.unwrap();
    }
    let connections = secure.registry.connections();
    assert_eq!(connections.len(), 2);
    assert_eq!(connections[1].client_certificate, None);
    let with_token: Vec<_> = secure
        .registry
        .requests()
        .iter()
        .filter(|r| r.authorization().is_some())
        .map(|r| r.connection.id)
        .collect();
    assert!(!with_token.is_empty() && with_token.iter().all(|id| *id == 1));
}

#[rstest]
#[case::tls13(false)]
#[case::tls12(true)]
#[tokio::test]
async fn a_server_that_does_not_ask_gets_no_request(#[case] tls12_only: bool) {
    let tenants = Authority::new("Tenant CA");
    let secure = registry(ClientAuth::None, tls12_only).await;
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &certificate(&tenants.client(URI), "Tenant CA", "1")).await);
    assert_eq!(error.message(), "registry did not ask for a client certificate");
    assert!(error.is_authentication());
    assert_eq!(secure.registry.log(), Vec::<String>::new());
}

#[rstest]
#[case::unknown_ca_tls13(false, false)]
#[case::unknown_ca_tls12(true, false)]
#[case::revoked_tls13(false, true)]
#[tokio::test]
async fn a_refused_certificate_names_its_issuer(#[case] tls12_only: bool, #[case] revoked: bool) {
    let tenants = Authority::new("Tenant CA");
    let secure = registry(ClientAuth::Refuse { revoked }, tls12_only).await;
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &certificate(&tenants.client(URI), "Tenant CA", "1")).await);
    let Failure::CertificateRefused { issuer, alert } = error.failure() else {
        panic!("{error}")
    };
    assert_eq!(issuer, "Tenant CA");
    assert_eq!(*alert, if revoked { "certificate_revoked" } else { "unknown_ca" });
    assert!(secure.registry.log().is_empty());
}

#[tokio::test]
async fn another_ca_is_refused() {
    let (tenants, others) = (Authority::new("Tenant CA"), Authority::new("Other CA"));
    let secure = registry(ClientAuth::required(&tenants), false).await;
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &certificate(&others.client(URI), "Other CA", "1")).await);
    assert!(matches!(error.failure(), Failure::CertificateRefused { .. }), "{error}");
}

#[tokio::test]
async fn identities_beyond_the_budget_lose_their_connections() {
    let tenants = Authority::new("Tenant CA");
    let leaf = tenants.client(URI);
    let secure = registry(ClientAuth::required(&tenants), false).await;
    let client = RegistryClient::new(RegistryConfig {
        idle_connections: 2,
        ..config()
    });
    for (uid, namespace, connections) in [
        ("a", "one", 1),
        ("b", "one", 2),
        ("c", "two", 3),
        ("c", "two", 3),
        ("a", "one", 4),
    ] {
        let mut spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
        (spec.object_uid, spec.namespace) = (uid.into(), namespace.into());
        pull_with(&client, spec, &certificate(&leaf, "Tenant CA", uid))
            .await
            .unwrap();
        assert_eq!(secure.registry.connections().len(), connections, "{uid}");
    }
}

#[tokio::test]
async fn a_certificate_does_not_go_through_an_https_proxy() {
    let tenants = Authority::new("Tenant CA");
    let secure = registry(ClientAuth::required(&tenants), false).await;
    let matcher = Matcher::builder()
        .https(secure.registry.origin_as("proxy.test"))
        .build();
    let client = RegistryClient::new(RegistryConfig {
        environment_proxies: Arc::new(matcher),
        ..config()
    });
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client, spec, &certificate(&tenants.client(URI), "Tenant CA", "1")).await);
    assert!(matches!(error.failure(), Failure::Setup(_)), "{error}");
    assert!(secure.registry.connections().is_empty());
}

#[tokio::test]
async fn a_certificate_is_not_for_plain_http() {
    let registry = FaultRegistry::start(None).await;
    let tenants = Authority::new("Tenant CA");
    let source = certificate(&tenants.client(URI), "Tenant CA", "1");
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &source).await);
    assert!(matches!(error.failure(), Failure::InsecureCredential), "{error}");
    assert!(registry.connections().is_empty());
}

#[tokio::test]
async fn a_401_without_realm_is_not_answered_with_anything() {
    let tenants = Authority::new("Tenant CA");
    let secure = registry(ClientAuth::required(&tenants), false).await;
    secure
        .registry
        .set_gate(|_| Verdict::Challenge(vec!["Basic realm=\"x\"".to_owned()]));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &certificate(&tenants.client(URI), "Tenant CA", "1")).await);
    assert!(matches!(error.failure(), Failure::NotAccepted { .. }), "{error}");
    assert_eq!(secure.registry.log().len(), 1);
}

#[tokio::test]
async fn a_realm_of_the_registry_is_asked_over_the_same_certificate() {
    let tenants = Authority::new("Tenant CA");
    let secure = registry(ClientAuth::required(&tenants), false).await;
    let origin = secure.registry.origin_as("registry.test");
    secure.registry.set_gate(move |request| match request.authorization() {
        Some("Bearer exchanged") => Verdict::Allow,
        _ => Verdict::Challenge(vec![format!("Bearer realm=\"{origin}/token\",service=\"s\"")]),
    });
    secure.registry.page("/token", |_| {
        Response::new(Bytes::from_static(b"{\"token\":\"exchanged\"}"))
    });
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    pull_with(&client(), spec, &certificate(&tenants.client(URI), "Tenant CA", "1"))
        .await
        .unwrap();
    let exchange = secure
        .registry
        .requests()
        .into_iter()
        .find(|request| request.path() == "/token")
        .unwrap();
    assert_eq!(exchange.authorization(), None);
    assert_eq!(secure.registry.connections().len(), 1);
}

#[tokio::test]
async fn any_other_realm_is_refused() {
    let tenants = Authority::new("Tenant CA");
    let secure = registry(ClientAuth::required(&tenants), false).await;
    let (authority, _) = server_pair();
    let leaf = authority.server(&["tokens.test"]);
    let client_auth = ClientAuth::optional(&tenants);
    let tokens = FaultRegistry::start(Some(Tls {
        leaf,
        client_auth,
        tls12_only: false,
    }))
    .await;
    let realm = tokens.origin_as("tokens.test");
    secure
        .registry
        .set_gate(move |_| Verdict::Challenge(vec![format!("Bearer realm=\"{realm}/token\",service=\"s\"")]));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &certificate(&tenants.client(URI), "Tenant CA", "1")).await);
    assert!(matches!(error.failure(), Failure::RealmRefused { .. }), "{error}");
    assert!(tokens.connections().is_empty());
}

#[tokio::test]
async fn a_connection_cut_while_idle_is_made_anew() {
    let tenants = Authority::new("Tenant CA");
    let secure = registry(ClientAuth::required(&tenants), false).await;
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    secure.registry.once(Route::ManifestGet, Fault::Reset);
    pull_with(&client(), spec, &certificate(&tenants.client(URI), "Tenant CA", "1"))
        .await
        .unwrap();
    let connections = secure.registry.connections();
    assert_eq!(connections.len(), 2);
    assert!(
        connections
            .iter()
            .all(|c| c.client_certificate.is_some() && c.resumed == Some(false))
    );
}
