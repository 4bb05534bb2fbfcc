//! Connections with a client certificate are an identity: never shared, never resumed; and what becomes of a pull when the
//! server does not ask for the certificate, or does not take it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use futures::future::try_join_all;
use kube::api::DeleteParams;
use mintmark_hack::{
    controller::signing_secret,
    pki::{TestCa, install_provider},
};
use mintmark_tests::{
    env::Env,
    fault_registry::{Artifact, Authority, ClientAuth, FaultRegistry, Recorded},
    ring::AT_ONCE,
    secure::ServerCa,
    specs,
};
use serde_json::{Value, json};

fn artifact() -> Artifact {
    Artifact::flux(&[("app.yaml", "a: 1\n")])
}

fn every_second(mut spec: Value) -> Value {
    spec["interval"] = json!("1s");
    spec
}

fn repository(request: &Recorded) -> &str {
    request.path().split('/').nth(3).unwrap_or_default()
}

fn holds(der: &[u8], text: &str) -> bool {
    der.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Shows that the server would resume: a client without our rules does so. Both connections are the newest recorded.
async fn assert_it_can_resume(registry: &FaultRegistry, ca: &ServerCa, clients: &TestCa) -> Result<()> {
    install_provider();
    let pair = clients.uri_client("spiffe://cluster.example/control")?;
    let client = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .add_root_certificate(reqwest::Certificate::from_pem(ca.pem().as_bytes())?)
        .identity(reqwest::Identity::from_pem(
            format!("{}{}", pair.key_pem, pair.certificate_pem).as_bytes(),
        )?)
        .build()?;
    for _ in 0..2 {
        client
            .get(format!("{}/v2/", registry.origin()))
            .send()
            .await?
            .bytes()
            .await?;
    }
    let last = registry.connections().pop();
    assert_eq!(
        last.and_then(|connection| connection.resumed),
        Some(true),
        "the control did not resume"
    );
    Ok(())
}

#[tokio::test]
async fn certificates_share_neither_connections_nor_tls_sessions() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&AT_ONCE).await?;
    let tenant = env.tenant("connections").await?;
    let ca = ServerCa::new(&env, &tenant).await?;
    let next = TestCa::new("next test CA")?;
    let registry = ca.registry(ClientAuth::required_pem(&[env.ca.pem(), next.pem()])).await;
    let names = ["a", "b", "c"];
    for name in names {
        registry.push(&format!("team/{name}"), "v1", &artifact());
        let spec = every_second(specs::certificate(&registry.url(&format!("team/{name}"))));
        env.create(&tenant, name, spec).await?;
    }
    try_join_all(names.map(|name| env.ready(&tenant, name))).await?;
    let passes =
        |requests: &[Recorded], name: &str| requests.iter().filter(|request| repository(request) == name).count();
    registry
        .until("quiet passes", |requests| {
            names.iter().all(|name| passes(requests, name) >= 6)
        })
        .await;
    let before = registry.connections();
    assert_eq!(before.len(), names.len(), "one each, whatever the number of passes");

    signing_secret(env.cluster, &env.installation.namespace, next.key_and_certificate()).await?;
    let old = before.len();
    registry
        .until("passes with new certificates", |requests| {
            let renewed: Vec<_> = requests
                .iter()
                .filter(|request| request.connection.id >= old)
                .cloned()
                .collect();
            names.iter().all(|name| passes(&renewed, name) >= 3)
        })
        .await;
    check_identities(&registry, &tenant, 2);
    let last: BTreeMap<_, _> = registry
        .requests()
        .iter()
        .map(|r| (repository(r).to_owned(), r.connection.id))
        .collect();
    assert!(
        last.values().all(|id| *id >= old),
        "an old connection is in use: {last:?}"
    );
    registry
        .until_open("the old connections end", |open| open.iter().all(|id| *id >= old))
        .await;
    env.repositories(&tenant).delete("a", &DeleteParams::default()).await?;
    registry
        .until_open("a connection ends with its object", |open| {
            open.len() == names.len() - 1
        })
        .await;
    assert_it_can_resume(&registry, &ca, &next).await?;
    drop(controller);
    Ok(())
}

