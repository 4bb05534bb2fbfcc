//! A second opinion from Kubernetes itself: an API server that takes users from our issuer by structured authentication, with
//! the configuration that `mintmark trust kube-apiserver` prints. It wants https, so the issuer's documents stand behind a TLS
//! front.

use anyhow::{Context, Result};
use mintmark_hack::{
    cluster::{Cluster, ClusterOptions},
    pki::TestCa,
};
use mintmark_tests::{
    command::mintmark,
    env::{Env, TRUST_DOMAIN},
    fault_registry::{Artifact, FaultRegistry},
    http::until,
    issuer::tokens,
    specs,
    tls_front::tls_front,
};
use reqwest::StatusCode;
use serde_json::{Value, json};

const API_AUDIENCE: &str = "kubernetes.example";

/// What `mintmark trust kube-apiserver` prints for this issuer.
fn authentication(issuer: &str, ca: &TestCa) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), ca.pem())?;
    let path = file.path().to_str().context("a path")?;
    mintmark(&[
        "trust",
        "kube-apiserver",
        "--spiffe-trust-domain",
        TRUST_DOMAIN,
        "--spiffe-issuer",
        issuer,
        "--audience",
        API_AUDIENCE,
        "--ca-file",
        path,
    ])
}

/// A token of the same key for an object of another trust domain, minted at a desk.
fn foreign_token(env: &Env, issuer: &str) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), &env.ca.key_and_certificate().key_pem)?;
    let key = file.path().to_str().context("a path")?;
    let mut words = vec![
        "mint",
        "jwt",
        "--namespace",
        "a",
        "--name",
        "b",
        "--audience",
        API_AUDIENCE,
    ];
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

/// Asks the API server who the bearer of a token is.
async fn who_is(http: &reqwest::Client, cluster: &Cluster, token: &str) -> Result<(StatusCode, Value)> {
    let url = format!("{}/apis/authentication.k8s.io/v1/selfsubjectreviews", cluster.url());
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let answer = http.post(url).bearer_auth(token).json(&review).send().await?;
    Ok((answer.status(), answer.json().await?))
}

#[tokio::test]
async fn an_api_server_takes_a_jwt_svid_for_its_audience_and_no_other() -> Result<()> {
    let env = Env::new().await?;
    let ca = TestCa::new("TLS front")?;
    let issuer_port = env.ports.issuer_url().rsplit(':').next().context("a port")?.parse()?;
    let issuer = tls_front(&ca, issuer_port).await?;
    let controller = env.start_as(&issuer, &[])?;
    controller.wait_ready().await?;
    let namespace = env.tenant("a").await?;
    let registry = FaultRegistry::start(None).await;
    registry.push("team/app", "v1", &Artifact::flux(&[("a.yaml", "a")]));
    let mut tokens_by_name = Vec::new();
    for (name, audiences) in [
        ("for-api", json!([API_AUDIENCE])),
        ("for-both", json!(["registry.example", API_AUDIENCE])),
        ("for-registry", json!(["registry.example"])),
    ] {
        let mut spec = specs::jwt(&format!("oci://{}/team/app", registry.host()));
        spec["audiences"] = audiences;
        env.create(&namespace, name, spec).await?;
        env.ready(&namespace, name).await?;
        tokens_by_name.push((name, tokens(&registry)?.pop().context("no token")?));
    }

    let judge = Cluster::start(ClusterOptions {
        authentication_config: Some(authentication(&issuer, &ca)?),
        ..ClusterOptions::default()
    })
    .await?;
    let http = reqwest::Client::builder()
        .tls_certs_only(reqwest::Certificate::from_pem_bundle(judge.ca_pem().as_bytes())?)
        .no_proxy()
        .build()?;
    for (name, token) in &tokens_by_name {
        let expected = match *name {
            "for-registry" => StatusCode::UNAUTHORIZED,
            _ => StatusCode::CREATED,
        };
        // The API server reads the issuer's keys in the background, at its start and every ten seconds.
        until(&format!("{expected} for {name}"), async || {
            Ok(who_is(&http, &judge, &token.compact).await?.0 == expected)
        })
        .await?;
        let (status, review) = who_is(&http, &judge, &token.compact).await?;
        assert_eq!(status, expected, "{name}: {review}");
        if status == StatusCode::CREATED {
            let user = &review["status"]["userInfo"];
            assert_eq!(
                user["username"],
                format!("mintmark:{}", Env::spiffe_id(&namespace, name))
            );
            assert_eq!(user["uid"], token.claims["mintmark.dev/object"]["uid"]);
            let extra = |field: &str| user["extra"][format!("mintmark.dev/{field}")].clone();
            assert_eq!(extra("kind"), json!(["OCIRepository"]));
            assert_eq!((extra("namespace"), extra("name")), (json!([namespace]), json!([name])));
        }
    }
    let (status, answer) = who_is(&http, &judge, &foreign_token(&env, &issuer)?).await?;
    assert_eq!(status, StatusCode::UNAUTHORIZED, "another trust domain: {answer}");
    Ok(())
}
