//! Refused, missing and misplaced credentials: nothing weaker takes their place, and nobody untrusted sees them.

use anyhow::Result;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::DeleteParams};
use mintmark_hack::controller::SIGNING_SECRET;
use mintmark_tests::{
    env::Env,
    fault_registry::{Authority, ClientAuth, FaultRegistry, Tls, Verdict},
    secure::ServerCa,
    specs,
};
use serde_json::json;

use super::{REPOSITORY, World, artifact, has_identity};

#[tokio::test]
async fn a_refused_credential_is_not_replaced_by_none() -> Result<()> {
    let world = World::new().await?;
    world
        .registry
        .set_gate(|_| Verdict::Challenge(vec!["Basic realm=\"x\"".to_owned()]));
    world
        .all_fail("AuthenticationFailed", "registry does not accept the credential (401")
        .await?;
    world.registry.set_gate(|_| Verdict::Deny);
    for (name, _) in world.objects() {
        world.env.reconcile(&world.tenant, name).await?;
        world
            .env
            .failed(
                &world.tenant,
                name,
                "AuthenticationFailed",
                "authenticated but not authorised (403)",
            )
            .await?;
    }
    assert!(
        world.registry.requests().iter().all(has_identity),
        "an anonymous request: {:?}",
        world.registry.log()
    );
    world.check().await
}

#[tokio::test]
async fn a_server_that_cannot_be_trusted_sees_no_request() -> Result<()> {
    let world = World::new().await?;
    let other = Authority::new("CA that nobody named");
    let start = async |name: &str, authority: &Authority| {
        let tls = Tls {
            leaf: authority.server(&[name]),
            client_auth: ClientAuth::optional_pem(&[world.env.ca.pem()]),
            tls12_only: false,
        };
        FaultRegistry::start(Some(tls)).await
    };
    let servers = [
        (
            start("127.0.0.1", &other).await,
            "registry's TLS certificate is not trusted: unknown issuer",
        ),
        (
            start("127.0.0.9", world.ca.authority()).await,
            "registry's TLS certificate is not trusted: issued for another name",
        ),
        (FaultRegistry::start(None).await, "TLS handshake failed"),
    ];
    for (index, (server, _)) in servers.iter().enumerate() {
        for (kind, mut spec) in world.objects() {
            let name = format!("{kind}-{index}");
            spec["url"] = json!(server.url(REPOSITORY));
            world.env.create(&world.tenant, &name, spec).await?;
        }
    }
    for (index, (server, text)) in servers.iter().enumerate() {
        for (kind, _) in world.objects() {
            world
                .env
                .failed(&world.tenant, &format!("{kind}-{index}"), "OCIArtifactPullFailed", text)
                .await?;
        }
        assert!(server.accepted() > 0);
        assert!(server.requests().is_empty(), "{:?}", server.log());
    }
    world.check().await
}

#[tokio::test]
async fn without_a_key_nothing_is_sent_at_all() -> Result<()> {
    let env = Env::new().await?;
    let secrets: Api<Secret> = env.secrets(&env.installation.namespace);
    secrets.delete(SIGNING_SECRET, &DeleteParams::default()).await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("leaks").await?;
    let ca = ServerCa::new(&env, &tenant).await?;
    let registry = ca.registry(ClientAuth::optional_pem(&[env.ca.pem()])).await;
    registry.push(REPOSITORY, "v1", &artifact());
    let url = registry.url(REPOSITORY);
    for (name, spec) in [
        ("jwt", specs::secure_jwt(&url)),
        ("certificate", specs::certificate(&url)),
    ] {
        env.create(&tenant, name, spec).await?;
        env.failed(&tenant, name, "CredentialNotConfigured", SIGNING_SECRET)
            .await?;
    }
    assert_eq!(registry.accepted(), 0);
    drop(controller);
    Ok(())
}
