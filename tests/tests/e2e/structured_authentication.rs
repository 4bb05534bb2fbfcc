//! A second opinion from Kubernetes itself: an API server that takes users from our issuer by structured authentication. It
//! wants https, so the issuer's documents stand behind a TLS front.

use std::sync::Arc;

use anyhow::{Context, Result};
use mintmark_hack::{
    cluster::{Cluster, ClusterOptions},
    pki::TestCa,
};
use mintmark_tests::{
    env::Env,
    fault_registry::{Artifact, FaultRegistry},
    http::until,
    issuer::tokens,
    specs,
};
use reqwest::StatusCode;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

const API_AUDIENCE: &str = "kubernetes.example";

/// Ends TLS on a free loopback port and hands everything on to `port`. Ends with the test's runtime.
async fn tls_front(ca: &TestCa, port: u16) -> Result<String> {
    let server = ca.server(&[])?;
    let chain = vec![CertificateDer::from_pem_slice(server.certificate_pem.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(server.key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("https://{}", listener.local_addr()?);
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let mut outside = acceptor.accept(stream).await?;
                let mut inside = TcpStream::connect(("127.0.0.1", port)).await?;
                copy_bidirectional(&mut outside, &mut inside).await
            });
        }
    });
    Ok(url)
}

fn authentication(issuer: &str, ca: &TestCa) -> String {
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": issuer, "certificateAuthority": ca.pem(), "audiences": [API_AUDIENCE]},
            "claimMappings": {
                "username": {"claim": "sub", "prefix": ""},
                "uid": {"expression": "claims.jti"},
                "extra": [{"key": "mintmark.dev/namespace", "valueExpression": "claims['mintmark.dev/object'].namespace"}],
            },
        }],
    })
    .to_string()
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
        authentication_config: Some(authentication(&issuer, &ca)),
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
            assert_eq!(user["username"], json!(Env::spiffe_id(&namespace, name)));
            assert_eq!(user["uid"], token.claims["jti"]);
            assert_eq!(user["extra"]["mintmark.dev/namespace"], json!([namespace]));
        }
    }
    Ok(())
}
