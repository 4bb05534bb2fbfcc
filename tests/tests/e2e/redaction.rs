//! No token, key or password reaches what people and programs read: logs, Events, statuses, metrics, files. Every credential
//! is used, also against registries that answer with what was sent to them, then all that came out is searched.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{Response, StatusCode};
use k8s_openapi::api::core::v1::{Event, Secret};
use kube::{Api, api::ListParams};
use mintmark_hack::{
    controller::{Controller, RING_SECRET, SIGNING_SECRET, signing_secret},
    pki::{KeyAndCertificate, TestCa},
    registry::{Artifact, RegistryServer},
};
use mintmark_tests::{
    env::{AUDIENCE, Env, condition},
    fault_registry::{self, FaultRegistry, Recorded, Verdict},
    ring::{AT_ONCE, Ids},
};
use serde_json::{Value, json};

/// Something that must not be found, and what it is.
struct Secrets(Vec<(String, String)>);

impl Secrets {
    fn add(&mut self, what: &str, text: impl Into<String>) {
        let text = text.into();
        assert!(text.len() >= 16, "{what} is too short to be searched for");
        self.0.push((what.to_owned(), text));
    }

    /// A compact JWS: whole, and its signature alone.
    fn add_token(&mut self, what: &str, token: &str) {
        self.add(what, token);
        if let Some((_, signature)) = token.rsplit_once('.') {
            self.add(&format!("signature of {what}"), signature);
        }
    }

    /// A PEM key: its lines, and its DER in the usual encodings.
    fn add_key(&mut self, what: &str, pem: &str) -> Result<()> {
        let lines: Vec<_> = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        let der = STANDARD.decode(lines.concat())?;
        for line in lines.iter().filter(|line| line.len() >= 16) {
            self.add(&format!("line of {what}"), *line);
        }
        // The secret number of an EC P-256 key in PKCS#8 begins at byte 36.
        for (part, bytes) in [("", &der[..]), (" (number)", &der[36..68])] {
            self.add(
                &format!("{what}{part}, base64"),
                STANDARD.encode(bytes).trim_end_matches('='),
            );
            self.add(&format!("{what}{part}, base64url"), URL_SAFE_NO_PAD.encode(bytes));
            let hex = bytes
                .iter()
                .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
            self.add(&format!("{what}{part}, hex upper case"), hex.to_uppercase());
            self.add(&format!("{what}{part}, hex"), hex);
        }
        Ok(())
    }

    /// Every secret that stands in `text`.
    fn in_text(&self, text: &str) -> Vec<&str> {
        let found = self.0.iter().filter(|(_, secret)| text.contains(secret));
        found.map(|(what, _)| what.as_str()).collect()
    }
}

struct Scene {
    env: Env,
    controller: Controller,
    tenant: String,
    /// Takes every credential, remembers it, and answers some paths with what it was sent.
    greedy: FaultRegistry,
    mtls: RegistryServer,
    real: RegistryServer,
}

/// Repositories of the greedy registry whose answers hold the request's credential.
const TRAPS: [&str; 5] = ["echo401", "echo403", "echo500", "redirect", "realm"];

fn trap(kind: &str, origin: &str, request: &Recorded) -> Response<Bytes> {
    let sent = request.authorization().unwrap_or("nothing").to_owned();
    let token = sent.rsplit(' ').next().unwrap_or_default().to_owned();
    let body = json!({"errors": [{"code": "DENIED", "message": format!("no: {sent}"), "detail": token}]});
    let answer = Response::builder()
        .header("content-type", "application/json")
        .header("x-echo", &sent);
    let answer = match kind {
        "echo401" => answer.status(StatusCode::UNAUTHORIZED).header(
            "www-authenticate",
            format!("Bearer error=\"invalid_token\",error_description=\"{token}\""),
        ),
        "redirect" => answer
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header("location", format!("http://{token}@127.0.0.1:9/{token}?token={token}")),
        "realm" => answer.status(StatusCode::UNAUTHORIZED).header(
            "www-authenticate",
            format!("Bearer realm=\"{origin}/{token}\",service=\"{token}\""),
        ),
        "echo403" => answer.status(StatusCode::FORBIDDEN),
        _ => answer.status(StatusCode::INTERNAL_SERVER_ERROR),
    };
    answer.body(Bytes::from(body.to_string())).expect("a response")
}

