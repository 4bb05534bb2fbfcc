//! Logins of pull secrets: sent only when asked for, in the form that was asked for, and to nobody else.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Method, Response};
use mintmark::{
    credential::{CredentialGeneration, Login, LoginCredential, Presented},
    registry::{Failure, Outcome, RegistryClient, RegistryConfig},
};
use mintmark_tests::fault_registry::{Artifact, ClientAuth, Fault, FaultRegistry, Recorded, Route, Verdict};
use rstest::rstest;

use crate::support::*;

const USER: &str = "robot";
/// What must be nowhere but in the requests meant to carry it; see [`refused`].
const PASSWORD: &str = TOKEN;
const EXCHANGED: &str = "exchanged-token";

fn login(username: &str, password: &str) -> Login {
    Login {
        username: username.to_owned(),
        password: password.to_owned().into(),
        identity_token: None,
        registry_token: None,
    }
}

fn source(login: Login) -> Arc<Source> {
    Source::new(vec![Presented::Login(LoginCredential {
        login: login.into(),
        generation: CredentialGeneration("uid-1/PullSecret/s/1".into()),
    })])
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

async fn registry() -> Secure {
    registry_and_stranger(ClientAuth::None, ClientAuth::None).await.0
}

/// Lets in whoever has this Authorization header, and challenges others with this line.
fn gate(wanted: String, challenge: String) -> impl Fn(&Recorded) -> Verdict {
    move |request| {
        if request.authorization() == Some(&wanted) {
            Verdict::Allow
        } else {
            Verdict::Challenge(vec![challenge.clone()])
        }
    }
}

fn token_answer() -> Response<Bytes> {
    Response::new(Bytes::from(format!(r#"{{"token":"{EXCHANGED}","expires_in":300}}"#)))
}

/// Makes `secure` want a token of `realm`, and `realm` give one for `authorization`.
fn exchange_at(secure: &Secure, realm: &FaultRegistry, name: &str, authorization: String) {
    let challenge = format!(
        "Bearer realm=\"{}/token\",service=\"any\",scope=\"x\"",
        realm.origin_as(name)
    );
    secure.registry.set_gate(gate(format!("Bearer {EXCHANGED}"), challenge));
    realm.page("/token", move |request| {
        if request.authorization() == Some(&authorization) {
            token_answer()
        } else {
            Response::builder().status(401).body(Bytes::new()).unwrap()
        }
    });
}

fn authorizations(registry: &FaultRegistry) -> Vec<Option<String>> {
    let requests = registry.requests();
    requests
        .iter()
        .map(|request| request.authorization().map(str::to_owned))
        .collect()
}

#[rstest]
#[case::basic("Basic realm=\"x\"")]
#[case::realm_is_a_word("Bearer realm=\"x\"")]
#[tokio::test]
async fn a_login_is_sent_when_asked_for_and_then_remembered(#[case] challenge: &str) {
    let secure = registry().await;
    secure
        .registry
        .set_gate(gate(basic(USER, PASSWORD), challenge.to_owned()));
    let (client, source) = (client(), source(login(USER, PASSWORD)));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    pull_with(&client, spec.clone(), &source).await.unwrap();
    let sent = Some(basic(USER, PASSWORD));
    let expected = [None, sent.clone(), sent.clone(), sent.clone()];
    assert_eq!(authorizations(&secure.registry), expected);
    secure.registry.clear_records();
    pull_with(&client, spec, &source).await.unwrap();
    assert_eq!(authorizations(&secure.registry), [sent.clone(), sent.clone(), sent]);
}

#[tokio::test]
async fn a_registry_that_asks_for_nothing_gets_nothing() {
    let secure = registry().await;
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    pull_with(&client(), spec, &source(login(USER, PASSWORD)))
        .await
        .unwrap();
    assert_eq!(authorizations(&secure.registry), [None, None, None]);
}

#[tokio::test]
async fn a_refused_login_fails_at_once() {
    let secure = registry().await;
    secure
        .registry
        .set_gate(gate(basic(USER, "another"), "Basic realm=\"x\"".to_owned()));
    let source = source(login(USER, PASSWORD));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &source).await);
    assert!(matches!(error.failure(), Failure::LoginRefused), "{error}");
    assert!(error.is_authentication() && error.retryable());
    assert_eq!(secure.registry.log().len(), 2);
    assert_eq!(source.renewals(), 0);
}

#[rstest]
#[case::own_origin(false)]
#[case::any_https_realm(true)]
#[tokio::test]
async fn a_challenge_is_answered_with_an_exchange(#[case] elsewhere: bool) {
    let (secure, stranger) = registry_and_stranger(ClientAuth::None, ClientAuth::None).await;
    let (realm, name) = if elsewhere {
        (&stranger, "other.test")
    } else {
        (&secure.registry, "registry.test")
    };
    exchange_at(&secure, realm, name, basic(USER, PASSWORD));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    pull_with(&client(), spec, &source(login(USER, PASSWORD)))
        .await
        .unwrap();
    let exchanges: Vec<_> = realm
        .requests()
        .into_iter()
        .filter(|request| request.path() == "/token")
        .collect();
    assert_eq!(exchanges.len(), 1);
    assert_eq!(exchanges[0].method, Method::GET);
    let expected = format!(
        "service=any&scope=repository%3A{}%3Apull",
        REPOSITORY.replace('/', "%2F")
    );
    assert_eq!(exchanges[0].query(), expected);
    let to_registry = secure.registry.requests();
    let password_at_registry = |request: &&Recorded| request.path().starts_with("/v2/") && request.contains("Basic");
    assert_eq!(to_registry.iter().filter(password_at_registry).count(), 0);
}

#[tokio::test]
async fn a_realm_in_the_clear_gets_nothing() {
    let secure = registry().await;
    let clear = FaultRegistry::start(None).await;
    exchange_at(&secure, &clear, "other.test", basic(USER, PASSWORD));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &source(login(USER, PASSWORD))).await);
    assert!(matches!(error.failure(), Failure::RealmRefused { .. }), "{error}");
    assert_eq!(clear.accepted(), 0);
}

