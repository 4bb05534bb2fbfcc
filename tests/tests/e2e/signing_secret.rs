//! The signing Secret through its life: absent at start, there, replaced by what cannot sign, deleted, healed by another key,
//! and a CA that ends. Pulls go on with the last good key, and everybody who should know is told.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use mintmark_api::oci_repository::OciRepository;
use mintmark_hack::{
    controller::{Controller, SIGNING_SECRET},
    pki::{KeyAndCertificate, TestCa},
    registry::{Artifact, ClientAuth, ClientCa, RegistryOptions, RegistryServer},
};
use mintmark_tests::{
    env::{Env, condition},
    fault_registry::{self, FaultRegistry},
    issuer::{authority, tokens},
    ring::{AT_ONCE, Ids},
    specs,
};
use serde_json::json;

/// A tenant with an object per minted credential, and a registry for each.
struct Tenant {
    namespace: String,
    bearer: RegistryServer,
    mtls: RegistryServer,
}

impl Tenant {
    async fn new(env: &Env) -> Result<Self> {
        let namespace = env.tenant("a").await?;
        let bearer = env.jwt_registry()?;
        let mtls = RegistryServer::start(RegistryOptions {
            tls: true,
            client_ca: Some(ClientCa {
                pem: env.ca.pem().to_owned(),
                auth: ClientAuth::Optional,
                reload: true,
            }),
            ..RegistryOptions::default()
        })?;
        env.secret(&namespace, "registry-ca", &[("ca.crt", mtls.ca_pem())])
            .await?;
        bearer.set_readers("team/app", &[&Env::spiffe_id(&namespace, "jwt")])?;
        mtls.set_readers("team/app", &[&Env::spiffe_id(&namespace, "cert")])?;
        let tenant = Self {
            namespace,
            bearer,
            mtls,
        };
        tenant.push("first").await?;
        Ok(tenant)
    }

    async fn create(&self, env: &Env) -> Result<()> {
        env.create(&self.namespace, "jwt", specs::jwt(&self.bearer.url("team/app")))
            .await?;
        env.create(&self.namespace, "cert", specs::certificate(&self.mtls.url("team/app")))
            .await?;
        Ok(())
    }

    /// Pushes other content under the tag of both objects and returns its revision.
    async fn push(&self, text: &str) -> Result<String> {
        let artifact = Artifact::from_files(&[("app.yaml", text.as_bytes())])?;
        let pushed = self.bearer.push("team/app", "v1", &artifact).await?;
        self.mtls.push("team/app", "v1", &artifact).await?;
        Ok(format!("v1@{}", pushed.digest))
    }

    /// Pushes `text` and has both objects pull it; returns them.
    async fn pulls(&self, env: &Env, text: &str) -> Result<[OciRepository; 2]> {
        let revision = self.push(text).await?;
        let mut pulled = Vec::new();
        for name in ["jwt", "cert"] {
            let object = env.reconcile(&self.namespace, name).await?;
            let ready = condition(&object, "Ready").context("no Ready")?;
            assert_eq!(ready.status, "True", "{text}: {name}: {}", ready.message);
            assert_eq!(artifact_revision(&object), Some(revision.as_str()), "{text}: {name}");
            pulled.push(object);
        }
        pulled.try_into().ok().context("two objects")
    }
}

fn artifact_revision(object: &OciRepository) -> Option<&str> {
    Some(object.status.as_ref()?.artifact.as_ref()?.revision.as_str())
}

fn key_id(object: &OciRepository) -> Option<&str> {
    object.status.as_ref()?.credential.as_ref()?.key_id.as_deref()
}

/// Waits for the Event about the signing Secret that says `text`.
async fn secret_event(env: &Env, reason: &str, text: &str) -> Result<Event> {
    env.event_saying(&env.installation.namespace, SIGNING_SECRET, reason, text)
        .await
}