impl Scene {
    async fn new() -> Result<Self> {
        let env = Env::new().await?;
        let controller = env
            .controller(&["--log-level=trace", "--spiffe-jwt-ttl=1m", AT_ONCE[0], AT_ONCE[1]])
            .await?;
        let tenant = env.tenant("a").await?;
        env.service_account(&tenant, "puller").await?;
        let greedy = FaultRegistry::start(None).await;
        let (mtls, real) = (env.mtls_registry(env.ca.pem())?, env.jwt_registry()?);
        env.secret(&tenant, "registry-ca", &[("ca.crt", mtls.ca_pem())]).await?;
        env.secret(&tenant, "wrong-ca", &[("ca.crt", env.ca.pem())]).await?;
        greedy.set_gate(|request| match request.authorization() {
            Some(_) => Verdict::Allow,
            None => Verdict::Challenge(vec!["Bearer".to_owned()]),
        });
        for name in ["jwt", "account"] {
            greedy.push(name, "latest", &fault_registry::Artifact::flux(&[("a.yaml", name)]));
        }
        let origin = format!("http://{}", greedy.host());
        for kind in TRAPS {
            let origin = origin.clone();
            let path = format!("/v2/{kind}/manifests/latest");
            greedy.page(&path, move |request| trap(kind, &origin, request));
        }
        Ok(Self {
            env,
            controller,
            tenant,
            greedy,
            mtls,
            real,
        })
    }

    fn jwt(url: &str) -> Value {
        json!({"url": url, "insecure": true, "credential": "SpiffeJWT", "audiences": [AUDIENCE]})
    }

    fn account(url: &str) -> Value {
        json!({"url": url, "insecure": true, "credential": "ServiceAccountToken", "audiences": [AUDIENCE],
            "serviceAccountName": "puller"})
    }

    fn certificate(url: &str, ca: &str) -> Value {
        json!({"url": url, "credential": "SpiffeCertificate", "certSecretRef": {"name": ca}})
    }

    async fn create(&self, name: &str, spec: Value) -> Result<()> {
        self.env.create(&self.tenant, name, spec).await.map(drop)
    }

    /// All three credentials pull.
    async fn pulls(&self) -> Result<()> {
        let artifact = Artifact::from_files(&[("a.yaml", b"1".as_slice())])?;
        self.mtls.push("cert", "latest", &artifact).await?;
        self.mtls
            .set_readers("cert", &[&Env::spiffe_id(&self.tenant, "cert")])?;
        self.real.push("real", "latest", &artifact).await?;
        self.real
            .set_readers("real", &[&Env::spiffe_id(&self.tenant, "real")])?;
        let greedy = |repository| format!("oci://{}/{repository}", self.greedy.host());
        self.create("jwt", Self::jwt(&greedy("jwt"))).await?;
        self.create("account", Self::account(&greedy("account"))).await?;
        self.create("cert", Self::certificate(&self.mtls.url("cert"), "registry-ca"))
            .await?;
        self.create("real", Self::jwt(&self.real.url("real"))).await?;
        for name in ["jwt", "account", "cert", "real"] {
            self.env.ready(&self.tenant, name).await?;
        }
        Ok(())
    }

