//! Each credential is accepted where it is trusted, and refused where it is not: by another issuer, for another audience,
//! under another CA, without a certificate request, or too late.

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use mintmark_hack::{
    pki::TestCa,
    registry::{Artifact, Issuer, MANIFEST_MEDIA_TYPE, RegistryOptions, RegistryServer},
};
use mintmark_issuer::{IssuerUrl, JwtRequest, ObjectRef, SpiffeId, SystemRandom, TrustDomain};
use mintmark_tests::{
    env::{AUDIENCE, Env, TRUST_DOMAIN},
    issuer::{authority, chain_pem},
    served, specs,
};
use reqwest::header::ACCEPT;
use rstest::rstest;
use secrecy::ExposeSecret;

const NOT_ACCEPTED: &str = "registry does not accept the credential (401: issuer, audience or CA unknown there, or it \
                            cannot reach the issuer)";

fn artifact(text: &str) -> Result<Artifact> {
    Artifact::from_files(&[("deploy/app.yaml", text.as_bytes())])
}

/// Pushes an artifact that exactly these subjects may read, and returns the repository's URL.
async fn seed(registry: &RegistryServer, repository: &str, readers: &[&str]) -> Result<String> {
    registry.push(repository, "v1", &artifact(repository)?).await?;
    registry.set_readers(repository, readers)?;
    Ok(registry.url(repository))
}

/// Waits until the object is refused with this text; then it has no artifact, and a Warning event says the same.
async fn refused(env: &Env, namespace: &str, name: &str, text: &str) -> Result<()> {
    let object = env.failed(namespace, name, "AuthenticationFailed", text).await?;
    let status = object.status.context("a status")?;
    assert!(status.artifact.is_none(), "{name} got an artifact");
    let event = env.event_saying(namespace, name, "AuthenticationFailed", text).await?;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    Ok(())
}

/// Why the registry refused, as it says itself: for all requests of a repository.
fn reasons(registry: &RegistryServer, repository: &str) -> Result<Vec<String>> {
    let prefix = format!("/v2/{repository}/manifests/");
    let log = registry.access_log()?.into_iter();
    let refused = log.filter(|entry| entry.path.starts_with(&prefix) && entry.status == 401);
    Ok(refused.map(|entry| entry.reason).collect())
}

