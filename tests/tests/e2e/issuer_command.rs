//! `mintmark issuer` beside the controller: the same documents, byte for byte, over TLS, as an account that can read two
//! Secrets; and what it does when those Secrets, or the API server, are not what they should be.

use std::{io, sync::Arc};

use anyhow::{Context, Result};
use mintmark_hack::{
    cluster::{Cluster, ClusterOptions},
    controller::{Controller, IssuerServer, STATE_SECRET, TLS_SECRET},
    pki::TestCa,
    registry::{Artifact, Issuer, RegistryOptions, RegistryServer},
};
use mintmark_tests::{
    documents::{Served, https, read_all, until_input},
    env::{AUDIENCE, Env},
    http::{until, until_status},
    specs,
};
use reqwest::StatusCode;
use serde_json::json;
use tokio::net::TcpStream;

/// A controller and `mintmark issuer`, both over TLS; the latter is the issuer that tokens name.
struct Pair {
    env: Env,
    ca: TestCa,
    controller: Controller,
    issuer: IssuerServer,
}

impl Pair {
    /// Both are up; nothing is served, for neither has a certificate.
    async fn start(env: Env) -> Result<Self> {
        let tls = format!("--issuer-tls-secret-name={TLS_SECRET}");
        let issuer = IssuerServer::start(&env.installation, &[&tls])?;
        let controller = env.start_as(&format!("https://{}", issuer.address()), &[&tls])?;
        controller.wait_ready().await?;
        let ca = TestCa::new("issuer TLS")?;
        Ok(Self {
            env,
            ca,
            controller,
            issuer,
        })
    }

    /// With a certificate: both serve what the controller has stored.
    async fn serving() -> Result<Self> {
        let pair = Self::start(Env::new().await?).await?;
        pair.serve().await?;
        Ok(pair)
    }

    async fn serve(&self) -> Result<()> {
        self.env.serve_with(&self.ca).await?;
        let client = https(self.ca.pem())?;
        let url = format!("{}/keys", self.controller_origin());
        until("the controller serves", || async {
            Ok(client
                .get(&url)
                .send()
                .await
                .is_ok_and(|answer| answer.status() == StatusCode::OK))
        })
        .await?;
        until_status(&self.issuer.ready_url(), 200).await
    }

    fn origin(&self) -> String {
        format!("https://{}", self.issuer.address())
    }

    fn controller_origin(&self) -> String {
        self.env.ports.issuer_url().replace("http:", "https:")
    }

    /// What `mintmark issuer` serves over a new connection.
    async fn documents(&self) -> Result<Vec<Served>> {
        read_all(&https(self.ca.pem())?, &self.origin()).await
    }
}

