//! Addresses that are never dialled: as a registry, as a realm, as the target of a redirect; by literal and by name.

use std::net::Ipv4Addr;

use anyhow::Result;
use futures::future::try_join_all;
use mintmark_tests::{
    env::{AUDIENCE, Env, condition},
    fault_registry::{Artifact, ClientAuth, Fault, FaultRegistry, Route, Verdict, sha256},
    secure::ServerCa,
    served, specs,
};
use serde_json::json;

const REPOSITORY: &str = "team/app";
const PULL: &str = "OCIArtifactPullFailed";

fn artifact() -> Artifact {
    Artifact::flux(&[("app.yaml", "a: 1\n")])
}

fn refused(host: &str) -> String {
    format!("connection to {host} refused by policy: its address is denied by --registry-deny-cidrs")
}

#[tokio::test]
async fn loopback_is_refused_unless_it_is_allowed() -> Result<()> {
    let env = Env::new().await?;
    // In place of the harness's own: an address of documentation.
    let controller = env.controller(&["--registry-allow-cidrs=192.0.2.1/32"]).await?;
    let tenant = env.tenant("addresses").await?;
    let registry = FaultRegistry::start(None).await;
    registry.push(REPOSITORY, "v1", &artifact());
    let port = registry.address().port();
    let hosts = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "127.1.2.3"];
    try_join_all(hosts.iter().enumerate().map(async |(index, host)| {
        let (name, host) = (format!("host-{index}"), format!("{host}:{port}"));
        env.create(&tenant, &name, specs::jwt(&format!("oci://{host}/{REPOSITORY}")))
            .await?;
        let object = env.failed(&tenant, &name, PULL, "refused by policy").await?;
        let message = condition(&object, "FetchFailed").map(|found| found.message.clone());
        // A literal is shown in its canonical form.
        assert!(
            message.is_some_and(|text| text.ends_with("denied by --registry-deny-cidrs")),
            "{host}"
        );
        anyhow::Ok(())
    }))
    .await?;
    assert_eq!(registry.accepted(), 0);
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn url_realm_and_redirect_to_a_denied_address_are_refused() -> Result<()> {
    let env = Env::new().await?;
    let flags = [
        "--registry-allow-cidrs=127.0.0.1/32",
        "--registry-allow-cidrs=127.0.0.3/32",
    ];
    let controller = env.controller(&flags).await?;
    let tenant = env.tenant("addresses").await?;
    let ca = ServerCa::new(&env, &tenant).await?;
    let denied = ca.registry_at(Ipv4Addr::new(127, 0, 0, 2), ClientAuth::None).await;
    let allowed = ca.registry_at(Ipv4Addr::new(127, 0, 0, 3), ClientAuth::None).await;
    for registry in [&denied, &allowed] {
        registry.push(REPOSITORY, "v1", &artifact());
    }
    let blob = format!("/v2/{REPOSITORY}/blobs/{}", sha256(&artifact().layer()));
    let to_denied = redirecting(&ca, &format!("{}{blob}?X-Signature=planted", denied.origin())).await;
    let to_allowed = redirecting(&ca, &format!("{}{blob}", allowed.origin())).await;
    let to_metadata = redirecting(&ca, "https://169.254.169.254/latest/meta-data/").await;
    let challenging = redirecting(&ca, "").await;
    let realm = format!("Bearer realm=\"{}/token\",service=\"{AUDIENCE}\"", denied.origin());
    challenging.set_gate(move |_| Verdict::Challenge(vec![realm.clone()]));

    let mut by_realm = specs::secure_jwt(&challenging.url(REPOSITORY));
    // Nothing else stands in the way of this realm.
    by_realm["audiences"] = json!([AUDIENCE, denied.origin()]);
    let cases = [
        ("url", specs::secure_jwt(&denied.url(REPOSITORY)), denied.host()),
        ("redirect", specs::secure_jwt(&to_denied.url(REPOSITORY)), denied.host()),
        (
            "metadata",
            specs::secure_jwt(&to_metadata.url(REPOSITORY)),
            "169.254.169.254".to_owned(),
        ),
        ("realm", by_realm, denied.host()),
    ];
    try_join_all(cases.into_iter().map(async |(name, spec, host)| {
        env.create(&tenant, name, spec).await?;
        env.failed(&tenant, name, PULL, &refused(&host)).await?;
        env.event(&tenant, name, PULL).await
    }))
    .await?;
    env.create(&tenant, "allowed", specs::secure_jwt(&to_allowed.url(REPOSITORY)))
        .await?;
    served::fetch(&served::artifact(&env.ready(&tenant, "allowed").await?)?).await?;

    assert_eq!(denied.accepted(), 0, "nothing was even connected");
    assert_eq!(allowed.requests().len(), 1);
    assert!(!challenging.requests().is_empty());
    assert!(!controller.log()?.contains("planted"));
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn a_token_goes_nowhere_in_the_clear_but_to_loopback() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&["--registry-allow-cidrs=0.0.0.0/0"]).await?;
    let tenant = env.tenant("addresses").await?;
    env.create(&tenant, "app", specs::jwt("oci://198.51.100.7:5000/team/app"))
        .await?;
    let object = env
        .failed(&tenant, "app", "CredentialInvalid", "--allow-insecure-credentials")
        .await?;
    assert!(condition(&object, "Stalled").is_some_and(|found| found.reason == "CredentialInvalid"));
    env.event(&tenant, "app", "CredentialInvalid").await?;
    drop(controller);
    Ok(())
}

/// A registry on 127.0.0.1 that has the artifact, but sends whoever wants its blob elsewhere.
async fn redirecting(ca: &ServerCa, target: &str) -> FaultRegistry {
    let registry = ca.registry(ClientAuth::None).await;
    registry.push(REPOSITORY, "v1", &artifact());
    registry.always(Route::Blob, Fault::redirect(target));
    registry
}