#[tokio::test]
async fn each_credential_pulls_its_own_repository_and_no_other() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let (a, b) = (env.tenant("a").await?, env.tenant("b").await?);
    env.service_account(&a, "puller").await?;
    let bearer = env.jwt_registry()?;
    let mtls = env.mtls_registry(env.ca.pem())?;
    let account = format!("system:serviceaccount:{a}:puller");
    let jwt = seed(&bearer, "team/jwt", &[&Env::spiffe_id(&a, "jwt")]).await?;
    let token = seed(&bearer, "team/account", &[&account]).await?;
    let certificate = seed(&mtls, "team/cert", &[&Env::spiffe_id(&a, "cert")]).await?;
    for namespace in [&a, &b] {
        env.secret(namespace, "registry-ca", &[("ca.crt", mtls.ca_pem())])
            .await?;
    }
    env.service_account(&b, "puller").await?;
    for namespace in [&a, &b] {
        env.create(namespace, "account", specs::account(&token)).await?;
    }
    env.create(&a, "jwt", specs::jwt(&jwt)).await?;
    env.create(&a, "cert", specs::certificate(&certificate)).await?;
    env.create(&b, "jwt", specs::jwt(&jwt)).await?;
    env.create(&b, "cert", specs::certificate(&certificate)).await?;

    for (name, subject) in [
        ("jwt", Env::spiffe_id(&a, "jwt")),
        ("account", account),
        ("cert", Env::spiffe_id(&a, "cert")),
    ] {
        let status = env.ready(&a, name).await?.status.context("a status")?;
        assert_eq!(status.credential.context("a credential")?.subject, subject);
        let artifact = status.artifact.context("an artifact")?;
        assert!(artifact.revision.starts_with("v1@sha256:"), "{}", artifact.revision);
        served::fetch(&artifact).await?;
        refused(&env, &b, name, "authenticated but not authorised (403)").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_token_is_refused_where_its_issuer_is_unknown() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let namespace = env.tenant("a").await?;
    env.service_account(&namespace, "puller").await?;
    let registry = RegistryServer::start(RegistryOptions {
        issuers: vec![Issuer::new("http://127.0.0.1:9", &[AUDIENCE])],
        ..RegistryOptions::default()
    })?;
    let jwt = seed(&registry, "team/jwt", &[&Env::spiffe_id(&namespace, "jwt")]).await?;
    let account = format!("system:serviceaccount:{namespace}:puller");
    let token = seed(&registry, "team/account", &[&account]).await?;
    env.create(&namespace, "jwt", specs::jwt(&jwt)).await?;
    env.create(&namespace, "account", specs::account(&token)).await?;
    for (name, issuer) in [
        ("jwt", env.ports.issuer_url()),
        ("account", env.cluster.url().to_owned()),
    ] {
        refused(&env, &namespace, name, NOT_ACCEPTED).await?;
        let reasons = reasons(&registry, &format!("team/{name}"))?;
        let expected = format!("issuer {issuer:?} is not trusted here");
        // The first challenge is answered with the token as a password, which this registry never takes.
        assert!(reasons.iter().any(|reason| reason.contains(&expected)), "{reasons:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_token_is_refused_where_its_audience_is_another_one() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let namespace = env.tenant("a").await?;
    env.service_account(&namespace, "puller").await?;
    let issuers = env.issuers().into_iter().map(|issuer| Issuer {
        audiences: vec!["other.example".to_owned()],
        ..issuer
    });
    let registry = RegistryServer::start(RegistryOptions {
        issuers: issuers.collect(),
        ..RegistryOptions::default()
    })?;
    let jwt = seed(&registry, "team/jwt", &[&Env::spiffe_id(&namespace, "jwt")]).await?;
    let account = format!("system:serviceaccount:{namespace}:puller");
    let token = seed(&registry, "team/account", &[&account]).await?;
    env.create(&namespace, "jwt", specs::jwt(&jwt)).await?;
    env.create(&namespace, "account", specs::account(&token)).await?;
    for name in ["jwt", "account"] {
        refused(&env, &namespace, name, NOT_ACCEPTED).await?;
        let reasons = reasons(&registry, &format!("team/{name}"))?;
        let expected = format!("audiences [{AUDIENCE:?}] are none of ours");
        assert!(reasons.iter().any(|reason| reason.contains(&expected)), "{reasons:?}");
    }
    Ok(())
}

#[rstest]
#[case::of_another_name("somebody else's CA")]
#[case::of_the_same_name("mintmark test CA")]
#[tokio::test]
async fn a_certificate_is_refused_under_another_ca(#[case] name: &str) -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let namespace = env.tenant("a").await?;
    let registry = env.mtls_registry(TestCa::new(name)?.pem())?;
    let url = seed(&registry, "team/cert", &[&Env::spiffe_id(&namespace, "cert")]).await?;
    env.secret(&namespace, "registry-ca", &[("ca.crt", registry.ca_pem())])
        .await?;
    env.create(&namespace, "cert", specs::certificate(&url)).await?;
    let text = "registry does not accept the client certificate issued by 'mintmark test CA' (TLS alert unknown_ca: ";
    refused(&env, &namespace, "cert", text).await?;
    assert!(registry.access_log()?.iter().all(|entry| entry.kind != "mtls"));
    Ok(())
}

#[tokio::test]
async fn a_registry_that_asks_for_no_certificate_serves_none_of_its_anonymous_content() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let namespace = env.tenant("a").await?;
    let registry = RegistryServer::start(RegistryOptions {
        tls: true,
        ..RegistryOptions::default()
    })?;
    let url = seed(&registry, "team/cert", &[]).await?;
    registry.allow_anonymous("team/cert")?;
    env.secret(&namespace, "registry-ca", &[("ca.crt", registry.ca_pem())])
        .await?;
    env.create(&namespace, "cert", specs::certificate(&url)).await?;
    refused(
        &env,
        &namespace,
        "cert",
        "registry did not ask for a client certificate",
    )
    .await?;
    assert!(registry.access_log()?.iter().all(|entry| entry.kind != "anonymous"));
    Ok(())
}

#[tokio::test]
async fn an_expired_jwt_svid_is_refused() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let namespace = env.tenant("a").await?;
    let registry = env.jwt_registry()?;
    let url = seed(&registry, "team/jwt", &[&Env::spiffe_id(&namespace, "jwt")]).await?;
    // From here on the registry knows the key: what is refused below is refused for its time alone.
    env.create(&namespace, "jwt", specs::jwt(&url)).await?;
    env.ready(&namespace, "jwt").await?;

    // The controller's own authority, at another time.
    let authority = authority(env.ca.key_and_certificate())?;
    let subject = SpiffeId::for_object(&TrustDomain::parse(TRUST_DOMAIN)?, "ocirepositories", &namespace, "jwt")?;
    let request = JwtRequest {
        subject: &subject,
        audiences: &[AUDIENCE],
        issuer: &IssuerUrl::parse(&env.ports.issuer_url(), false)?,
        object: ObjectRef {
            kind: "OCIRepository",
            namespace: &namespace,
            name: "jwt",
            uid: "",
        },
        ttl: SignedDuration::from_mins(5),
    };
    for (age, status) in [(0, 200), (4, 200), (6, 401)] {
        let now = Timestamp::now() - SignedDuration::from_mins(age);
        let svid = authority
            .jwt()
            .map_err(Clone::clone)?
            .mint(&request, now, &SystemRandom::new())?;
        let manifest = format!("{}/v2/team/jwt/manifests/v1", registry.origin());
        let request = reqwest::Client::new()
            .get(&manifest)
            .header(ACCEPT, MANIFEST_MEDIA_TYPE);
        let answer = request.bearer_auth(svid.token.expose_secret()).send().await?;
        assert_eq!(answer.status(), status, "minted {age} min ago");
    }
    let reasons = reasons(&registry, "team/jwt")?;
    assert!(
        reasons.last().is_some_and(|reason| reason.contains("expired")),
        "{reasons:?}"
    );
    Ok(())
}

