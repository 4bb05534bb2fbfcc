//! The signing Secret as cert-manager writes it: keys in PKCS#1 and SEC1, a chain in `tls.crt`, the root in `ca.crt`, all replaced
//! at once or field by field. Verifiers hold only the root, and pulls go on through every step. There is no cert-manager
//! here: the Secrets are made as it makes them, and its samples are held against the fields that it documents.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kube::api::{Patch, PatchParams};
use mintmark_hack::{
    controller::SIGNING_SECRET,
    pki::{KeyAndCertificate, TestCa},
    registry::{Artifact, RegistryServer},
    workspace,
};
use mintmark_tests::{
    env::{Env, condition},
    http::until,
    issuer::authority,
    specs,
};
use serde::Deserialize;
use serde_json::json;

/// Root, a CA between, and what cert-manager issues for the Certificate `mintmark-signing` under it.
struct CertManager {
    root: TestCa,
    between: TestCa,
}

impl CertManager {
    fn new() -> Result<Self> {
        let root = TestCa::new("mintmark root")?;
        let between = root.intermediate("mintmark between")?;
        Ok(Self { root, between })
    }

    /// The key of `<name>.<encoding>.key` with a fresh certificate; the chain goes up to below the root.
    fn issue(&self, name: &str, encoding: &str) -> Result<KeyAndCertificate> {
        let read = |encoding: &str| {
            let file = workspace::root().join(format!("issuer/testdata/{name}.{encoding}.key"));
            std::fs::read_to_string(&file).with_context(|| file.display().to_string())
        };
        let certificate = self.between.certify("mintmark signing", &read("pkcs8")?)?;
        Ok(KeyAndCertificate {
            key_pem: read(encoding)?,
            certificate_pem: certificate + self.between.pem(),
        })
    }