/// Asserts what the gauge of the Secret's state says; it is set before the Event about it is written.
async fn assert_state(env: &Env, state: &str) -> Result<()> {
    let metrics = env.metrics().await?;
    for known in ["valid", "last_good", "absent"] {
        let value = if known == state { "1.0" } else { "0.0" };
        let line = format!("mintmark_signing_secret_state{{state=\"{known}\"}} {value}");
        assert!(metrics.lines().any(|found| found == line), "{state}: no line {line}");
    }
    Ok(())
}

fn assert_logged(controller: &Controller, text: &str) -> Result<()> {
    let lines = controller.log_lines()?;
    let hit = lines
        .iter()
        .any(|line| line["level"] == "error" && line["error"].as_str().is_some_and(|error| error.contains(text)));
    assert!(hit, "no error line says {text:?}");
    Ok(())
}

#[tokio::test]
async fn objects_wait_for_the_secret_and_go_on_the_moment_it_is_there() -> Result<()> {
    let env = Env::new().await?;
    env.delete_signing_secret().await?;
    // A backoff could not help within the deadline.
    let _controller = env.controller(&["--min-retry-delay=10m"]).await?;
    let tenant = Tenant::new(&env).await?;
    tenant.create(&env).await?;
    for name in ["jwt", "cert"] {
        let text = format!("signing Secret '{SIGNING_SECRET}': ");
        let object = env
            .failed(&tenant.namespace, name, "CredentialNotConfigured", &text)
            .await?;
        let reconciling = condition(&object, "Reconciling").context("no Reconciling")?;
        assert_eq!(reconciling.status, "True");
        assert!(condition(&object, "Stalled").is_none());
        assert!(artifact_revision(&object).is_none());
        let event = env
            .event_saying(&tenant.namespace, name, "CredentialNotConfigured", &text)
            .await?;
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }
    assert_state(&env, "absent").await?;
    assert!(
        tenant
            .bearer
            .access_log()?
            .iter()
            .all(|entry| entry.kind != "anonymous" || entry.method != "GET")
    );

    env.sign_with(env.ca.key_and_certificate()).await?;
    for name in ["jwt", "cert"] {
        let object = env.ready(&tenant.namespace, name).await?;
        assert!(condition(&object, "Reconciling").is_none());
    }
    assert_state(&env, "valid").await
}

#[tokio::test]
async fn what_cannot_sign_changes_nothing_and_another_key_heals() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&AT_ONCE).await?;
    let tenant = Tenant::new(&env).await?;
    tenant.create(&env).await?;
    let mut first = Vec::new();
    for name in ["jwt", "cert"] {
        let object = env.ready(&tenant.namespace, name).await?;
        first.push(key_id(&object).context("no key id")?.to_owned());
    }
    assert_state(&env, "valid").await?;

    let own = env.ca.key_and_certificate().clone();
    let stranger = TestCa::new("another CA")?;
    let over = TestCa::until("an expired CA", SystemTime::now() - Duration::from_mins(1))?;
    let mixed = KeyAndCertificate {
        key_pem: stranger.key_and_certificate().key_pem.clone(),
        ..own.clone()
    };
    let secp521 = testdata("ec-p521.pkcs8.key")?;
    for (what, field, value, text) in [
        ("garbage", "tls.key", "garbage", "tls.key: "),
        ("an empty key", "tls.key", "", "tls.key is missing or empty"),
        ("a refused curve", "tls.key", &*secp521, "tls.key: "),
        (
            "a stranger's key",
            "tls.key",
            &*mixed.key_pem,
            "tls.key does not belong to the first certificate",
        ),
        ("no certificate", "tls.crt", "garbage", "tls.crt"),
    ] {
        env.sign_with(&own).await?;
        env.edit_signing_secret(field, value).await?;
        let event = secret_event(&env, "SigningSecretInvalid", text).await?;
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_state(&env, "last_good").await?;
        assert_logged(&controller, text)?;
        for (object, key) in tenant.pulls(&env, what).await?.iter().zip(&first) {
            assert_eq!(key_id(object), Some(key.as_str()), "{what}");
        }
    }
    env.sign_with(over.key_and_certificate()).await?;
    secret_event(&env, "SigningSecretInvalid", "expired at").await?;
    tenant.pulls(&env, "an expired CA").await?;
    env.delete_signing_secret().await?;
    secret_event(&env, "SigningSecretInvalid", "the signing Secret does not exist").await?;
    assert_state(&env, "last_good").await?;
    tenant.pulls(&env, "deleted").await?;

    // A verifier by file has to be told of a new CA before it signs.
    tenant
        .mtls
        .set_client_ca(&format!("{}{}", env.ca.pem(), stranger.pem()))?;
    let pair = stranger.key_and_certificate();
    env.sign_with(pair).await?;
    let authority = authority(pair)?;
    let (jwt, x509) = (
        authority.jwt().map_err(Clone::clone)?,
        authority.x509().map_err(Clone::clone)?,
    );
    secret_event(&env, "KeySigning", &format!("JWT key {} signs from now on", jwt.kid())).await?;
    secret_event(
        &env,
        "KeySigning",
        &format!("X.509 key {} signs from now on", x509.id()),
    )
    .await?;
    assert_state(&env, "valid").await?;
    // The registry of the tokens reads the keys again on its own.
    let pulled = tenant.pulls(&env, "healed").await?;
    assert_eq!(pulled.each_ref().map(key_id), [Some(jwt.kid()), Some(x509.id())]);
    let keys = reqwest::get(format!("{}/keys", env.ports.issuer_url()))
        .await?
        .text()
        .await?;
    for kid in [jwt.kid(), &first[0]] {
        assert!(keys.contains(kid), "key {kid} is not published: {keys}");
    }
    Ok(())
}