    /// All three fail, at registries that give back what they got.
    async fn failures(&self) -> Result<()> {
        let mut failing = Vec::new();
        for kind in TRAPS {
            let url = format!("oci://{}/{kind}", self.greedy.host());
            for (credential, spec) in [("jwt", Self::jwt(&url)), ("account", Self::account(&url))] {
                let name = format!("{kind}-{credential}");
                self.create(&name, spec).await?;
                failing.push(name);
            }
        }
        let (real, mtls) = (self.real.url("denied"), self.mtls.url("denied"));
        self.create("denied-jwt", Self::jwt(&real)).await?;
        self.create("denied-account", Self::account(&real)).await?;
        self.create("denied-cert", Self::certificate(&mtls, "registry-ca"))
            .await?;
        self.create("wrong-ca", Self::certificate(&mtls, "wrong-ca")).await?;
        failing.extend(["denied-jwt", "denied-account", "denied-cert", "wrong-ca"].map(str::to_owned));
        for name in failing {
            let object = self
                .env
                .wait(&self.tenant, &name, "Ready=False", |object| {
                    condition(object, "Ready").is_some_and(|ready| ready.status == "False")
                })
                .await?;
            let ready = condition(&object, "Ready").context("Ready")?;
            self.env.event(&self.tenant, &name, &ready.reason).await?;
        }
        Ok(())
    }

    /// The signing key is replaced, then by garbage; the objects are reconciled with each.
    async fn rotate(&self, next: &KeyAndCertificate, garbage: &KeyAndCertificate) -> Result<()> {
        let namespace = &self.env.installation.namespace;
        signing_secret(self.env.cluster, namespace, next).await?;
        let ids = Ids::of(next)?;
        self.env.key_is(&ids.kid, "signing").await?;
        self.env.key_is(&ids.authority, "signing").await?;
        self.env.reconcile(&self.tenant, "jwt").await?;
        signing_secret(self.env.cluster, namespace, garbage).await?;
        self.env
            .event(namespace, SIGNING_SECRET, "SigningSecretInvalid")
            .await?;
        for name in ["jwt", "account", "cert", "real"] {
            self.env.reconcile(&self.tenant, name).await?;
        }
        Ok(())
    }

    /// Everything that came out of the controller, by where it was found.
    async fn output(&self) -> Result<Vec<(String, String)>> {
        let mut output = vec![
            ("log".to_owned(), self.controller.log()?),
            ("metrics".to_owned(), self.env.metrics().await?),
        ];
        let events = Api::<Event>::all(self.env.client.clone())
            .list(&ListParams::default())
            .await?;
        for event in events {
            output.push(("event".to_owned(), serde_json::to_string(&event)?));
        }
        for object in self.env.repositories(&self.tenant).list(&ListParams::default()).await? {
            output.push(("object".to_owned(), serde_json::to_string(&object)?));
        }
        // Nothing is kept in Secrets either: what is there was there before. The ring's keys are where they belong.
        for namespace in [&self.tenant, &self.env.installation.namespace] {
            for secret in Api::<Secret>::namespaced(self.env.client.clone(), namespace)
                .list(&ListParams::default())
                .await?
            {
                let name = secret.metadata.name.clone().unwrap_or_default();
                if [SIGNING_SECRET, RING_SECRET].contains(&name.as_str()) {
                    continue;
                }
                output.push((format!("Secret {name}"), serde_json::to_string(&secret)?));
            }
        }
        read_files(&self.controller.storage(), &mut output)?;
        Ok(output)
    }
}

fn read_files(folder: &Path, output: &mut Vec<(String, String)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_files(&path, output)?;
        } else {
            output.push((
                path.display().to_string(),
                String::from_utf8_lossy(&fs::read(&path)?).into_owned(),
            ));
        }
    }
    Ok(())
}

/// The JWT of an Authorization header: the bearer, or the password of Basic.
fn token(header: &str) -> Result<String> {
    match header.split_once(' ').context("a scheme")? {
        ("Basic", pair) => {
            let pair = String::from_utf8(STANDARD.decode(pair)?)?;
            Ok(pair.split_once(':').context("a password")?.1.to_owned())
        }
        (_, token) => Ok(token.to_owned()),
    }
}

/// The header and the claims of a compact JWS.
fn decode(token: &str) -> Result<(Value, Value)> {
    let mut parts = token
        .split('.')
        .map(|part| -> Result<Value> { Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?) });
    Ok((parts.next().context("a header")??, parts.next().context("claims")??))
}

