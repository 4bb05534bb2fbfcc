//! TLS and proxy settings that users bring in Secrets: client certificates under today's keys and Flux's earlier ones on the
//! real registry, proxies on a recorder, and what is refused of both.

use anyhow::{Context, Result};
use mintmark_hack::{
    controller::Controller,
    pki::TestCa,
    registry::{Artifact, RegistryServer},
};
use mintmark_tests::{
    env::{Env, condition},
    fault_registry::{self, FaultRegistry},
    served, specs,
};
use rstest::rstest;
use serde_json::{Value, json};

const USER: &str = "spiffe://users.example/robot";
/// Stands in the proxy's password: it must be nowhere in what the controller writes.
const PLANTED: &str = "planted-password";

struct Scene {
    env: Env,
    controller: Controller,
    tenant: String,
}

impl Scene {
    async fn new() -> Result<Self> {
        let env = Env::new().await?;
        let controller = env.controller(&[]).await?;
        let tenant = env.tenant("own").await?;
        Ok(Self {
            env,
            controller,
            tenant,
        })
    }

    /// A registry over TLS that `USER` may read with a certificate of `ca`.
    async fn registry(&self, ca: &TestCa) -> Result<RegistryServer> {
        let registry = self.env.mtls_registry(ca.pem())?;
        let artifact = Artifact::from_files(&[("a.yaml", b"a: 1\n")])?;
        registry.push("team/app", "v1", &artifact).await?;
        registry.set_readers("team/app", &[USER])?;
        Ok(registry)
    }

    async fn create(&self, name: &str, url: &str, more: Value) -> Result<()> {
        let spec = specs::with(json!({"url": url, "ref": {"tag": "v1"}}), more);
        self.env.create(&self.tenant, name, spec).await?;
        Ok(())
    }

    async fn pulled(&self, name: &str) -> Result<()> {
        let object = self.env.ready(&self.tenant, name).await?;
        let archive = served::fetch(&served::artifact(&object)?).await?;
        assert!(served::files(&archive)?.contains_key("a.yaml"));
        Ok(())
    }

    async fn failed(&self, name: &str, reason: &str, text: &str) -> Result<()> {
        let object = self.env.failed(&self.tenant, name, reason, text).await?;
        let stalled = condition(&object, "Stalled").is_some();
        assert_eq!(stalled, reason == "CredentialInvalid", "{name}");
        assert!(object.status.context("a status")?.artifact.is_none());
        Ok(())
    }

    async fn never_written(&self, secrets: &[&str]) -> Result<()> {
        self.env.never_written(&self.controller, &self.tenant, secrets).await
    }
}

#[rstest]
#[case::today(["ca.crt", "tls.crt", "tls.key"])]
#[case::before(["caFile", "certFile", "keyFile"])]
#[tokio::test]
async fn a_client_certificate_of_the_user(#[case] keys: [&str; 3]) -> Result<()> {
    let scene = Scene::new().await?;
    let users = TestCa::new("users")?;
    let registry = scene.registry(&users).await?;
    let (right, stranger) = (
        users.uri_client(USER)?,
        users.uri_client("spiffe://users.example/other")?,
    );
    let [ca, certificate, key] = keys;
    for (name, pair) in [("right", &right), ("other", &stranger)] {
        let data = [
            (ca, registry.ca_pem()),
            (certificate, pair.certificate_pem.as_str()),
            (key, pair.key_pem.as_str()),
        ];
        scene.env.secret(&scene.tenant, name, &data).await?;
    }
    scene
        .env
        .secret(
            &scene.tenant,
            "half",
            &[(ca, registry.ca_pem()), (certificate, &right.certificate_pem)],
        )
        .await?;
    scene
        .env
        .secret(
            &scene.tenant,
            "mixed",
            &[
                (ca, registry.ca_pem()),
                (certificate, &right.certificate_pem),
                (key, &stranger.key_pem),
            ],
        )
        .await?;
    for name in ["right", "other", "half", "mixed"] {
        let url = registry.url("team/app");
        scene
            .create(name, &url, json!({"certSecretRef": {"name": name}}))
            .await?;
    }
    let url = registry.url("team/app");
    let minted = json!({"certSecretRef": {"name": "right"}, "credential": "SpiffeCertificate"});
    scene.create("minted", &url, minted).await?;
    let clear = json!({"certSecretRef": {"name": "right"}, "insecure": true});
    scene.create("clear", &url, clear).await?;

    scene.pulled("right").await?;
    scene
        .failed(
            "other",
            "AuthenticationFailed",
            "authenticated but not authorised (403)",
        )
        .await?;
    scene
        .failed(
            "half",
            "AuthenticationFailed",
            "Secret 'half' has tls.crt without tls.key",
        )
        .await?;
    scene
        .failed(
            "mixed",
            "AuthenticationFailed",
            "the key does not belong to the certificate",
        )
        .await?;
    scene
        .failed("minted", "CredentialInvalid", "only ca.crt is meant there")
        .await?;
    scene
        .failed("clear", "CredentialInvalid", "there is no TLS to present it in")
        .await?;
    let line = |pem: &str| pem.lines().nth(1).unwrap_or_default().to_owned();
    scene
        .never_written(&[&line(&right.key_pem), &line(&stranger.key_pem)])
        .await
}

#[tokio::test]
async fn a_proxy_of_the_user() -> Result<()> {
    let scene = Scene::new().await?;
    let proxy = FaultRegistry::start(None).await;
    proxy.push(
        "team/app",
        "v1",
        &fault_registry::Artifact::flux(&[("a.yaml", "a: 1\n")]),
    );
    let address = format!("http://{}", proxy.host());
    let secret = async |name: &str, data: &[(&str, &str)]| scene.env.secret(&scene.tenant, name, data).await;
    secret(
        "login",
        &[("address", &address), ("username", "robot"), ("password", PLANTED)],
    )
    .await?;
    let within = format!("http://robot:{PLANTED}@{}", proxy.host());
    secret("within", &[("address", &within)]).await?;
    secret("empty", &[("username", "robot")]).await?;
    let bad = format!("socks5://robot:{PLANTED}@{}", proxy.host());
    secret("scheme", &[("address", &bad)]).await?;
    for name in ["login", "within", "empty", "scheme", "missing"] {
        let more = json!({"insecure": true, "proxySecretRef": {"name": name}});
        scene
            .create(name, "oci://registry.behind.example/team/app", more)
            .await?;
    }
    scene.pulled("login").await?;
    scene.pulled("within").await?;
    let text = |what: &str| format!("failed to get proxy address: Secret '{what}");
    scene
        .failed("empty", "AuthenticationFailed", &text("empty' has no address"))
        .await?;
    scene
        .failed(
            "scheme",
            "AuthenticationFailed",
            &text("scheme': the address is neither http nor https"),
        )
        .await?;
    scene
        .failed(
            "missing",
            "AuthenticationFailed",
            &text(&format!("{}/missing' not found", scene.tenant)),
        )
        .await?;
    for request in proxy.requests() {
        assert_eq!(request.header("host"), Some("registry.behind.example"));
        assert!(
            request
                .header("proxy-authorization")
                .is_some_and(|value| value.starts_with("Basic "))
        );
    }
    scene.never_written(&[PLANTED]).await
}
