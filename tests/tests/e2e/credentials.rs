//! Each credential is accepted where it is trusted, and refused where it is not: by another issuer, for another audience,
//! under another CA, without a certificate request, or too late.

                            cannot reach the issuer)";
    digest,
    env::{AUDIENCE, Env, TRUST_DOMAIN},
    env::{AUDIENCE, Env},
    issuer::{authority, certificate_spec, chain_pem, jwt_spec},
    pki::TestCa,
    registry::{Artifact, Issuer, MANIFEST_MEDIA_TYPE, RegistryOptions, RegistryServer},
    served,
const NOT_ACCEPTED: &str = "registry does not accept the credential (401: issuer, audience or CA unknown there, or it \
use anyhow::Result;
use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use mintmark_hack::registry::Artifact;
use mintmark_hack::{
use mintmark_issuer::{IssuerUrl, JwtRequest, ObjectRef, SpiffeId, SystemRandom, TrustDomain};
use mintmark_tests::{
use reqwest::header::ACCEPT;
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::json;
use serde_json::{Value, json};
};

fn artifact(text: &str) -> Result<Artifact> {
    Artifact::from_files(&[("deploy/app.yaml", text.as_bytes())])
}

/// `spec` of an OCIRepository that presents a token of ServiceAccount `puller` over plain HTTP.
fn account_spec(url: &str) -> Value {
    json!({"url": url, "insecure": true, "ref": {"tag": "v1"}, "credential": "ServiceAccountToken",
           "audiences": [AUDIENCE], "serviceAccountName": "puller"})
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
        env.create(namespace, "account", account_spec(&token)).await?;
    }
    env.create(&a, "jwt", jwt_spec(&jwt)).await?;
    env.create(&a, "cert", certificate_spec(&certificate)).await?;
    env.create(&b, "jwt", jwt_spec(&jwt)).await?;
    env.create(&b, "cert", certificate_spec(&certificate)).await?;

            "minted {age} min ago"
            .build()?;
            .get(&manifest)
            .header(ACCEPT, MANIFEST_MEDIA_TYPE);
            .identity(reqwest::Identity::from_pem(identity.as_bytes())?)
            .jwt()
            .map_err(Clone::clone)?
            .mint(&request, now, &SystemRandom::new())?;
            .mint(&subject, ttl, now, &SystemRandom::new())?;
            .no_proxy()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(registry.ca_pem().as_bytes())?)
            .x509()
            answer.is_ok_and(|answer| answer.status() == 200),
            is_accepted,
            kind: "OCIRepository",
            name: "jwt",
            namespace: &namespace,
            uid: "",
        "account",
        "cert",
        "credential": "ServiceAccountToken", "audiences": [AUDIENCE], "serviceAccountName": "puller"}),
        "credential": "SpiffeCertificate", "certSecretRef": {"name": "registry-ca"}}),
        "credential": "SpiffeJWT", "audiences": [AUDIENCE]}),
        "intruder",
        "jwt",
        "registry did not ask for a client certificate",
        "{reasons:?}"
        &a,
        &b,
        &env,
        &namespace,
        ("account", account),
        ("account", env.cluster.url().to_owned()),
        ("cert", Env::spiffe_id(&a, "cert")),
        ("jwt", Env::spiffe_id(&a, "jwt")),
        ("jwt", env.ports.issuer_url()),
        );
        ..RegistryOptions::default()
        ..issuer
        .await?;
        // The first challenge is answered with the token as a password, which this registry never takes.
        assert!(artifact.revision.starts_with("v1@sha256:"), "{}", artifact.revision);
        assert!(reasons.iter().any(|reason| reason.contains(&expected)), "{reasons:?}");
        assert_eq!(
        assert_eq!(answer.status(), status, "minted {age} min ago");
        assert_eq!(artifact.digest, digest::oci(&body));
        assert_eq!(status.credential.context("a credential")?.subject, subject);
        audiences: &[AUDIENCE],
        audiences: vec!["other.example".to_owned()],
        issuer: &IssuerUrl::parse(&env.ports.issuer_url(), false)?,
        issuers: issuers.collect(),
        issuers: vec![Issuer::new("http://127.0.0.1:9", &[AUDIENCE])],
        json!({"url": bearer.url("team/account"), "insecure": true, "ref": tag,
        json!({"url": bearer.url("team/jwt"), "insecure": true, "ref": tag,
        json!({"url": mtls.url("team/cert"), "ref": tag,
        let answer = client.get(&manifest).header(ACCEPT, MANIFEST_MEDIA_TYPE).send().await;
        let answer = request.bearer_auth(svid.token.expose_secret()).send().await?;
        let artifact = served::artifact(&object)?;
        let artifact = status.artifact.context("an artifact")?;
        let body = reqwest::get(&artifact.url).await?.error_for_status()?.bytes().await?;
        let chain: Vec<_> = svid.chain.iter().map(|der| der.to_vec()).collect();
        let client = reqwest::Client::builder()
        let expected = format!("audiences [{AUDIENCE:?}] are none of ours");
        let expected = format!("issuer {issuer:?} is not trusted here");
        let identity = chain_pem(&chain) + &mintmark_hack::pki::pem("PRIVATE KEY", &svid.key);
        let manifest = format!("{}/v2/team/cert/manifests/v1", registry.origin());
        let manifest = format!("{}/v2/team/jwt/manifests/v1", registry.origin());
        let now = Timestamp::now() - SignedDuration::from_mins(age);
        let object = env.ready(&a, name).await?;
        let reasons = reasons(&registry, &format!("team/{name}"))?;
        let request = reqwest::Client::new()
        let status = env.ready(&a, name).await?.status.context("a status")?;
        let svid = authority
        let ttl = SignedDuration::from_mins(5);
        object: ObjectRef {
        reasons.last().is_some_and(|reason| reason.contains("expired")),
        refused(&env, &b, name, "authenticated but not authorised (403)").await?;
        refused(&env, &namespace, name, NOT_ACCEPTED).await?;
        served::fetch(&artifact).await?;
        subject: &subject,
        tls: true,
        ttl: SignedDuration::from_mins(5),
        },
    )
    );
    .await?;
    // From here on the registry knows the key: what is refused below is refused for its time alone.
    // The controller's own authority, at another time.
    Ok(())
    ] {
    assert!(
    assert!(registry.access_log()?.iter().all(|entry| entry.kind != "anonymous"));
    assert!(registry.access_log()?.iter().all(|entry| entry.kind != "mtls"));
    env.create(
    env.create(&namespace, "account", account_spec(&token)).await?;
    env.create(&namespace, "cert", certificate_spec(&url)).await?;
    env.create(&namespace, "jwt", jwt_spec(&jwt)).await?;
    env.create(&namespace, "jwt", jwt_spec(&url)).await?;
    env.ready(&namespace, "jwt").await?;
    env.secret(&namespace, "registry-ca", &[("ca.crt", registry.ca_pem())])
    env.service_account(&namespace, "puller").await?;
    for (age, is_accepted) in [(0, true), (4, true), (6, false)] {
    for (age, status) in [(0, 200), (4, 200), (6, 401)] {
    for (name, issuer) in [
    for (name, subject) in [
    for name in ["jwt", "account", "cert"] {
    for name in ["jwt", "account"] {
    let _controller = env.controller(&[]).await?;
    let account = format!("system:serviceaccount:{namespace}:puller");
    let authority = authority(env.ca.key_and_certificate())?;
    let env = Env::new().await?;
    let issuers = env.issuers().into_iter().map(|issuer| Issuer {
    let jwt = seed(&registry, "team/jwt", &[&Env::spiffe_id(&namespace, "jwt")]).await?;
    let namespace = env.tenant("a").await?;
    let reasons = reasons(&registry, "team/jwt")?;
    let registry = RegistryServer::start(RegistryOptions {
    let registry = env.jwt_registry()?;
    let registry = env.mtls_registry(TestCa::new(name)?.pem())?;
    let registry = env.mtls_registry(env.ca.pem())?;
    let request = JwtRequest {
    let subject = SpiffeId::for_object(&TrustDomain::parse(TRUST_DOMAIN)?, "ocirepositories", "a", "cert")?;
    let subject = SpiffeId::for_object(&TrustDomain::parse(TRUST_DOMAIN)?, "ocirepositories", &namespace, "jwt")?;
    let tag = json!({"tag": "v1"});
    let text = "registry does not accept the client certificate issued by 'mintmark test CA' (TLS alert unknown_ca: ";
    let token = seed(&registry, "team/account", &[&account]).await?;
    let url = seed(&registry, "team/cert", &[&Env::spiffe_id(&namespace, "cert")]).await?;
    let url = seed(&registry, "team/cert", &[]).await?;
    let url = seed(&registry, "team/jwt", &[&Env::spiffe_id(&namespace, "jwt")]).await?;
    refused(
    refused(&env, &namespace, "cert", text).await?;
    registry.allow_anonymous("team/cert")?;
    seed(&registry, "team/cert", &[subject.as_str()]).await?;
    }
    });
    })?;
    };
#[case::of_another_name("somebody else's CA")]
#[case::of_the_same_name("mintmark test CA")]
#[rstest]
#[tokio::test]
async fn a_certificate_is_refused_under_another_ca(#[case] name: &str) -> Result<()> {
async fn a_registry_that_asks_for_no_certificate_serves_none_of_its_anonymous_content() -> Result<()> {
async fn a_token_is_refused_where_its_audience_is_another_one() -> Result<()> {
async fn a_token_is_refused_where_its_issuer_is_unknown() -> Result<()> {
async fn an_expired_jwt_svid_is_refused() -> Result<()> {
async fn an_expired_x509_svid_is_refused() -> Result<()> {
}
    }
    Ok(())
}
