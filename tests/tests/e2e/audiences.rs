//! Tokens that the Kubernetes API server itself would accept never go to a registry.

use anyhow::Result;
use mintmark_hack::registry::Artifact;
use mintmark_tests::env::{AUDIENCE, Env, condition};
use serde_json::json;

fn spec(url: &str, audience: &str, account: Option<&str>) -> serde_json::Value {
    json!({"url": url, "insecure": true, "credential": "ServiceAccountToken", "audiences": [audience],
        "serviceAccountName": account})
}

#[tokio::test]
async fn audiences_of_the_api_server_and_denied_ones_are_refused() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&["--denied-audiences=vault"]).await?;
    let tenant = env.tenant("a").await?;
    env.service_account(&tenant, "puller").await?;
    let registry = env.jwt_registry()?;
    let start = env.cluster.audit().mark()?;
    for (name, audience) in [("issuer", env.cluster.url()), ("denied", "vault")] {
        env.create(&tenant, name, spec(&registry.url("app"), audience, Some("puller")))
            .await?;
        let object = env.failed(&tenant, name, "CredentialInvalid", audience).await?;
        assert!(condition(&object, "Stalled").is_some_and(|stalled| stalled.status == "True"));
    }
    assert!(registry.access_log()?.is_empty(), "nothing was sent to the registry");
    let user = format!("system:serviceaccount:{}:mintmark", env.installation.namespace);
    let requests = env.cluster.audit().events_of(&user, start)?;
    assert!(
        !requests.iter().any(|event| event
            .object_ref
            .as_ref()
            .is_some_and(|object| object.subresource == "token")),
        "no such token was even requested"
    );
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn the_default_account_and_the_allow_list_hold() -> Result<()> {
    let env = Env::new().await?;
    let allowed = format!("--allowed-audiences={AUDIENCE}=127.0.0.1");
    let controller = env.controller(&["--default-service-account=puller", &allowed]).await?;
    let tenant = env.tenant("a").await?;
    env.service_account(&tenant, "puller").await?;
    let registry = env.jwt_registry()?;
    registry
        .push("app", "latest", &Artifact::from_files(&[("a.yaml", b"1".as_slice())])?)
        .await?;
    registry.set_readers("app", &[&format!("system:serviceaccount:{tenant}:puller")])?;
    env.create(&tenant, "default", spec(&registry.url("app"), AUDIENCE, None))
        .await?;
    env.ready(&tenant, "default").await?;
    env.create(&tenant, "other", spec(&registry.url("app"), "elsewhere", None))
        .await?;
    env.failed(&tenant, "other", "CredentialInvalid", "--allowed-audiences")
        .await?;
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn without_any_account_the_flags_are_named() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    env.create(&tenant, "app", spec("oci://127.0.0.1:9/app", AUDIENCE, None))
        .await?;
    let object = env
        .failed(&tenant, "app", "CredentialNotConfigured", "--default-service-account")
        .await?;
    assert!(condition(&object, "Stalled").is_some());
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn a_missing_account_and_missing_rights_are_told_apart() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    env.create(&tenant, "app", spec("oci://127.0.0.1:9/app", AUDIENCE, Some("nobody")))
        .await?;
    env.failed(&tenant, "app", "AuthenticationFailed", "does not exist")
        .await?;
    drop(controller);
    Ok(())
}