/// Every minting stands in the audit log with what identifies it.
fn check_audit(controller: &Controller, tokens: &BTreeSet<String>) -> Result<()> {
    let lines = controller.log_lines()?;
    let audit: Vec<_> = lines
        .iter()
        .filter(|line| line["logger"] == "mintmark::audit")
        .collect();
    for token in tokens {
        let (header, claims) = decode(token)?;
        let line = audit
            .iter()
            .find(|line| line["id"] == claims["jti"])
            .with_context(|| format!("jti of {claims}"))?;
        ensure!(line["subject"] == claims["sub"], "{line} is about {claims}");
        ensure!(
            header["alg"] != "ES256" || line["keyID"] == header["kid"],
            "{line} is about {header}"
        );
        ensure!(
            line["audiences"] == AUDIENCE && line["uid"].is_string() && line["expires"].is_string(),
            "{line}"
        );
    }
    let presented: BTreeSet<_> = audit.iter().filter_map(|line| line["outcome"].as_str()).collect();
    ensure!(presented.len() > 1, "accepted and refused presentations: {presented:?}");
    Ok(())
}

#[tokio::test]
async fn no_secret_reaches_logs_events_statuses_metrics_or_files() -> Result<()> {
    let scene = Scene::new().await?;
    let (next, other) = (TestCa::new("next CA")?, TestCa::new("other CA")?);
    // A good key of another certificate, with something after it that an error message could quote.
    let garbage = KeyAndCertificate {
        key_pem: format!("{}garbage-that-nobody-may-quote\n", other.key_and_certificate().key_pem),
        certificate_pem: next.key_and_certificate().certificate_pem.clone(),
    };
    scene.pulls().await?;
    scene.failures().await?;
    scene.rotate(next.key_and_certificate(), &garbage).await?;

    let headers: BTreeSet<_> = scene
        .greedy
        .requests()
        .into_iter()
        .filter_map(|request| request.authorization().map(str::to_owned))
        .collect();
    let tokens = headers
        .iter()
        .map(|header| token(header))
        .collect::<Result<BTreeSet<_>>>()?;
    let issuers = tokens
        .iter()
        .map(|token| Ok(decode(token)?.1["iss"].to_string()))
        .collect::<Result<BTreeSet<_>>>()?;
    assert_eq!(issuers.len(), 2, "tokens of both issuers were seen: {issuers:?}");

    let mut secrets = Secrets(Vec::new());
    for token in &tokens {
        secrets.add_token("a presented token", token);
    }
    for header in &headers {
        secrets.add("a presented header", header.rsplit(' ').next().unwrap_or_default());
    }
    let kubeconfig: Value = serde_yaml_ng::from_str(&fs::read_to_string(&scene.env.installation.kubeconfig)?)?;
    let own = kubeconfig
        .pointer("/users/0/user/token")
        .and_then(Value::as_str)
        .context("the own token")?;
    secrets.add_token("the controller's own token", own);
    secrets.add_key("the signing key", &scene.env.ca.key_and_certificate().key_pem)?;
    secrets.add_key("the next signing key", &next.key_and_certificate().key_pem)?;
    secrets.add_key("the garbage key", &other.key_and_certificate().key_pem)?;
    secrets.add("the garbage", "garbage-that-nobody-may-quote");
    secrets.add("the header of a key", "PRIVATE KEY-----");
    secrets.add("the registry's password", scene.real.admin_password());
    secrets.add("the TLS registry's password", scene.mtls.admin_password());

    let output = scene.output().await?;
    for (place, text) in &output {
        let found = secrets.in_text(text);
        assert!(found.is_empty(), "in {place}: {found:?}");
    }
    // The search itself finds what is there.
    let first = tokens.first().context("a token")?;
    assert!(!secrets.in_text(&format!("planted {first} here")).is_empty());
    assert!(output.iter().filter(|(place, _)| place == "event").count() >= TRAPS.len());
    check_audit(&scene.controller, &tokens)?;
    scene.controller.kill()?;
    Ok(())
}
