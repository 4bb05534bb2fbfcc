//! The same line against the registry that this project exists for. `cargo xtask test` runs this suite where it finds a Zot
//! (`ZOT`, or on the PATH) and says in its summary whether it did; run without one, it fails.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test ends where something is not as expected"
)]

use anyhow::Result;
use mintmark_hack::{
    registry::Artifact,
    zot::{Zot, ZotAuth, ZotRepository},
};
use mintmark_tests::env::{AUDIENCE, Env, condition};
use serde_json::{Value, json};

fn artifact(text: &str) -> Result<Artifact> {
    Artifact::from_files(&[("deploy/app.yaml", text.as_bytes())])
}

fn spec(url: &str, credential: &str, more: &Value) -> Value {
    let mut spec = json!({"url": url, "ref": {"tag": "v1"}, "credential": credential,
        "certSecretRef": {"name": "registry-ca"}});
    let fields = spec.as_object_mut().expect("an object");
    fields.extend(more.as_object().expect("an object").clone());
    spec
}

#[tokio::test]
async fn tokens_of_both_issuers_pull_their_own_repository_and_no_other() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    env.service_account(&tenant, "puller").await?;
    let (jwt, account) = (artifact("jwt")?, artifact("account")?);
    let zot = Zot::start(
        ZotAuth::Bearer(env.issuers()),
        &[
            ZotRepository {
                name: "team/jwt",
                tag: "v1",
                artifact: &jwt,
                readers: vec![Env::spiffe_id(&tenant, "jwt")],
            },
            ZotRepository {
                name: "team/account",
                tag: "v1",
                artifact: &account,
                readers: vec![format!("system:serviceaccount:{tenant}:puller")],
            },
        ],
    )
    .await?;
    env.secret(&tenant, "registry-ca", &[("ca.crt", zot.ca_pem())]).await?;
    let audiences = json!({"audiences": [AUDIENCE]});
    let with_account = json!({"audiences": [AUDIENCE], "serviceAccountName": "puller"});
    env.create(&tenant, "jwt", spec(&zot.url("team/jwt"), "SpiffeJWT", &audiences))
        .await?;
    env.create(
        &tenant,
        "account",
        spec(&zot.url("team/account"), "ServiceAccountToken", &with_account),
    )
    .await?;
    env.create(
        &tenant,
        "intruder",
        spec(&zot.url("team/account"), "SpiffeJWT", &audiences),
    )
    .await?;
    env.create(
        &tenant,
        "other",
        spec(&zot.url("team/jwt"), "SpiffeJWT", &json!({"audiences": ["another"]})),
    )
    .await?;
    env.ready(&tenant, "jwt").await?;
    env.ready(&tenant, "account").await?;
    env.failed(&tenant, "intruder", "AuthenticationFailed", "403").await?;
    env.failed(&tenant, "other", "AuthenticationFailed", "401").await?;
    let again = env.reconcile(&tenant, "jwt").await?;
    assert_eq!(
        condition(&again, "Ready").map(|ready| ready.status.as_str()),
        Some("True")
    );
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn certificates_pull_their_own_repository_and_no_other() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    let content = artifact("cert")?;
    let readers = vec![Env::spiffe_id(&tenant, "cert")];
    let repository = ZotRepository {
        name: "team/cert",
        tag: "v1",
        artifact: &content,
        readers,
    };
    let zot = Zot::start(ZotAuth::Certificate(env.ca.pem().to_owned()), &[repository]).await?;
    env.secret(&tenant, "registry-ca", &[("ca.crt", zot.ca_pem())]).await?;
    env.create(
        &tenant,
        "cert",
        spec(&zot.url("team/cert"), "SpiffeCertificate", &json!({})),
    )
    .await?;
    env.create(
        &tenant,
        "intruder",
        spec(&zot.url("team/cert"), "SpiffeCertificate", &json!({})),
    )
    .await?;
    env.ready(&tenant, "cert").await?;
    env.failed(&tenant, "intruder", "AuthenticationFailed", "403").await?;
    drop(controller);
    Ok(())
}
