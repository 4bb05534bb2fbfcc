//! Tokens: what is presented first, what becomes of a challenge, and where a token never goes.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::Response;
use mintmark::{
    credential::Presented,
    registry::{Failure, HostGlob, Outcome, RegistryClient, RegistryConfig},
};
use mintmark_tests::fault_registry::{Artifact, ClientAuth, Fault, FaultRegistry, Leaf, Recorded, Route, Tls, Verdict};
use rstest::rstest;

use crate::support::*;

const EXCHANGED: &str = "exchanged-token";

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn basic(user: &str, token: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{token}")))
}

async fn registry() -> Secure {
    let secure = secure(ClientAuth::None).await;
    secure
        .registry
        .push(REPOSITORY, "v1", &Artifact::flux(&[("a.yaml", "a: 1\n")]));
    secure
}

/// Lets in whoever has this Authorization header, and challenges others with these lines.
fn gate(wanted: String, lines: Vec<String>) -> impl Fn(&Recorded) -> Verdict {
    move |request| {
        if request.authorization() == Some(&wanted) {
            Verdict::Allow
        } else {
            Verdict::Challenge(lines.clone())
        }
    }
}

fn token_answer(body: &str) -> Response<Bytes> {
    Response::new(Bytes::copy_from_slice(body.as_bytes()))
}

/// A challenge to exchange at `<realm>/token`.
fn exchange_at(realm: &str, service: &str) -> Vec<String> {
    vec![format!(
        "Bearer realm=\"{realm}/token\",service=\"{service}\",scope=\"something:else\""
    )]
}

/// A registry whose own `/token` exchanges the JWT.
async fn exchanging() -> Secure {
    let secure = registry().await;
    let origin = secure.registry.origin_as("registry.test");
    secure
        .registry
        .set_gate(gate(bearer(EXCHANGED), exchange_at(&origin, "anything")));
    secure.registry.page("/token", |request| {
        if request.authorization() == Some(&basic("jwt", TOKEN)) || request.authorization().is_none() {
            token_answer(&format!(r#"{{"token":"{EXCHANGED}","expires_in":300}}"#))
        } else {
            Response::builder().status(401).body(Bytes::new()).unwrap()
        }
    });
    secure
}

#[tokio::test]
async fn a_token_is_presented_at_once_and_only_as_bearer() {
    let secure = registry().await;
    secure.registry.set_gate(gate(bearer(TOKEN), vec![]));
    let source = jwt(TOKEN, &["registry.test"]);
    pull_with(
        &client(),
        spec(&secure.registry.host_as("registry.test"), Some(&secure.ca)),
        &source,
    )
    .await
    .unwrap();
    assert_eq!(secure.registry.log().len(), 3);
    assert_eq!(source.renewals(), 0);
}

#[tokio::test]
async fn with_a_user_name_the_token_is_the_password() {
    let secure = registry().await;
    secure.registry.set_gate(gate(basic("robot", TOKEN), vec![]));
    let mut credential = jwt_credential(TOKEN, &["registry.test"]);
    credential.username = Some("robot".into());
    let source = Source::new(vec![Presented::Jwt(credential)]);
    pull_with(
        &client(),
        spec(&secure.registry.host_as("registry.test"), Some(&secure.ca)),
        &source,
    )
    .await
    .unwrap();
    assert_eq!(secure.registry.log().len(), 3);
}

#[rstest]
#[case::basic(vec!["Basic realm=\"zot\"".to_owned()])]
#[case::no_challenge(vec![])]
#[case::realm_is_a_word(vec!["Bearer realm=\"zot\"".to_owned()])]
#[tokio::test]
async fn without_a_usable_challenge_basic_is_tried_and_remembered(#[case] lines: Vec<String>) {
    let secure = registry().await;
    secure.registry.set_gate(gate(basic("jwt", TOKEN), lines));
    let (client, source) = (client(), jwt(TOKEN, &["registry.test"]));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    pull_with(&client, spec.clone(), &source).await.unwrap();
    assert_eq!(secure.registry.log().len(), 4, "one bearer, then basic thrice");
    pull_with(&client, spec, &source).await.unwrap();
    assert_eq!(secure.registry.log().len(), 7);
}

#[tokio::test]
async fn a_challenge_of_the_registry_itself_is_exchanged_once_per_object() {
    let secure = exchanging().await;
    let (client, source) = (client(), jwt(TOKEN, &["elsewhere"]));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    for _ in 0..2 {
        pull_with(&client, spec.clone(), &source).await.unwrap();
    }
    let exchanges = |registry: &FaultRegistry| -> Vec<String> {
        registry
            .requests()
            .iter()
            .filter(|r| r.path() == "/token")
            .map(|r| r.query().to_owned())
            .collect()
    };
    let expected = format!(
        "service=anything&scope=repository%3A{}%3Apull",
        REPOSITORY.replace('/', "%2F")
    );
    assert_eq!(exchanges(&secure.registry), [expected], "our own scope, and only once");

    let mut other = spec.clone();
    other.object_uid = "uid-2".into();
    pull_with(&client, other, &source).await.unwrap();
    assert_eq!(
        exchanges(&secure.registry).len(),
        2,
        "another object exchanges for itself"
    );
    client.forget(&spec.object_uid);
    pull_with(&client, spec, &source).await.unwrap();
    assert_eq!(exchanges(&secure.registry).len(), 3, "a forgotten object starts anew");
}

#[tokio::test]
async fn an_anonymous_pull_exchanges_without_authorization() {
    let secure = exchanging().await;
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    pull_with(&client(), spec, &anonymous()).await.unwrap();
    let exchange = secure
        .registry
        .requests()
        .into_iter()
        .find(|request| request.path() == "/token")
        .unwrap();
    assert_eq!(exchange.authorization(), None);
}

#[tokio::test]
async fn an_anonymous_pull_fails_where_a_credential_is_required() {
    let secure = registry().await;
    secure
        .registry
        .set_gate(gate(bearer(TOKEN), vec!["Basic realm=\"x\"".to_owned()]));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &anonymous()).await);
    assert!(matches!(error.failure(), Failure::CredentialRequired), "{error}");
    assert_eq!(secure.registry.log().len(), 1);
}