    /// Writes these fields of the Secret, with the annotations that cert-manager adds.
    async fn write(&self, env: &Env, fields: &[(&str, &str)]) -> Result<()> {
        let mut data: BTreeMap<_, _> = fields
            .iter()
            .map(|(field, value)| (*field, STANDARD.encode(value)))
            .collect();
        data.insert("ca.crt", STANDARD.encode(self.root.pem()));
        let patch = json!({
            "metadata": {
                "annotations": {
                    "cert-manager.io/certificate-name": SIGNING_SECRET,
                    "cert-manager.io/common-name": "mintmark signing",
                    "cert-manager.io/issuer-kind": "Issuer",
                    "cert-manager.io/issuer-name": "mintmark-root",
                },
                "labels": {"controller.cert-manager.io/fao": "true"},
            },
            "data": data,
        });
        env.secrets(&env.installation.namespace)
            .patch(SIGNING_SECRET, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    async fn write_pair(&self, env: &Env, pair: &KeyAndCertificate) -> Result<()> {
        self.write(env, &[("tls.key", &pair.key_pem), ("tls.crt", &pair.certificate_pem)])
            .await
    }
}

/// A tenant with an object per minted credential. The registry of certificates knows the root alone, from its start on.
struct Tenant {
    namespace: String,
    bearer: RegistryServer,
    mtls: RegistryServer,
}

impl Tenant {
    async fn new(env: &Env, root: &str) -> Result<Self> {
        let namespace = env.tenant("a").await?;
        let (bearer, mtls) = (env.jwt_registry()?, env.mtls_registry(root)?);
        env.secret(&namespace, specs::REGISTRY_CA, &[("ca.crt", mtls.ca_pem())])
            .await?;
        let artifact = Artifact::from_files(&[("app.yaml", b"first")])?;
        for (registry, name) in [(&bearer, "jwt"), (&mtls, "cert")] {
            registry.push("team/app", "v1", &artifact).await?;
            registry.set_readers("team/app", &[&Env::spiffe_id(&namespace, name)])?;
        }
        env.create(&namespace, "jwt", specs::jwt(&bearer.url("team/app")))
            .await?;
        env.create(&namespace, "cert", specs::certificate(&mtls.url("team/app")))
            .await?;
        for name in ["jwt", "cert"] {
            env.ready(&namespace, name).await?;
        }
        Ok(Self {
            namespace,
            bearer,
            mtls,
        })
    }

    /// Has both objects pull new content.
    async fn pulls(&self, env: &Env, what: &str) -> Result<()> {
        let artifact = Artifact::from_files(&[("app.yaml", what.as_bytes())])?;
        for (registry, name) in [(&self.bearer, "jwt"), (&self.mtls, "cert")] {
            let digest = registry.push("team/app", "v1", &artifact).await?.digest;
            let object = env.reconcile(&self.namespace, name).await?;
            let ready = condition(&object, "Ready").context("no Ready")?;
            assert_eq!(ready.status, "True", "{what}: {name}: {}", ready.message);
            let stored = object
                .status
                .and_then(|status| status.artifact)
                .context("no artifact")?;
            assert_eq!(stored.revision, format!("v1@{digest}"), "{what}: {name}");
        }
        Ok(())
    }
}

async fn until_state(env: &Env, state: &str) -> Result<()> {
    let line = format!("mintmark_signing_secret_state{{state=\"{state}\"}} 1.0");
    until(&line, async || {
        Ok(env.metrics().await?.lines().any(|found| found == line))
    })
    .await
}

/// Waits until the public halves of this key and its CA are published.
async fn until_published(env: &Env, pair: &KeyAndCertificate) -> Result<()> {
    let kid = authority(pair)?.jwt().map_err(Clone::clone)?.kid().to_owned();
    let ca = pair.certificate_pem.lines().nth(1).context("a certificate")?.to_owned();
    let issuer = env.ports.issuer_url();
    for (path, text) in [("keys", kid), ("spiffe/bundle.pem", ca)] {
        let url = format!("{issuer}/{path}");
        until(&format!("{path} has {text}"), async || {
            let answer = reqwest::get(&url).await?;
            Ok(answer.status().is_success() && answer.text().await?.contains(&text))
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_renewal_comes_in_one_update_or_in_two_and_no_pull_fails() -> Result<()> {
    let env = Env::new().await?;
    let authority = CertManager::new()?;
    let first = authority.issue("ec-p256", "sec1")?;
    authority.write_pair(&env, &first).await?;
    let _controller = env.controller(&["--spiffe-bundle-root"]).await?;
    let tenant = Tenant::new(&env, authority.root.pem()).await?;
    until_published(&env, &first).await?;
    let bundle = reqwest::get(format!("{}/spiffe/bundle.pem", env.ports.issuer_url()))
        .await?
        .text()
        .await?;
    let root = authority.root.pem().lines().nth(1).context("a certificate")?;
    assert!(bundle.contains(root), "the root is not published: {bundle}");

    let second = authority.issue("ec-p384", "sec1")?;
    authority.write(&env, &[("tls.key", &second.key_pem)]).await?;
    until_state(&env, "last_good").await?;
    tenant.pulls(&env, "the key came first").await?;
    authority.write(&env, &[("tls.crt", &second.certificate_pem)]).await?;
    until_state(&env, "valid").await?;
    until_published(&env, &second).await?;
    tenant.pulls(&env, "the certificate followed").await?;

    let third = authority.issue("rsa-2048", "pkcs1")?;
    authority.write(&env, &[("tls.crt", &third.certificate_pem)]).await?;
    until_state(&env, "last_good").await?;
    tenant.pulls(&env, "the certificate came first").await?;
    authority.write(&env, &[("tls.key", &third.key_pem)]).await?;
    until_state(&env, "valid").await?;
    until_published(&env, &third).await?;
    tenant.pulls(&env, "the key followed").await?;

    let renewed = authority.issue("ec-p256", "sec1")?;
    authority.write_pair(&env, &renewed).await?;
    until_published(&env, &renewed).await?;
    tenant.pulls(&env, "both at once").await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Object<Spec> {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
    namespace: String,
}

/// The issuer types of the samples (cert-manager.io/v1, `IssuerSpec`); an object has one of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct IssuerSpec {
    self_signed: Option<SelfSigned>,
    ca: Option<CaIssuer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SelfSigned {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CaIssuer {
    secret_name: String,
}

/// The fields of a `CertificateSpec` (cert-manager.io/v1) that the samples use.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CertificateSpec {
    secret_name: String,
    common_name: String,
    #[serde(rename = "isCA")]
    is_ca: bool,
    usages: Vec<String>,
    duration: String,
    renew_before: String,
    private_key: PrivateKey,
    issuer_ref: IssuerRef,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PrivateKey {
    algorithm: String,
    size: u32,
    rotation_policy: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerRef {
    name: String,
    kind: String,
    group: String,
}

impl<Spec: for<'de> Deserialize<'de>> Object<Spec> {
    /// Reads one document; the kind must be this one.
    fn read(document: &serde_yaml_ng::Value, kind: &str) -> Result<Self> {
        let object: Self = serde_yaml_ng::from_value(document.clone())?;
        assert_eq!(
            (&*object.api_version, &*object.kind, &*object.metadata.namespace),
            ("cert-manager.io/v1", kind, "mintmark-system")
        );
        Ok(object)
    }
}

fn documents(file: &str) -> Result<Vec<serde_yaml_ng::Value>> {
    let text = std::fs::read_to_string(workspace::root().join("config/samples/cert-manager").join(file))?;
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| Ok(serde_yaml_ng::Value::deserialize(document)?))
        .collect()
}

fn hours(duration: &str) -> Result<u32> {
    Ok(duration.strip_suffix('h').context("hours")?.parse()?)
}

#[test]
fn the_samples_have_documented_fields_and_leave_room_for_the_overlap() -> Result<()> {
    let root_file = documents("root.yaml")?;
    let [self_signed, root, ca] = root_file.as_slice() else {
        anyhow::bail!("{} documents", root_file.len())
    };
    let self_signed = Object::<IssuerSpec>::read(self_signed, "Issuer")?;
    let root = Object::<CertificateSpec>::read(root, "Certificate")?;
    let ca = Object::<IssuerSpec>::read(ca, "Issuer")?;
    let signing_file = documents("signing.yaml")?;
    let signing = Object::<CertificateSpec>::read(signing_file.first().context("a document")?, "Certificate")?;
    assert!(self_signed.spec.self_signed.is_some() && self_signed.spec.ca.is_none());
    assert!(ca.spec.self_signed.is_none());
    let from = ca.spec.ca.context("the second issuer is no CA")?;
    assert_eq!(from.secret_name, root.spec.secret_name);
    assert_eq!(signing.spec.secret_name, SIGNING_SECRET);
    for (certificate, issuer, rotation) in [
        (&root, &self_signed.metadata.name, "Never"),
        (&signing, &ca.metadata.name, "Always"),
    ] {
        let spec = &certificate.spec;
        assert!(spec.is_ca && !spec.common_name.is_empty());
        assert_eq!(spec.usages, ["cert sign", "digital signature"]);
        assert_eq!((&*spec.private_key.algorithm, spec.private_key.size), ("ECDSA", 256));
        assert_eq!(spec.private_key.rotation_policy, rotation);
        assert_eq!(&spec.issuer_ref.name, issuer);
        assert_eq!(
            (&*spec.issuer_ref.kind, &*spec.issuer_ref.group),
            ("Issuer", "cert-manager.io")
        );
        assert!(hours(&spec.renew_before)? < hours(&spec.duration)?);
    }
    // Default overlap and longest SVID, twice over.
    assert!(hours(&signing.spec.renew_before)? >= 2 * (24 + 24));
    assert!(hours(&root.spec.renew_before)? > hours(&signing.spec.duration)?);
    Ok(())
}
