//! Each credential is accepted where it is trusted, and refused where it is not.

use anyhow::Result;
use mintmark_hack::registry::Artifact;
use mintmark_tests::env::{AUDIENCE, Env};
use serde_json::json;

fn artifact(text: &str) -> Result<Artifact> {
    Artifact::from_files(&[("deploy/app.yaml", text.as_bytes())])
}

#[tokio::test]
async fn each_credential_pulls_its_own_repository_and_no_other() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let (a, b) = (env.tenant("a").await?, env.tenant("b").await?);
    env.service_account(&a, "puller").await?;
    let bearer = env.jwt_registry()?;
    let mtls = env.mtls_registry(env.ca.pem())?;
    bearer.push("team/jwt", "v1", &artifact("jwt")?).await?;
    bearer.push("team/account", "v1", &artifact("account")?).await?;
    mtls.push("team/cert", "v1", &artifact("cert")?).await?;
    bearer.set_readers("team/jwt", &[&Env::spiffe_id(&a, "jwt")])?;
    bearer.set_readers("team/account", &[&format!("system:serviceaccount:{a}:puller")])?;
    mtls.set_readers("team/cert", &[&Env::spiffe_id(&a, "cert")])?;
    env.secret(&a, "registry-ca", &[("ca.crt", mtls.ca_pem())]).await?;

    let tag = json!({"tag": "v1"});
    env.create(
        &a,
        "jwt",
        json!({"url": bearer.url("team/jwt"), "insecure": true, "ref": tag,
        "credential": "SpiffeJWT", "audiences": [AUDIENCE]}),
    )
    .await?;
    env.create(
        &a,
        "account",
        json!({"url": bearer.url("team/account"), "insecure": true, "ref": tag,
        "credential": "ServiceAccountToken", "audiences": [AUDIENCE], "serviceAccountName": "puller"}),
    )
    .await?;
    env.create(
        &a,
        "cert",
        json!({"url": mtls.url("team/cert"), "ref": tag,
        "credential": "SpiffeCertificate", "certSecretRef": {"name": "registry-ca"}}),
    )
    .await?;
    env.create(
        &b,
        "intruder",
        json!({"url": bearer.url("team/jwt"), "insecure": true, "ref": tag,
        "credential": "SpiffeJWT", "audiences": [AUDIENCE]}),
    )
    .await?;

    for name in ["jwt", "account", "cert"] {
        let object = env.ready(&a, name).await?;
        let status = object.status.clone().unwrap_or_default();
        let artifact = status.artifact.expect("an artifact");
        assert!(artifact.revision.starts_with("v1@sha256:"), "{}", artifact.revision);
        let body = reqwest::get(&artifact.url).await?.error_for_status()?.bytes().await?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &body);
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(artifact.digest, format!("sha256:{hex}"));
    }
    let refused = env.failed(&b, "intruder", "AuthenticationFailed", "403").await?;
    assert!(refused.status.is_some_and(|status| status.artifact.is_none()));
    drop(controller);
    Ok(())
}
