//! CAs as they meet us in clusters: subjects that are easily re-encoded wrongly, keys in the forms that cert-manager and
//! openssl write, larger curves and RSA, and keys that can do only half of the work. All were made by openssl.

use anyhow::{Context, Result};
use mintmark_hack::{
    pki::{KeyAndCertificate, TestCa},
    svid::{Bundle, verify_oidc},
    workspace,
};
use mintmark_tests::{
    env::{AUDIENCE, Env, TRUST_DOMAIN, condition},
    fault_registry::{Artifact, FaultRegistry},
    issuer::{chain_pem, chains, mutual_tls, tokens},
    specs,
};
use rstest::rstest;

fn fixture(key: &str, certificate: &str) -> Result<KeyAndCertificate> {
    let folder = workspace::root().join("issuer/testdata");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).with_context(|| name.to_owned());
    Ok(KeyAndCertificate {
        key_pem: read(key)?,
        certificate_pem: read(certificate)?,
    })
}

/// Registries that only record, and the real one, all with something to pull.
struct Registries {
    plain: FaultRegistry,
    tls: FaultRegistry,
    real: mintmark_hack::registry::RegistryServer,
}

impl Registries {
    async fn new(env: &Env, namespace: &str, ca: &str) -> Result<Self> {
        let plain = FaultRegistry::start(None).await;
        let (tls, tls_ca) = mutual_tls(ca).await?;
        for registry in [&plain, &tls] {
            registry.push("team/app", "v1", &Artifact::flux(&[("a.yaml", "a")]));
        }
        let real = env.mtls_registry(ca)?;
        let artifact = mintmark_hack::registry::Artifact::from_files(&[("a.yaml", b"a")])?;
        real.push("team/app", "v1", &artifact).await?;
        real.set_readers("team/app", &[&Env::spiffe_id(namespace, "real")])?;
        env.secret(namespace, "registry-ca", &[("ca.crt", &(tls_ca + real.ca_pem()))])
            .await?;
        Ok(Self { plain, tls, real })
    }

    /// Creates `jwt`, `cert` and `real`: one object per registry.
    async fn create_objects(&self, env: &Env, namespace: &str) -> Result<()> {
        let url = |registry: &FaultRegistry| format!("oci://{}/team/app", registry.host());
        env.create(namespace, "jwt", specs::jwt(&url(&self.plain))).await?;
        env.create(namespace, "cert", specs::certificate(&url(&self.tls)))
            .await?;
        env.create(namespace, "real", specs::certificate(&self.real.url("team/app")))
            .await?;
        Ok(())
    }

    /// Lets go-spiffe judge the certificate that `cert` presented.
    async fn judge_certificate(&self, env: &Env, namespace: &str) -> Result<()> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("chain.pem");
        std::fs::write(&file, chain_pem(&chains(&self.tls).pop().context("no certificate")?))?;
        let source = format!("{}/spiffe/bundle.json", env.ports.issuer_url());
        let bundle = Bundle {
            source: &source,
            trust_domain: TRUST_DOMAIN,
        };
        let verdict = bundle.verify_x509(&file).await?;
        assert_eq!(verdict.subject, Env::spiffe_id(namespace, "cert"));
        Ok(())
    }

    /// Lets go-spiffe and go-oidc judge the token that `jwt` presented.
    async fn judge_token(&self, env: &Env, namespace: &str, algorithm: &str) -> Result<()> {
        let token = tokens(&self.plain)?.pop().context("no token")?;
        assert_eq!(token.header["alg"], algorithm);
        let issuer = env.ports.issuer_url();
        let source = format!("{issuer}/spiffe/bundle.json");
        let bundle = Bundle {
            source: &source,
            trust_domain: TRUST_DOMAIN,
        };
        let subject = Env::spiffe_id(namespace, "jwt");
        assert_eq!(bundle.verify_jwt(&token.compact, &[AUDIENCE]).await?.subject, subject);
        let verdict = verify_oidc(&issuer, None, &token.compact, AUDIENCE).await?;
        assert_eq!(verdict.subject, subject);
        Ok(())
    }
}

