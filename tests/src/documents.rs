//! What the suites about the issuer's port share: its certificate, its state, and its documents as a client reads them.

use anyhow::{Context, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use mintmark_hack::{
    controller::{STATE_SECRET, TLS_SECRET},
    pki::{KeyAndCertificate, TestCa},
};
use reqwest::{Certificate, Client, header};
use serde_json::{Value, json};

use crate::{
    env::{Env, TRUST_DOMAIN},
    http::until,
    issuer::authority,
};

/// Every document with its path below an issuer without one.
pub const PATHS: &[&str] = &[
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server",
    "/keys",
    "/spiffe/bundle.json",
    "/spiffe/bundle.pem",
];

/// A document as it was served: media type, entity tag, caching, body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// `Content-Type`, `ETag`, `Cache-Control`.
    pub headers: [String; 3],
    /// The body.
    pub body: Vec<u8>,
}

/// A client that trusts one CA only and keeps its connections.
pub fn https(ca: &str) -> Result<Client> {
    let roots = Certificate::from_pem_bundle(ca.as_bytes())?;
    Ok(Client::builder().no_proxy().tls_certs_only(roots).build()?)
}

/// Reads every document of the origin, in the order of [`PATHS`].
pub async fn read_all(client: &Client, origin: &str) -> Result<Vec<Served>> {
    let mut all = Vec::new();
    for path in PATHS {
        let answer = client.get(format!("{origin}{path}")).send().await?.error_for_status()?;
        let header =
            |name| Ok::<_, anyhow::Error>(answer.headers().get(name).context("a header")?.to_str()?.to_owned());
        let headers = [
            header(header::CONTENT_TYPE)?,
            header(header::ETAG)?,
            header(header::CACHE_CONTROL)?,
        ];
        let body = answer.bytes().await?.to_vec();
        all.push(Served { headers, body });
    }
    Ok(all)
}

/// Waits until a process shows this about an input of its issuer's port (`state`, `tls`).
pub async fn until_input(metrics_url: &str, input: &str, state: &str) -> Result<()> {
    let line = format!("mintmark_issuer_input_state{{input=\"{input}\",state=\"{state}\"}} 1.0");
    until(&line, || async {
        Ok(reqwest::get(metrics_url).await?.text().await?.contains(&line))
    })
    .await
}

impl Env {
    /// Puts a certificate for 127.0.0.1 under `ca` into the Secret that the port is served with.
    pub async fn serve_with(&self, ca: &TestCa) -> Result<()> {
        self.tls_secret(&ca.server(&[])?).await
    }

    /// Replaces the Secret that the port is served with.
    pub async fn tls_secret(&self, pair: &KeyAndCertificate) -> Result<()> {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": { "name": TLS_SECRET },
            "stringData": { "tls.crt": pair.certificate_pem, "tls.key": pair.key_pem },
        });
        let parameters = PatchParams::apply("test").force();
        let secrets = self.secrets(&self.installation.namespace);
        secrets.patch(TLS_SECRET, &parameters, &Patch::Apply(secret)).await?;
        Ok(())
    }

    /// Merges into the data of the state Secret, as a forger or an accident does.
    pub async fn bend_state(&self, data: Value) -> Result<()> {
        let secrets: Api<Secret> = self.secrets(&self.installation.namespace);
        let patch = Patch::Merge(json!({ "data": data }));
        secrets.patch(STATE_SECRET, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Deletes the state Secret.
    pub async fn delete_state(&self) -> Result<()> {
        let secrets: Api<Secret> = self.secrets(&self.installation.namespace);
        secrets.delete(STATE_SECRET, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Writes the state that publishes `documents`, which are those of this installation's own CA and of `issuer`.
    pub async fn store_state(&self, issuer: &str, documents: &[Served]) -> Result<()> {
        let authority = authority(self.ca.key_and_certificate())?;
        let id = authority
            .x509()
            .map_err(|error| anyhow::anyhow!("{error}"))?
            .id()
            .to_owned();
        let keys: Value = serde_json::from_slice(&documents[2].body)?;
        let bundle: Value = serde_json::from_slice(&documents[3].body)?;
        let now = jiff::Timestamp::now();
        let entry = |id: &str| json!({ "id": id, "state": "Signing", "publishedAt": now, "signingAt": now });
        let mut jwt = entry(keys["keys"][0]["kid"].as_str().context("no kid")?);
        jwt["key"] = keys["keys"][0].clone();
        for foreign in ["kid", "use", "alg"] {
            jwt["key"].as_object_mut().context("no key")?.remove(foreign);
        }
        let mut x509 = entry(&id);
        x509["certificate"] = bundle["keys"][0]["x5c"][0].clone();
        let state = json!({
            "version": 1, "trustDomain": TRUST_DOMAIN, "issuer": issuer, "path": "", "overlapSeconds": 300,
            "sequence": bundle["spiffe_sequence"], "jwt": [jwt], "x509": [x509],
        });
        let encode = |bytes: &[u8]| Value::from(BASE64_STANDARD.encode(bytes));
        self.bend_state(json!({
            "state.json": encode(&serde_json::to_vec(&state)?),
            "openid-configuration": encode(&documents[0].body),
            "keys.json": encode(&documents[2].body),
            "bundle.json": encode(&documents[3].body),
            "bundle.pem": encode(&documents[4].body),
        }))
        .await
    }
}