#[tokio::test]
async fn only_the_registry_can_ask_for_a_login() {
    let (secure, stranger) = registry_and_stranger(ClientAuth::None, ClientAuth::None).await;
    let challenge = format!("Bearer realm=\"{}/token\"", stranger.origin_as("other.test"));
    stranger.set_gate(move |_| Verdict::Challenge(vec![challenge.clone(), "Basic realm=\"x\"".to_owned()]));
    let target = format!("{}/v2/elsewhere", stranger.origin_as("other.test"));
    secure.registry.always(Route::Blob, Fault::redirect(target));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    refused(pull_with(&client(), spec, &source(login(USER, PASSWORD))).await);
    assert_eq!(authorizations(&stranger), [None]);
}

#[tokio::test]
async fn an_identity_token_is_posted() {
    let secure = registry().await;
    let origin = secure.registry.origin_as("registry.test");
    let challenge = format!("Bearer realm=\"{origin}/token\",service=\"any service\"");
    secure.registry.set_gate(gate(format!("Bearer {EXCHANGED}"), challenge));
    secure.registry.page("/token", |request| {
        let form = request.form();
        let wanted = [
            ("grant_type", "refresh_token"),
            ("refresh_token", PASSWORD),
            ("client_id", "mintmark"),
            ("scope", "repository:tenant/app:pull"),
            ("service", "any service"),
        ];
        let complete = wanted
            .iter()
            .all(|(name, value)| form.iter().any(|(n, v)| n == name && v == value));
        if request.method == Method::POST && complete && request.authorization().is_none() {
            Response::new(Bytes::from(format!(
                r#"{{"access_token":"{EXCHANGED}","refresh_token":"r"}}"#
            )))
        } else {
            Response::builder().status(400).body(Bytes::new()).unwrap()
        }
    });
    let mut login = login("", "");
    login.identity_token = Some(PASSWORD.into());
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    pull_with(&client(), spec, &source(login)).await.unwrap();
    let mut to_registry = secure.registry.requests();
    to_registry.retain(|request| request.path() != "/token");
    assert_eq!(to_registry.len(), 4);
    assert!(!to_registry.iter().any(|request| request.contains(PASSWORD)));
}

#[tokio::test]
async fn a_token_server_without_oauth2_is_asked_the_other_way() {
    let secure = registry().await;
    let origin = secure.registry.origin_as("registry.test");
    secure.registry.set_gate(gate(
        format!("Bearer {EXCHANGED}"),
        format!("Bearer realm=\"{origin}/token\""),
    ));
    secure.registry.page("/token", |request| {
        if request.method == Method::POST {
            Response::builder().status(404).body(Bytes::new()).unwrap()
        } else if request.authorization() == Some(&basic("<token>", PASSWORD)) {
            token_answer()
        } else {
            Response::builder().status(401).body(Bytes::new()).unwrap()
        }
    });
    let mut login = login("", "");
    login.identity_token = Some(PASSWORD.into());
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    pull_with(&client(), spec, &source(login)).await.unwrap();
}

#[tokio::test]
async fn a_registry_token_is_a_bearer_token_for_the_registry_alone() {
    let (secure, stranger) = registry_and_stranger(ClientAuth::None, ClientAuth::None).await;
    let challenge = format!("Bearer realm=\"{}/token\"", stranger.origin_as("other.test"));
    secure.registry.set_gate(gate(format!("Bearer {PASSWORD}"), challenge));
    let mut login = login("", "");
    login.registry_token = Some(PASSWORD.into());
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    pull_with(&client(), spec, &source(login)).await.unwrap();
    assert_eq!(secure.registry.log().len(), 4);
    assert_eq!(stranger.accepted(), 0);
}

#[tokio::test]
async fn an_insecure_registry_gets_the_login_its_user_wrote() {
    let registry = FaultRegistry::start(None).await;
    registry.push(REPOSITORY, "v1", &Artifact::flux(&[("a.yaml", "a: 1\n")]));
    registry.set_gate(gate(basic(USER, PASSWORD), "Basic realm=\"x\"".to_owned()));
    let spec = spec(&registry.host_as("registry.test"), None);
    pull_with(&client(), spec, &source(login(USER, PASSWORD)))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_audit_log_hears_of_a_login_when_it_is_presented() {
    let secure = registry().await;
    let seen = Arc::new(Seen::default());
    let client = RegistryClient::new(RegistryConfig {
        observer: Arc::clone(&seen) as _,
        ..config()
    });
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let source = source(login(USER, PASSWORD));
    pull_with(&client, spec.clone(), &source).await.unwrap();
    assert!(seen.presented.lock().unwrap().is_empty(), "nothing was presented");
    secure
        .registry
        .set_gate(gate(basic(USER, PASSWORD), "Basic realm=\"x\"".to_owned()));
    pull_with(&client, spec, &source).await.unwrap();
    let presented = seen.presented.lock().unwrap();
    let outcomes: Vec<_> = presented
        .iter()
        .map(|(_, generation, _, outcome)| (generation.as_str(), *outcome))
        .collect();
    assert_eq!(outcomes, [("uid-1/PullSecret/s/1", Outcome::Success)]);
}
