//! What the suites about the issuer share: changing the signing Secret, waiting for what is said about it, and taking apart
//! what a controller presented to a registry.

use anyhow::{Context, Result, bail};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::{Event, Secret},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
    runtime::watcher,
};
use mintmark_hack::{
    controller::{SIGNING_SECRET, signing_secret},
    pki::KeyAndCertificate,
};
use mintmark_issuer::{Authority, LoadOptions, SigningSecret, TrustDomain};
use serde_json::{Value, json};

use crate::{
    env::{DEADLINE, Env, TRUST_DOMAIN},
    fault_registry::{self, ClientAuth, FaultRegistry, Tls},
};

impl Env {
    /// Replaces the signing Secret by this key and CA.
    pub async fn sign_with(&self, pair: &KeyAndCertificate) -> Result<()> {
        signing_secret(self.cluster, &self.installation.namespace, pair).await
    }

    /// Replaces one field of the signing Secret, as somebody does who edits it by hand.
    pub async fn edit_signing_secret(&self, field: &str, value: &str) -> Result<()> {
        let data = [(field.to_owned(), ByteString(value.as_bytes().to_vec()))];
        let patch = json!({"data": std::collections::BTreeMap::from(data)});
        let params = PatchParams::default();
        let secrets: Api<Secret> = self.secrets(&self.installation.namespace);
        secrets.patch(SIGNING_SECRET, &params, &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Removes an annotation of the signing Secret.
    pub async fn remove_signing_secret_annotation(&self, annotation: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {annotation: null}}});
        let params = PatchParams::default();
        let secrets: Api<Secret> = self.secrets(&self.installation.namespace);
        secrets.patch(SIGNING_SECRET, &params, &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Deletes the signing Secret.
    pub async fn delete_signing_secret(&self) -> Result<()> {
        let secrets: Api<Secret> = self.secrets(&self.installation.namespace);
        secrets.delete(SIGNING_SECRET, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until an Event with this reason about `name` says `text`.
    pub async fn event_saying(&self, namespace: &str, name: &str, reason: &str, text: &str) -> Result<Event> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let mut last = None;
        let found = async {
            let config = watcher::Config::default().fields(&format!("involvedObject.name={name},reason={reason}"));
            let mut events = std::pin::pin!(watcher(api, config));
            while let Some(event) = events.next().await {
                let Ok(watcher::Event::InitApply(event) | watcher::Event::Apply(event)) = event else {
                    continue;
                };
                if event.message.as_deref().is_some_and(|message| message.contains(text)) {
                    return Ok(event);
                }
                last = event.message;
            }
            bail!("the watch ended")
        };
        match tokio::time::timeout(DEADLINE, found).await {
            Ok(result) => result,
            Err(_) => bail!("no Event {reason} for {name} says {text:?}; the last one says {last:?}"),
        }
    }

    /// The metrics as they are served now.
    pub async fn metrics(&self) -> Result<String> {
        Ok(reqwest::get(self.ports.metrics_url())
            .await?
            .error_for_status()?
            .text()
            .await?)
    }
}

/// What a controller signs with while this key and CA are in its signing Secret.
pub fn authority(pair: &KeyAndCertificate) -> Result<Authority> {
    let secret = SigningSecret::from_data([
        ("tls.key", pair.key_pem.as_bytes()),
        ("tls.crt", pair.certificate_pem.as_bytes()),
    ]);
    let options = LoadOptions {
        trust_domain: &TrustDomain::parse(TRUST_DOMAIN)?,
        cluster_cas: &[],
    };
    Ok(Authority::load(&secret, &options, Timestamp::now())?)
}

/// A JWT taken apart without verifying anything.
#[derive(Debug, Clone)]
pub struct Token {
    /// The compact form.
    pub compact: String,
    /// The header.
    pub header: Value,
    /// The claims.
    pub claims: Value,
}

impl Token {
    /// Takes a compact JWS apart (RFC 7515 §3.1).
    pub fn parse(compact: &str) -> Result<Self> {
        let part = |index| -> Result<Value> {
            let text = compact.split('.').nth(index).context("not a compact JWS")?;
            Ok(serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text)?)?)
        };
        Ok(Self {
            compact: compact.to_owned(),
            header: part(0)?,
            claims: part(1)?,
        })
    }

    /// An integer claim.
    pub fn seconds(&self, claim: &str) -> Result<i64> {
        self.claims
            .get(claim)
            .and_then(Value::as_i64)
            .with_context(|| format!("claim {claim} is no integer: {}", self.claims))
    }
}

/// The distinct bearer tokens that reached a registry, in order of arrival.
pub fn tokens(registry: &FaultRegistry) -> Result<Vec<Token>> {
    let mut seen = Vec::<Token>::new();
    for request in registry.requests() {
        let Some(token) = request.authorization().and_then(|value| value.strip_prefix("Bearer ")) else {
            continue;
        };
        if seen.iter().all(|known| known.compact != token) {
            seen.push(Token::parse(token)?);
        }
    }
    Ok(seen)
}

/// The distinct client certificate chains that reached a registry, in order of arrival.
pub fn chains(registry: &FaultRegistry) -> Vec<Vec<Vec<u8>>> {
    let mut seen = Vec::new();
    for connection in registry.connections() {
        if !connection.client_chain.is_empty() && !seen.contains(&connection.client_chain) {
            seen.push(connection.client_chain);
        }
    }
    seen
}

/// A chain as PEM, in its order.
pub fn chain_pem(chain: &[Vec<u8>]) -> String {
    chain
        .iter()
        .map(|der| mintmark_hack::pki::pem("CERTIFICATE", der))
        .collect()
}

/// A recording registry over TLS that needs a client certificate under the only CA in `client_ca` (PEM); also the CA of its
/// own certificate.
pub async fn mutual_tls(client_ca: &str) -> Result<(FaultRegistry, String)> {
    let (_, block) = x509_parser::pem::parse_x509_pem(client_ca.as_bytes())?;
    let server = fault_registry::Authority::new("recording registry");
    let tls = Tls {
        leaf: server.server(&["127.0.0.1"]),
        client_auth: ClientAuth::Required(vec![block.contents.into()]),
        tls12_only: false,
    };
    Ok((FaultRegistry::start(Some(tls)).await, server.pem()))
}
