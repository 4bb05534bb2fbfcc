//! What the suites about the issuer's port share: its certificate, its state, and its documents as a client reads them.

use anyhow::{Context, Result};
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

use crate::{env::Env, http::until};

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
}
