//! What users bring themselves: a client certificate beside or instead of a login, and a proxy with a login of its own.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use hyper_util::client::proxy::matcher::Matcher;
use mintmark::{
    credential::{CertificateCredential, CredentialGeneration},
    registry::{Failure, ProxySettings, RegistryClient, RegistryConfig, SessionSpec},
};
use mintmark_tests::fault_registry::{
    Artifact, Authority, ClientAuth, ClientCertificate, Fault, FaultRegistry, Route, Verdict,
};
use rstest::rstest;

use crate::support::*;

const URI: &str = "spiffe://example.org/user";
const PASSWORD: &str = TOKEN;

async fn registry(client_auth: ClientAuth) -> Secure {
    let secure = secure(client_auth).await;
    secure
        .registry
        .push(REPOSITORY, "v1", &Artifact::flux(&[("a.yaml", "a: 1\n")]));
    secure
}

fn own(leaf: &ClientCertificate, generation: &str) -> CertificateCredential {
    CertificateCredential {
        chain: leaf.chain.clone().into(),
        key: Arc::new(leaf.key.clone_key().into()),
        issuer: "User CA".into(),
        generation: CredentialGeneration(generation.into()),
        must_be_asked: false,
    }
}

fn spec_with(secure: &Secure, leaf: &ClientCertificate) -> SessionSpec {
    SessionSpec {
        client_certificate: Some(own(leaf, "1")),
        ..spec(&secure.registry.host_as("registry.test"), Some(&secure.ca))
    }
}

