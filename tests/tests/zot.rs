//! The same line against the registry that this project exists for. `cargo xtask test` runs this suite where it finds a Zot
//! (`ZOT`, or on the PATH) and says in its summary whether it did; run without one, it fails.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test ends where something is not as expected"
)]

use anyhow::{Context, Result};
use mintmark_api::image_repository::ImageRepository;
use mintmark_hack::{
    pki::TestCa,
    place::Place,
    registry::Artifact,
    zot::{Zot, ZotAuth, ZotRepository},
};
use mintmark_tests::{
    command::mintmark,
    env::{AUDIENCE, Env, TRUST_DOMAIN, condition},
    specs,
    tls_front::tls_front,
};
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

/// Scans `team/app` of a Zot that lets only the ImageRepository `app` read it: that one finds the tag, and neither another
/// ImageRepository nor an OCIRepository of the same name is let in.
async fn scan(env: &Env, tenant: &str, zot: &Zot, credential: &str, more: &Value) -> Result<()> {
    env.secret(tenant, "registry-ca", &[("ca.crt", zot.ca_pem())]).await?;
    let spec = spec(&zot.url("team/app"), credential, more);
    let images = env.objects::<ImageRepository>(tenant);
    for name in ["app", "intruder"] {
        images.create(name, specs::image(spec.clone())).await?;
    }
    env.create(tenant, "app", spec).await?;
    let ready = images.ready("app").await?;
    let status = ready.status.context("a status")?;
    let found = status.last_scan_result.context("a result")?;
    assert_eq!(found.latest_tags, ["v1"]);
    let subject = status.credential.context("a credential")?.subject;
    assert_eq!(subject, images.spiffe_id("app"));
    images.failed("intruder", "AuthenticationFailed", "403").await?;
    env.failed(tenant, "app", "AuthenticationFailed", "403").await?;
    Ok(())
}

/// A repository that only the ImageRepository `app` of a tenant may read.
fn of_image<'a>(env: &Env, tenant: &str, artifact: &'a Artifact) -> ZotRepository<'a> {
    ZotRepository {
        name: "team/app",
        tag: "v1",
        artifact,
        readers: vec![env.objects::<ImageRepository>(tenant).spiffe_id("app")],
    }
}

#[tokio::test]
async fn images_are_scanned_with_a_token_of_their_own() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    let content = artifact("scanned")?;
    let zot = Zot::start(ZotAuth::Bearer(env.issuers()), &[of_image(&env, &tenant, &content)]).await?;
    scan(&env, &tenant, &zot, "SpiffeJWT", &json!({"audiences": [AUDIENCE]})).await?;
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn images_are_scanned_with_a_certificate_of_their_own() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    let content = artifact("scanned")?;
    let zot = Zot::start(
        ZotAuth::Certificate(env.ca.pem().to_owned()),
        &[of_image(&env, &tenant, &content)],
    )
    .await?;
    scan(&env, &tenant, &zot, "SpiffeCertificate", &json!({})).await?;
    drop(controller);
    Ok(())
}

/// What `mintmark trust zot` prints for a place.
fn printed(place: &Place, more: &[String]) -> Result<String> {
    let path = |path: std::path::PathBuf| path.display().to_string();
    let mut words = vec!["trust".to_owned(), "zot".to_owned()];
    for (flag, value) in [
        ("--listen", format!("127.0.0.1:{}", place.port)),
        ("--storage", path(place.storage())),
        ("--tls-cert-file", path(place.certificate())),
        ("--tls-key-file", path(place.key())),
        ("--ca-file", path(place.folder.join("ca.pem"))),
        ("--spiffe-trust-domain", TRUST_DOMAIN.to_owned()),
    ] {
        words.extend([flag.to_owned(), value]);
    }
    words.extend_from_slice(more);
    mintmark(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The token for an object of another trust domain, by the same key.
fn foreign_token(env: &Env, issuer: &str) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), &env.ca.key_and_certificate().key_pem)?;
    let key = file.path().to_str().context("a path")?;
    let mut words = vec!["mint", "jwt", "--namespace", "a", "--name", "b", "--audience", AUDIENCE];
    words.extend([
        "--spiffe-trust-domain",
        "other.example",
        "--spiffe-issuer",
        issuer,
        "--key",
        key,
    ]);
    Ok(mintmark(&words)?.trim().to_owned())
}

#[tokio::test]
async fn zot_starts_with_the_printed_configuration_for_tokens() -> Result<()> {
    let env = Env::new().await?;
    let ca = TestCa::new("issuer's front")?;
    let port = env.ports.issuer_url().rsplit(':').next().context("a port")?.parse()?;
    let issuer = tls_front(&ca, port).await?;
    let controller = env.start_as(&issuer, &[])?;
    controller.wait_ready().await?;
    let tenant = env.tenant("a").await?;
    let content = artifact("printed")?;
    let repository = ZotRepository {
        name: "team/app",
        tag: "v1",
        artifact: &content,
        readers: vec![],
    };
    let configure = |place: &Place| {
        std::fs::write(place.folder.join("ca.pem"), ca.pem())?;
        let flags = format!("--audience {AUDIENCE} --spiffe-issuer {issuer} --reader {tenant}/app=team/app");
        printed(place, &flags.split(' ').map(str::to_owned).collect::<Vec<_>>())
    };
    let zot = Zot::start_configured(configure, &[repository]).await?;
    env.secret(&tenant, "registry-ca", &[("ca.crt", zot.ca_pem())]).await?;
    for (name, audience) in [("app", AUDIENCE), ("intruder", AUDIENCE), ("other", "another")] {
        let audiences = json!({"audiences": [audience]});
        env.create(&tenant, name, spec(&zot.url("team/app"), "SpiffeJWT", &audiences))
            .await?;
    }
    env.ready(&tenant, "app").await?;
    env.failed(&tenant, "intruder", "AuthenticationFailed", "403").await?;
    env.failed(&tenant, "other", "AuthenticationFailed", "401").await?;
    let http = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(zot.ca_pem().as_bytes())?])
        .no_proxy()
        .build()?;
    let url = format!(
        "{}/tags/list",
        zot.url("team/app")
            .replace("oci://", "https://")
            .replace("/team", "/v2/team")
    );
    let answer = http.get(url).bearer_auth(foreign_token(&env, &issuer)?).send().await?;
    assert_eq!(answer.status(), 401, "another trust domain");
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn zot_starts_with_the_printed_configuration_for_certificates() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    let content = artifact("printed")?;
    let repository = ZotRepository {
        name: "team/app",
        tag: "v1",
        artifact: &content,
        readers: vec![],
    };
    let configure = |place: &Place| {
        std::fs::write(place.folder.join("ca.pem"), env.ca.pem())?;
        let flags = format!("--credential x509 --reader {tenant}/app=team/app");
        printed(place, &flags.split(' ').map(str::to_owned).collect::<Vec<_>>())
    };
    let zot = Zot::start_configured(configure, &[repository]).await?;
    env.secret(&tenant, "registry-ca", &[("ca.crt", zot.ca_pem())]).await?;
    for name in ["app", "intruder"] {
        env.create(
            &tenant,
            name,
            spec(&zot.url("team/app"), "SpiffeCertificate", &json!({})),
        )
        .await?;
    }
    env.ready(&tenant, "app").await?;
    env.failed(&tenant, "intruder", "AuthenticationFailed", "403").await?;
    drop(controller);
    Ok(())
}