/// Every object has `each` connections, each a full handshake with a certificate of its own.
fn check_identities(registry: &FaultRegistry, tenant: &str, each: usize) {
    let mut users: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    for request in registry.requests() {
        let name = repository(&request).to_owned();
        let certificate = request.connection.client_certificate.expect("a certificate");
        assert!(
            holds(&certificate, &Env::spiffe_id(tenant, &name)),
            "{name} came with another certificate"
        );
        assert!(request.headers.get("authorization").is_none());
        users.entry(request.connection.id).or_default().insert(name);
    }
    let connections = registry.connections();
    assert!(connections.iter().all(|connection| connection.resumed == Some(false)));
    let certificates: BTreeSet<_> = connections.iter().map(|found| &found.client_certificate).collect();
    assert_eq!(
        certificates.len(),
        connections.len(),
        "a certificate on two connections"
    );
    let mut owned: BTreeMap<&str, usize> = BTreeMap::new();
    for names in users.values() {
        assert_eq!(names.len(), 1, "a connection of {names:?}");
        *owned.entry(names.first().expect("a name")).or_default() += 1;
    }
    assert!(owned.values().all(|count| *count == each), "{owned:?}");
}

#[tokio::test]
async fn a_server_that_asks_for_no_certificate_gets_no_request() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("connections").await?;
    let ca = ServerCa::new(&env, &tenant).await?;
    let registry = ca.registry(ClientAuth::None).await;
    registry.push("team/app", "v1", &artifact());
    env.create(&tenant, "app", specs::certificate(&registry.url("team/app")))
        .await?;
    let message = "failed to determine artifact digest: registry did not ask for a client certificate";
    env.failed(&tenant, "app", "AuthenticationFailed", message).await?;
    let event = env.event(&tenant, "app", "AuthenticationFailed").await?;
    assert_eq!(event.message.as_deref(), Some(message));
    assert!(registry.accepted() > 0);
    assert!(
        registry.requests().is_empty(),
        "it would have been an anonymous pull: {:?}",
        registry.log()
    );
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn a_refused_certificate_is_told_with_the_alert_and_its_issuer() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("connections").await?;
    let ca = ServerCa::new(&env, &tenant).await?;
    let others = Authority::new("CA of others");
    let cases = [
        (
            "stranger",
            ca.registry(ClientAuth::required(&others)).await,
            "unknown_ca",
        ),
        (
            "revoked",
            ca.registry(ClientAuth::Refuse { revoked: true }).await,
            "certificate_revoked",
        ),
    ];
    for (name, registry, alert) in &cases {
        registry.push("team/app", "v1", &artifact());
        env.create(&tenant, name, specs::certificate(&registry.url("team/app")))
            .await?;
        let message =
            format!("registry does not accept the client certificate issued by 'mintmark test CA' (TLS alert {alert}:");
        env.failed(&tenant, name, "AuthenticationFailed", &message).await?;
        env.event(&tenant, name, "AuthenticationFailed").await?;
        assert!(registry.requests().is_empty());
    }
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn tokens_share_connections_that_carry_no_identity() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("connections").await?;
    let ca = ServerCa::new(&env, &tenant).await?;
    let registry = ca.registry(ClientAuth::optional_pem(&[env.ca.pem()])).await;
    for name in ["a", "b"] {
        registry.push(&format!("team/{name}"), "v1", &artifact());
        let spec = every_second(specs::secure_jwt(&registry.url(&format!("team/{name}"))));
        env.create(&tenant, name, spec).await?;
    }
    registry.until("first passes", |requests| requests.len() >= 12).await;
    let connections = registry.connections().len();
    registry.until("quiet passes", |requests| requests.len() >= 24).await;
    // Both passes may be under way at a time.
    let now = registry.connections();
    assert!(
        now.len() <= connections.max(2),
        "a quiet pass needs no new connection: {now:?}"
    );
    let on = |name: &str| -> BTreeSet<_> {
        let requests = registry.requests();
        requests
            .iter()
            .filter(|request| repository(request) == name)
            .map(|request| request.connection.id)
            .collect()
    };
    assert!(!on("a").is_disjoint(&on("b")), "both use the same");
    assert!(now.iter().all(|connection| connection.client_certificate.is_none()));
    for request in registry.requests() {
        let authorization = request.authorization().unwrap_or_default();
        assert!(
            authorization.starts_with("Bearer "),
            "each request has its own credential"
        );
    }
    let tokens: BTreeMap<String, BTreeSet<String>> =
        registry.requests().iter().fold(BTreeMap::new(), |mut all, request| {
            let tokens: &mut BTreeSet<_> = all.entry(repository(request).to_owned()).or_default();
            tokens.insert(request.authorization().unwrap_or_default().to_owned());
            all
        });
    assert!(
        tokens["a"].is_disjoint(&tokens["b"]),
        "one object's token was used for another"
    );
    drop(controller);
    Ok(())
}