#[tokio::test]
async fn an_expired_x509_svid_is_refused() -> Result<()> {
    let env = Env::new().await?;
    let registry = env.mtls_registry(env.ca.pem())?;
    let subject = SpiffeId::for_object(&TrustDomain::parse(TRUST_DOMAIN)?, "ocirepositories", "a", "cert")?;
    seed(&registry, "team/cert", &[subject.as_str()]).await?;
    // The controller's own authority, at another time.
    let authority = authority(env.ca.key_and_certificate())?;
    for (age, is_accepted) in [(0, true), (4, true), (6, false)] {
        let now = Timestamp::now() - SignedDuration::from_mins(age);
        let ttl = SignedDuration::from_mins(5);
        let svid = authority
            .x509()
            .map_err(Clone::clone)?
            .mint(&subject, ttl, now, &SystemRandom::new())?;
        let chain: Vec<_> = svid.chain.iter().map(|der| der.to_vec()).collect();
        let identity = chain_pem(&chain) + &mintmark_hack::pki::pem("PRIVATE KEY", &svid.key);
        let client = reqwest::Client::builder()
            .identity(reqwest::Identity::from_pem(identity.as_bytes())?)
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(registry.ca_pem().as_bytes())?)
            .no_proxy()
            .build()?;
        let manifest = format!("{}/v2/team/cert/manifests/v1", registry.origin());
        let answer = client.get(&manifest).header(ACCEPT, MANIFEST_MEDIA_TYPE).send().await;
        assert_eq!(
            answer.is_ok_and(|answer| answer.status() == 200),
            is_accepted,
            "minted {age} min ago"
        );
    }
    Ok(())
}
