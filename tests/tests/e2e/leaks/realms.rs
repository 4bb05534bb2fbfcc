//! Token realms: which ones get the credential, and who gets the exchanged token.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Response;
use mintmark_tests::{
    env::AUDIENCE,
    fault_registry::{ClientAuth, FaultRegistry, Recorded, Verdict},
    specs,
};
use serde_json::json;

use super::{PLANTED, REPOSITORY, World, has_identity, token};

#[tokio::test]
async fn a_foreign_realm_gets_nothing() -> Result<()> {
    let world = World::new().await?;
    let clear = format!("{}/token?x={PLANTED}", world.clear.origin());
    let foreign = format!("{}/token?x={PLANTED}", world.store.origin());
    for realm in [foreign, clear] {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"{AUDIENCE}\"");
        world
            .registry
            .set_gate(move |_| Verdict::Challenge(vec![challenge.clone()]));
        if world.registry.requests().is_empty() {
            let text = "failed to determine artifact digest: the credential may not be sent to the token realm https://127.0.0.1";
            world.all_fail("AuthenticationFailed", text).await?;
        } else {
            for (name, _) in world.objects() {
                let text = format!("the token realm {}: ", world.clear.origin());
                world.env.reconcile(&world.tenant, name).await?;
                world
                    .env
                    .failed(&world.tenant, name, "AuthenticationFailed", &text)
                    .await?;
            }
        }
    }
    assert_eq!((world.store.accepted(), world.clear.accepted()), (0, 0));
    assert!(world.registry.requests().iter().all(has_identity));
    world.check().await
}

/// Answers a token request with a token that holds [`PLANTED`].
fn exchange(_: &Recorded) -> Response<Bytes> {
    Response::new(
        json!({"token": format!("exchanged-{PLANTED}"), "expires_in": 300})
            .to_string()
            .into(),
    )
}

/// Lets exchanged tokens in, sends everybody else to the realm.
fn send_to_realm(registry: &FaultRegistry, realm: &FaultRegistry) {
    realm.page("/token", exchange);
    let challenge = format!("Bearer realm=\"{}/token\",service=\"{AUDIENCE}\"", realm.origin());
    let expected = format!("Bearer exchanged-{PLANTED}");
    registry.set_gate(move |request| {
        if request.authorization() == Some(&expected) {
            Verdict::Allow
        } else {
            Verdict::Challenge(vec![challenge.clone()])
        }
    });
}

#[tokio::test]
async fn a_realm_on_the_own_origin_gets_the_exchange() -> Result<()> {
    let world = World::new().await?;
    send_to_realm(&world.registry, &world.registry);
    for (name, spec) in world.objects() {
        world.env.create(&world.tenant, name, spec).await?;
    }
    for (name, _) in world.objects() {
        world.env.ready(&world.tenant, name).await?;
    }
    let requests = world.registry.requests();
    let exchanges: Vec<_> = requests.iter().filter(|request| request.path() == "/token").collect();
    assert_eq!(exchanges.len(), 3);
    for request in &exchanges {
        let scope = format!("scope=repository%3A{}%3Apull", REPOSITORY.replace('/', "%2F"));
        assert!(request.query().contains(&scope), "{}", request.query());
        let by_certificate = request.connection.client_certificate.is_some();
        let basic = request.authorization().is_some_and(|value| value.starts_with("Basic "));
        assert!(by_certificate != basic, "{request:?}");
    }
    // The one with the certificate keeps it beside the token it got.
    let with_both = requests
        .iter()
        .filter(|request| request.connection.client_certificate.is_some() && request.authorization().is_some());
    assert_eq!(with_both.count(), 3, "HEAD, manifest, blob");
    world.check().await
}

#[tokio::test]
async fn a_realm_that_an_audience_names_gets_the_exchange_and_nobody_else_the_token() -> Result<()> {
    let world = World::new().await?;
    let issuer = world.ca.registry(ClientAuth::optional_pem(&[world.env.ca.pem()])).await;
    send_to_realm(&world.registry, &issuer);
    let mut spec = specs::secure_jwt(&world.registry.url(REPOSITORY));
    spec["audiences"] = json!([AUDIENCE, issuer.origin()]);
    world.env.create(&world.tenant, "jwt", spec).await?;
    world.env.ready(&world.tenant, "jwt").await?;
    let [request] = issuer.requests().try_into().expect("one exchange");
    let sent = request.authorization().and_then(token).context("the JWT")?;
    assert!(world.tokens().contains(&sent), "the same that the registry refused");
    world.check().await
}

#[tokio::test]
async fn exchanged_tokens_stay_with_their_object() -> Result<()> {
    let world = World::new().await?;
    let issued = AtomicUsize::new(0);
    world.registry.page("/token", move |_| {
        let number = issued.fetch_add(1, Ordering::Relaxed);
        Response::new(
            json!({"token": format!("exchanged-{number}-{PLANTED}"), "expires_in": 300})
                .to_string()
                .into(),
        )
    });
    let challenge = format!("Bearer realm=\"{}/token\"", world.registry.origin());
    world.registry.set_gate(move |request| {
        if request
            .authorization()
            .is_some_and(|value| value.starts_with("Bearer exchanged-"))
        {
            Verdict::Allow
        } else {
            Verdict::Challenge(vec![challenge.clone()])
        }
    });
    // Same repository, same audiences: only the object differs.
    for name in ["one", "two"] {
        let spec = specs::secure_jwt(&world.registry.url(REPOSITORY));
        world.env.create(&world.tenant, name, spec).await?;
        world.env.ready(&world.tenant, name).await?;
    }
    let used = |number: usize| {
        let wanted = format!("Bearer exchanged-{number}-{PLANTED}");
        let requests = world.registry.requests();
        requests
            .iter()
            .filter(|request| request.authorization() == Some(&wanted))
            .count()
    };
    assert_eq!(
        [used(0), used(1), used(2)],
        [3, 3, 0],
        "HEAD, manifest, blob with a token each"
    );
    // Kept beyond the pass.
    world.env.reconcile(&world.tenant, "two").await?;
    assert_eq!([used(0), used(1), used(2)], [3, 4, 0]);
    world.check().await
}