fn testdata(name: &str) -> Result<String> {
    let path = mintmark_hack::workspace::root().join("issuer/testdata").join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[tokio::test]
async fn nothing_outlives_the_ca_and_its_end_is_told_and_healed() -> Result<()> {
    let env = Env::new().await?;
    let flags = ["--max-retry-delay=10m", "--min-retry-delay=10m", AT_ONCE[0], AT_ONCE[1]];
    let _controller = env.controller(&flags).await?;
    let namespace = env.tenant("a").await?;
    let end = SystemTime::now() + Duration::from_secs(30);
    let about_to_end = TestCa::until("a CA about to end", end)?;
    env.sign_with(about_to_end.key_and_certificate()).await?;
    let ids = Ids::of(about_to_end.key_and_certificate())?;
    env.key_is(&ids.kid, "signing").await?;
    env.key_is(&ids.authority, "signing").await?;
    let registry = FaultRegistry::start(None).await;
    registry.push("team/app", "v1", &fault_registry::Artifact::flux(&[("a.yaml", "a")]));
    let url = format!("oci://{}/team/app", registry.host());
    let mut spec = specs::jwt(&url);
    spec["interval"] = json!("1s");
    env.create(&namespace, "jwt", spec).await?;
    env.secret(&namespace, "registry-ca", &[("ca.crt", env.ca.pem())])
        .await?;
    env.create(&namespace, "cert", specs::certificate("oci://127.0.0.1:9/team/app"))
        .await?;
    let text = "which leaves less than 60 s";
    env.failed(&namespace, "cert", "CredentialNotConfigured", text).await?;

    env.ready(&namespace, "jwt").await?;
    let object = env
        .failed(&namespace, "jwt", "CredentialNotConfigured", "expired at")
        .await?;
    assert!(artifact_revision(&object).is_some(), "the earlier artifact is gone");
    let end = Timestamp::try_from(end)?.as_second();
    let tokens = tokens(&registry)?;
    assert!(!tokens.is_empty());
    for token in &tokens {
        assert!(token.seconds("exp")? <= end, "a token outlives the CA");
    }
    // No backoff could come in time.
    env.sign_with(env.ca.key_and_certificate()).await?;
    env.ready(&namespace, "jwt").await?;
    Ok(())
}