#[tokio::test]
async fn without_a_certificate_the_port_is_closed_and_with_it_both_serve_the_same_bytes() -> Result<()> {
    let env = Env::new().await?;
    env.delete_signing_secret().await?;
    let pair = Pair::start(env).await?;
    let ready = reqwest::get(pair.issuer.ready_url()).await?;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let reasons = ready.text().await?;
    assert!(reasons.contains("[-]state") && reasons.contains("[-]tls"), "{reasons}");
    let controller = pair.env.ports.issuer_url().replace("http://", "");
    for address in [pair.issuer.address(), controller] {
        let error = TcpStream::connect(&address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{address}");
    }

    pair.env.serve_with(&pair.ca).await?;
    let client = https(pair.ca.pem())?;
    until_input(&pair.issuer.metrics_url(), "tls", "valid").await?;
    let url = format!("{}/keys", pair.origin());
    until("503 before the first state", || async {
        let answer = client.get(&url).send().await;
        Ok(answer.is_ok_and(|answer| answer.status() == StatusCode::SERVICE_UNAVAILABLE))
    })
    .await?;
    pair.env.sign_with(pair.env.ca.key_and_certificate()).await?;
    pair.serve().await?;
    let ours = pair.documents().await?;
    assert_eq!(ours, read_all(&client, &pair.controller_origin()).await?);
    assert!(String::from_utf8_lossy(&ours[0].body).contains(&format!("\"jwks_uri\":\"{url}\"")));
    let plain = reqwest::get(format!("http://{}/keys", pair.issuer.address())).await;
    assert!(plain.is_err(), "plain HTTP was answered: {plain:?}");
    Ok(())
}

#[tokio::test]
async fn a_registry_verifies_tokens_through_it() -> Result<()> {
    let pair = Pair::serving().await?;
    let issuer = Issuer::new(pair.origin(), &[AUDIENCE]).with_ca(pair.ca.pem());
    let registry = RegistryServer::start(RegistryOptions {
        issuers: vec![issuer],
        ..RegistryOptions::default()
    })?;
    let tenant = pair.env.tenant("a").await?;
    let artifact = Artifact::from_files(&[("a.yaml", b"1".as_slice())])?;
    registry.push("app", "v1", &artifact).await?;
    registry.set_readers("app", &[&Env::spiffe_id(&tenant, "app")])?;
    pair.env
        .create(&tenant, "app", specs::jwt(&registry.url("app")))
        .await?;
    pair.env.ready(&tenant, "app").await?;
    Ok(())
}

#[tokio::test]
async fn a_new_certificate_serves_new_connections_and_a_bad_one_changes_nothing() -> Result<()> {
    let pair = Pair::serving().await?;
    let url = format!("{}/keys", pair.origin());
    let kept_alive = https(pair.ca.pem())?;
    kept_alive.get(&url).send().await?.error_for_status()?.bytes().await?;

    let next = TestCa::new("the next one")?;
    pair.env.serve_with(&next).await?;
    let client = https(next.pem())?;
    until("the new certificate", || async {
        Ok(client.get(&url).send().await.is_ok())
    })
    .await?;
    assert!(
        https(pair.ca.pem())?.get(&url).send().await.is_err(),
        "the old certificate is still served"
    );
    // A new handshake would fail, as the line above shows: this is the connection from before.
    kept_alive.get(&url).send().await?.error_for_status()?;

    let mut bad = next.server(&[])?;
    bad.key_pem = pair.ca.server(&[])?.key_pem;
    pair.env.tls_secret(&bad).await?;
    until_input(&pair.issuer.metrics_url(), "tls", "last_good").await?;
    https(next.pem())?.get(&url).send().await?.error_for_status()?;
    until_status(&pair.issuer.ready_url(), 200).await
}

#[tokio::test]
async fn a_garbled_or_deleted_state_leaves_the_last_good_one() -> Result<()> {
    let pair = Pair::serving().await?;
    pair.controller.kill()?;
    let good = pair.documents().await?;
    let metrics = pair.issuer.metrics_url();
    let stored = pair.env.data(STATE_SECRET).await?.context("no state")?;
    pair.env.bend_state(json!({ "keys.json": "e30=" })).await?;
    until_input(&metrics, "state", "last_good").await?;
    assert_eq!(pair.documents().await?, good);
    pair.env.overwrite(STATE_SECRET, stored).await?;
    until_input(&metrics, "state", "valid").await?;
    pair.env.delete_state().await?;
    until_input(&metrics, "state", "last_good").await?;
    assert_eq!(pair.documents().await?, good);
    assert_eq!(reqwest::get(pair.issuer.ready_url()).await?.status(), StatusCode::OK);
    Ok(())
}

#[tokio::test]
async fn it_serves_while_the_api_server_is_away() -> Result<()> {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(ClusterOptions::default()).await?));
    let pair = Pair::start(Env::in_cluster(cluster).await?).await?;
    pair.serve().await?;
    let good = pair.documents().await?;
    cluster.stop_api_server()?;
    until("the watch is told to be interrupted", || async {
        Ok(pair.issuer.log()?.contains("watch interrupted"))
    })
    .await?;
    assert_eq!(pair.documents().await?, good);
    assert_eq!(reqwest::get(pair.issuer.ready_url()).await?.status(), StatusCode::OK);
    assert_eq!(pair.issuer.ended()?, None);
    Ok(())
}

#[tokio::test]
async fn after_sigterm_it_is_unready_and_serves_on_for_a_while() -> Result<()> {
    let pair = Arc::new(Pair::serving().await?);
    let good = pair.documents().await?;
    let stopped = Arc::clone(&pair);
    let stopping = tokio::task::spawn_blocking(move || stopped.issuer.stop());
    until_status(&pair.issuer.ready_url(), 503).await?;
    assert_eq!(pair.documents().await?, good);
    assert_eq!(stopping.await??.code(), Some(0));
    assert!(pair.documents().await.is_err());
    Ok(())
}