#[rstest]
#[case::two_ou_and_sec1("ec-p256.sec1.key", "two-ou.crt", "ES256")]
#[case::two_ou_and_pkcs8("ec-p256.pkcs8.key", "two-ou.crt", "ES256")]
#[case::domain_components_and_p384_sec1("ec-p384.sec1.key", "domain-components.crt", "ES384")]
#[case::domain_components_and_p384_pkcs8("ec-p384.pkcs8.key", "domain-components.crt", "ES384")]
#[case::multi_valued_rdn_and_pkcs1("rsa-2048.pkcs1.key", "multi-valued-rdn.crt", "RS256")]
#[case::multi_valued_rdn_and_pkcs8("rsa-2048.pkcs8.key", "multi-valued-rdn.crt", "RS256")]
#[tokio::test]
async fn pulls_work_and_judges_agree(
    #[case] key: &str,
    #[case] certificate: &str,
    #[case] algorithm: &str,
) -> Result<()> {
    let env = Env::new().await?;
    let pair = fixture(key, certificate)?;
    env.sign_with(&pair).await?;
    let _controller = env.controller(&[]).await?;
    let namespace = env.tenant("a").await?;
    let registries = Registries::new(&env, &namespace, &pair.certificate_pem).await?;
    registries.create_objects(&env, &namespace).await?;
    for name in ["jwt", "cert", "real"] {
        env.ready(&namespace, name).await?;
    }
    registries.judge_certificate(&env, &namespace).await?;
    registries.judge_token(&env, &namespace, algorithm).await
}

#[tokio::test]
async fn an_ed25519_ca_signs_certificates_only_until_another_key_comes() -> Result<()> {
    let env = Env::new().await?;
    let pair = fixture("ed25519.pkcs8.key", "ed25519.crt")?;
    env.sign_with(&pair).await?;
    let _controller = env.controller(&[]).await?;
    let namespace = env.tenant("a").await?;
    let registries = Registries::new(&env, &namespace, &pair.certificate_pem).await?;
    registries.create_objects(&env, &namespace).await?;
    env.ready(&namespace, "cert").await?;
    env.ready(&namespace, "real").await?;
    registries.judge_certificate(&env, &namespace).await?;
    stalled(
        &env,
        &namespace,
        "jwt",
        "signs no JWT-SVIDs; use EC P-256, EC P-384 or RSA",
    )
    .await?;
    assert!(
        registries.plain.requests().is_empty(),
        "something was sent without a credential"
    );

    env.sign_with(env.ca.key_and_certificate()).await?;
    env.ready(&namespace, "jwt").await?;
    registries.judge_token(&env, &namespace, "ES256").await
}

#[tokio::test]
async fn a_certificate_that_is_no_ca_signs_tokens_only() -> Result<()> {
    let env = Env::new().await?;
    let leaf = TestCa::new("some CA")?.server(&[])?;
    env.sign_with(&leaf).await?;
    let _controller = env.controller(&[]).await?;
    let namespace = env.tenant("a").await?;
    let registries = Registries::new(&env, &namespace, env.ca.pem()).await?;
    registries.create_objects(&env, &namespace).await?;
    env.ready(&namespace, "jwt").await?;
    registries.judge_token(&env, &namespace, "ES256").await?;
    stalled(&env, &namespace, "cert", "tls.crt: the certificate is not a CA").await?;
    assert!(
        registries.tls.connections().is_empty(),
        "a connection without a certificate"
    );

    env.sign_with(env.ca.key_and_certificate()).await?;
    env.ready(&namespace, "cert").await?;
    registries.judge_certificate(&env, &namespace).await
}

/// Waits until the object is stalled for want of a key that can do it.
async fn stalled(env: &Env, namespace: &str, name: &str, text: &str) -> Result<()> {
    let object = env.failed(namespace, name, "CredentialNotConfigured", text).await?;
    let stalled = condition(&object, "Stalled").context("not stalled")?;
    assert_eq!(
        (&*stalled.status, &*stalled.reason),
        ("True", "CredentialNotConfigured")
    );
    assert!(condition(&object, "Reconciling").is_none());
    Ok(())
}