#[tokio::test]
async fn an_exchanged_token_is_replaced_when_it_expires_or_is_refused() {
    let secure = exchanging().await;
    let origin = secure.registry.origin_as("registry.test");
    secure.registry.page("/token", |_| {
        token_answer(&format!(r#"{{"access_token":"{EXCHANGED}","expires_in":0}}"#))
    });
    let (client, source) = (client(), jwt(TOKEN, &["x"]));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    pull_with(&client, spec.clone(), &source).await.unwrap();
    let exchanges = || {
        secure
            .registry
            .requests()
            .iter()
            .filter(|request| request.path() == "/token")
            .count()
    };
    assert_eq!(exchanges(), 3, "each request needs its own");

    secure
        .registry
        .page("/token", |_| token_answer(r#"{"token":"new","expires_in":300}"#));
    secure.registry.set_gate(gate(bearer("new"), exchange_at(&origin, "s")));
    pull_with(&client, spec.clone(), &source).await.unwrap();
    secure
        .registry
        .page("/token", |_| token_answer(r#"{"token":"newer","expires_in":300}"#));
    secure
        .registry
        .set_gate(gate(bearer("newer"), exchange_at(&origin, "s")));
    pull_with(&client, spec, &source).await.unwrap();
    assert_eq!(exchanges(), 5);
    assert_eq!(source.renewals(), 0);
}

#[rstest]
#[case::not_json("<html>")]
#[case::no_token("{}")]
#[case::control_characters(r#"{"token":"a\r\nx: y"}"#)]
#[case::white_space(r#"{"token":"a b"}"#)]
#[tokio::test]
async fn an_unusable_token_answer_fails(#[case] body: &'static str) {
    let secure = exchanging().await;
    secure.registry.page("/token", |_| token_answer(body));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &jwt(TOKEN, &["x"])).await);
    assert!(matches!(error.failure(), Failure::Invalid(_)), "{error}");
}

#[tokio::test]
async fn oversized_token_answers_fail() {
    let secure = exchanging().await;
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    for length in [17 * 1024, 70 * 1024] {
        secure.registry.page("/token", move |_| {
            token_answer(&format!(r#"{{"token":"{}"}}"#, "x".repeat(length)))
        });
        let error = refused(pull_with(&client(), spec.clone(), &jwt(TOKEN, &["x"])).await);
        assert!(
            matches!(error.failure(), Failure::Invalid(_) | Failure::TooLarge { .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_token_request_is_not_redirected() {
    let secure = exchanging().await;
    let elsewhere = FaultRegistry::start(None).await;
    let target = format!("{}/steal", elsewhere.origin_as("127.0.0.1"));
    secure
        .registry
        .once(Route::Path("/token".to_owned()), Fault::redirect(target));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &jwt(TOKEN, &["x"])).await);
    assert!(matches!(error.failure(), Failure::RedirectRefused(_)), "{error}");
    assert!(elsewhere.connections().is_empty());
}

/// A registry and a token server of one CA, on two origins.
async fn with_token_server(service: &str, scheme: &str) -> (Secure, FaultRegistry) {
    let (authority, ca) = server_pair();
    let tls = |leaf: Leaf| {
        Some(Tls {
            leaf,
            client_auth: ClientAuth::None,
            tls12_only: false,
        })
    };
    let tokens = FaultRegistry::start(tls(authority.server(&["tokens.test"]))).await;
    let registry = FaultRegistry::start(tls(authority.server(&["registry.test"]))).await;
    registry.push(REPOSITORY, "v1", &Artifact::flux(&[("a.yaml", "a: 1\n")]));
    tokens.page("/token", |_| token_answer(&format!(r#"{{"token":"{EXCHANGED}"}}"#)));
    let realm = format!("{scheme}://{}", tokens.host_as("tokens.test"));
    let service = service.replace("REGISTRY", &registry.host_as("registry.test"));
    registry.set_gate(gate(bearer(EXCHANGED), exchange_at(&realm, &service)));
    (Secure { registry, ca }, tokens)
}

#[rstest]
#[case::service_is_the_registry("REGISTRY", true, "https", true)]
#[case::service_is_an_audience("the-service", true, "https", true)]
#[case::no_audience_names_it("REGISTRY", false, "https", false)]
#[case::another_service("evil", true, "https", false)]
#[case::plain_http("REGISTRY", true, "http", false)]
#[case::user_information("REGISTRY", true, "https://user:pw@", false)]
#[tokio::test]
async fn a_foreign_realm_gets_the_token_only_if_an_audience_names_it(
    #[case] service: &str,
    #[case] named: bool,
    #[case] scheme: &str,
    #[case] accepted: bool,
) {
    let plain_scheme = scheme.split("://").next().unwrap();
    let (secure, tokens) = with_token_server(service, plain_scheme).await;
    if scheme.contains('@') {
        let realm = format!("https://user:pw@{}", tokens.host_as("tokens.test"));
        let lines = exchange_at(&realm, &secure.registry.host_as("registry.test"));
        secure.registry.set_gate(gate(bearer(EXCHANGED), lines));
    }
    let origin = format!("https://{}", tokens.host_as("tokens.test"));
    let audiences: Vec<&str> = if named {
        vec!["the-service", &origin]
    } else {
        vec!["the-service", "tokens"]
    };
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let result = pull_with(&client(), spec, &jwt(TOKEN, &audiences)).await;
    if accepted {
        result.unwrap();
        assert_eq!(tokens.requests()[0].authorization(), Some(&*basic("jwt", TOKEN)));
    } else {
        let error = refused(result);
        assert!(matches!(error.failure(), Failure::RealmRefused { .. }), "{error}");
        assert!(error.is_authentication());
        assert!(tokens.connections().is_empty(), "nothing reached the realm");
        assert_eq!(secure.registry.log().len(), 1, "and no weaker credential was tried");
    }
}

#[tokio::test]
async fn a_refused_token_is_minted_anew_once() {
    let secure = registry().await;
    secure.registry.set_gate(gate(bearer("second"), vec![]));
    let both = ["first", "second"].map(|token| Presented::Jwt(jwt_credential(token, &["x"])));
    let source = Source::new(both.to_vec());
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    pull_with(&client(), spec, &source).await.unwrap();
    assert_eq!(source.renewals(), 1);
}

#[tokio::test]
async fn refused_for_ever_is_not_accepted_and_ends_soon() {
    let secure = registry().await;
    secure
        .registry
        .set_gate(|_| Verdict::Challenge(vec!["Basic realm=\"x\"".to_owned()]));
    let source = jwt(TOKEN, &["registry.test"]);
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &source).await);
    assert!(
        matches!(error.failure(), Failure::NotAccepted { fresh: true }),
        "{error}"
    );
    assert!(error.retryable() && error.is_authentication());
    assert_eq!(
        error.message(),
        "registry does not accept the credential (401: issuer, audience or CA unknown there, or it cannot reach the issuer)"
    );
    assert_eq!(source.renewals(), 1);
    assert_eq!(secure.registry.log().len(), 4, "bearer and basic, twice");
}

#[tokio::test]
async fn forbidden_is_final_whatever_the_challenge_says() {
    let secure = registry().await;
    secure.registry.always(
        Route::Any,
        Fault::Answer {
            status: 403,
            headers: vec![("www-authenticate", "Basic realm=\"misleading\"".to_owned())],
            body: format!("{{\"errors\":[{{\"code\":\"DENIED\",\"message\":\"{TOKEN}\"}}]}}"),
        },
    );
    let source = jwt(TOKEN, &["registry.test"]);
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &source).await);
    assert_eq!(error.message(), "authenticated but not authorised (403)");
    assert_eq!((secure.registry.log().len(), source.renewals()), (1, 0));
}

#[tokio::test]
async fn a_token_goes_in_the_clear_to_loopback_or_where_allowed() {
    let registry = FaultRegistry::start(None).await;
    registry.push(REPOSITORY, "v1", &Artifact::flux(&[("a.yaml", "a: 1\n")]));
    let source = jwt(TOKEN, &["x"]);
    pull_with(&client(), spec(&registry.host(), None), &source)
        .await
        .unwrap();
    pull_with(&client(), spec(&registry.host_as("registry.test"), None), &source)
        .await
        .unwrap();

    for host in ["private.test:5000", "10.255.255.1:5000"] {
        let error = refused(pull_with(&client(), spec(host, None), &source).await);
        assert!(matches!(error.failure(), Failure::InsecureCredential), "{error}");
        assert!(!error.retryable());
    }
    let allowed = RegistryClient::new(RegistryConfig {
        insecure_credential_hosts: vec![HostGlob::parse("*.test").unwrap()],
        connect_timeout: Duration::from_millis(20),
        ..config()
    });
    let error = refused(pull_with(&allowed, spec("private.test:5000", None), &source).await);
    assert!(
        !matches!(error.failure(), Failure::InsecureCredential),
        "whatever that address answers: {error}"
    );
}

#[tokio::test]
async fn the_observer_learns_of_requests_and_of_first_presentations() {
    let secure = registry().await;
    let seen = Arc::new(Seen::default());
    let client = RegistryClient::new(RegistryConfig {
        observer: Arc::<Seen>::clone(&seen),
        ..config()
    });
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let source = jwt(TOKEN, &["x"]);
    for _ in 0..2 {
        pull_with(&client, spec.clone(), &source).await.unwrap();
    }
    let host = secure.registry.host_as("registry.test");
    assert_eq!(
        *seen.requests.lock().unwrap(),
        vec![(host.clone(), Outcome::Success); 6]
    );
    let generation = format!("jwt/{TOKEN}");
    assert_eq!(
        *seen.presented.lock().unwrap(),
        [(
            "uid-1".to_owned(),
            generation,
            format!("https://{host}"),
            Outcome::Success
        )]
    );
}