#[tokio::test]
async fn a_certificate_of_the_user_is_presented_to_servers_that_ask() {
    let users = Authority::new("User CA");
    let leaf = users.client(URI);
    let asking = registry(ClientAuth::required(&users)).await;
    pull_with(&client(), spec_with(&asking, &leaf), &anonymous())
        .await
        .unwrap();
    let connections = asking.registry.connections();
    assert_eq!(connections.len(), 1);
    assert_eq!(connections[0].client_certificate.as_deref(), Some(&*leaf.chain[0]));

    let silent = registry(ClientAuth::None).await;
    pull_with(&client(), spec_with(&silent, &leaf), &anonymous())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_token_travels_within_connections_of_the_user() {
    let users = Authority::new("User CA");
    let leaf = users.client(URI);
    let secure = registry(ClientAuth::required(&users)).await;
    secure.registry.set_gate(|request| match request.authorization() {
        Some(value) if value == format!("Bearer {TOKEN}") => Verdict::Allow,
        _ => Verdict::Challenge(vec![]),
    });
    pull_with(&client(), spec_with(&secure, &leaf), &jwt(TOKEN, &["registry.test"]))
        .await
        .unwrap();
    assert!(
        secure
            .registry
            .requests()
            .iter()
            .all(|request| request.connection.client_certificate.is_some())
    );
}

#[tokio::test]
async fn another_version_of_the_secret_opens_another_connection() {
    let users = Authority::new("User CA");
    let leaf = users.client(URI);
    let secure = registry(ClientAuth::required(&users)).await;
    let client = client();
    let pass = async |uid: &str, generation: &str| {
        let mut spec = spec_with(&secure, &leaf);
        spec.client_certificate = Some(own(&leaf, generation));
        spec.object_uid = uid.into();
        pull_with(&client, spec, &anonymous()).await.unwrap();
        secure.registry.connections().len()
    };
    assert_eq!(pass("uid-1", "1").await, 1);
    assert_eq!(pass("uid-1", "1").await, 1);
    assert_eq!(pass("uid-1", "2").await, 2);
    assert_eq!(pass("uid-2", "2").await, 3, "another object");
    let resumed = secure
        .registry
        .connections()
        .iter()
        .any(|connection| connection.resumed == Some(true));
    assert!(!resumed);
}

#[tokio::test]
async fn a_certificate_of_the_user_stays_with_the_registry() {
    let users = Authority::new("User CA");
    let leaf = users.client(URI);
    let (secure, store) = registry_and_stranger(ClientAuth::required(&users), ClientAuth::optional(&users)).await;
    let target = format!("{}/v2/elsewhere", store.origin_as("other.test"));
    secure.registry.always(Route::Blob, Fault::redirect(target));
    refused(pull_with(&client(), spec_with(&secure, &leaf), &anonymous()).await);
    let connections = store.connections();
    assert_eq!(connections.len(), 1);
    assert_eq!(connections[0].client_certificate, None);
}

#[tokio::test]
async fn refusals_do_not_say_that_nothing_was_presented() {
    let users = Authority::new("User CA");
    let leaf = users.client(URI);
    let secure = registry(ClientAuth::required(&users)).await;
    secure.registry.set_gate(|_| Verdict::Deny);
    let error = refused(pull_with(&client(), spec_with(&secure, &leaf), &anonymous()).await);
    assert!(matches!(error.failure(), Failure::Denied), "{error}");
    secure.registry.set_gate(|_| Verdict::Challenge(vec![]));
    let error = refused(pull_with(&client(), spec_with(&secure, &leaf), &anonymous()).await);
    assert!(matches!(error.failure(), Failure::NotAccepted { .. }), "{error}");

    let others = registry(ClientAuth::Refuse { revoked: false }).await;
    let error = refused(pull_with(&client(), spec_with(&others, &leaf), &anonymous()).await);
    assert!(matches!(error.failure(), Failure::CertificateRefused { .. }), "{error}");
    assert!(error.to_string().contains("issued by 'User CA'"), "{error}");
}

fn proxied(host: &str, proxy: &FaultRegistry, username: Option<&str>) -> SessionSpec {
    let address = format!("http://{}", proxy.host_as("proxy.test"));
    SessionSpec {
        proxy: Some(ProxySettings::new(&address, username, &PASSWORD.into()).unwrap()),
        ..spec(host, None)
    }
}

async fn proxy() -> FaultRegistry {
    let proxy = FaultRegistry::start(None).await;
    proxy.push(REPOSITORY, "v1", &Artifact::flux(&[("a.yaml", "a: 1\n")]));
    proxy
}

#[tokio::test]
async fn a_proxy_of_the_object_takes_the_place_of_the_environments() {
    let (own, environment) = (proxy().await, proxy().await);
    let matcher = Matcher::builder()
        .http(format!("http://{}", environment.host()))
        .build();
    let client = RegistryClient::new(RegistryConfig {
        environment_proxies: Arc::new(matcher),
        ..config()
    });
    pull_with(&client, proxied("public.test", &own, Some("robot")), &anonymous())
        .await
        .unwrap();
    assert_eq!(environment.accepted(), 0);
    let login = format!("Basic {}", BASE64_STANDARD.encode(format!("robot:{PASSWORD}")));
    for request in own.requests() {
        assert_eq!(request.header("host"), Some("public.test"));
        assert_eq!(request.header("proxy-authorization"), Some(login.as_str()));
        assert_eq!(request.authorization(), None);
    }
}

#[tokio::test]
async fn connections_are_shared_by_those_with_the_same_proxy_and_login() {
    let (one, other) = (proxy().await, proxy().await);
    let client = client();
    let pass = async |proxy: &FaultRegistry, username| {
        pull_with(&client, proxied("public.test", proxy, username), &anonymous())
            .await
            .unwrap();
        (one.accepted(), other.accepted())
    };
    assert_eq!(pass(&one, Some("a")).await, (1, 0));
    assert_eq!(pass(&one, Some("a")).await, (1, 0));
    assert_eq!(pass(&one, Some("b")).await, (2, 0), "another login");
    assert_eq!(pass(&one, None).await, (3, 0), "no login");
    assert_eq!(pass(&other, Some("a")).await, (3, 1), "another proxy");
}

#[tokio::test]
async fn tls_goes_through_a_tunnel() {
    let secure = registry(ClientAuth::None).await;
    let proxy = proxy().await;
    let mut spec = proxied(&secure.registry.host_as("registry.test"), &proxy, Some("robot"));
    spec.insecure = false;
    spec.ca = Some(secure.ca.clone());
    let error = refused(pull_with(&client(), spec, &anonymous()).await);
    assert!(
        matches!(error.failure(), Failure::Unreachable | Failure::ConnectionLost),
        "{error}"
    );
    let request = &proxy.requests()[0];
    assert_eq!((request.method.as_str(), secure.registry.accepted()), ("CONNECT", 0));
    assert!(request.header("proxy-authorization").is_some());
}

#[rstest]
#[case::told_in_a_request(true)]
#[case::told_while_a_tunnel_is_asked_for(false)]
#[tokio::test]
async fn a_proxy_that_wants_another_login(#[case] insecure: bool) {
    let proxy = proxy().await;
    proxy.always(Route::Any, Fault::status(407));
    let mut spec = proxied("public.test", &proxy, Some("robot"));
    spec.insecure = insecure;
    let error = refused(pull_with(&client(), spec, &anonymous()).await);
    assert!(matches!(error.failure(), Failure::ProxyRefused), "{error}");
    assert!(error.is_authentication());
}

#[rstest]
#[case::denied("http://169.254.169.254:3128")]
#[case::denied_by_name("http://metadata.test:3128")]
#[tokio::test]
async fn a_proxy_has_an_address_that_is_allowed(#[case] address: &str) {
    let mut spec = spec("public.test", None);
    spec.proxy = Some(ProxySettings::new(address, Some("robot"), &PASSWORD.into()).unwrap());
    let error = refused(pull_with(&client(), spec, &anonymous()).await);
    assert!(matches!(error.failure(), Failure::AddressDenied { .. }), "{error}");
}

#[tokio::test]
async fn a_broken_proxy_of_one_object_does_not_close_the_host_to_others() {
    let registry = proxy().await;
    let client = client();
    let gone = FaultRegistry::start(None).await;
    let broken = proxied(&registry.host(), &gone, None);
    drop(gone);
    for _ in 0..4 {
        let error = refused(pull_with(&client, broken.clone(), &anonymous()).await);
        assert!(!matches!(error.failure(), Failure::CircuitOpen { .. }), "{error}");
    }
    pull_with(&client, spec(&registry.host(), None), &anonymous())
        .await
        .unwrap();
}
