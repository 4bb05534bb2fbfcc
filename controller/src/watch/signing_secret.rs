//! The watch on the signing Secret: every content it ever has becomes a checked authority or the reason why it is none.
//! Needs get, list and watch on that one Secret. It decides nothing: what a bad update means is the key ring's business.

use std::{collections::BTreeMap, sync::Arc};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use mintmark_issuer::{Authority, AuthorityError, LoadOptions, SigningSecret, TrustDomain};
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;

/// What a reading of the Secret came to.
pub type Reading = Result<Arc<Authority>, AuthorityError>;

/// Watches one Secret by name.
pub struct SigningSecretWatch {
    /// The controller's namespace.
    pub namespace: String,
    /// `--spiffe-secret-name`.
    pub name: String,
    /// The trust domain that the CA must belong to.
    pub trust_domain: TrustDomain,
    /// CAs of the cluster itself, which must not sign.
    pub cluster_cas: Vec<CertificateDer<'static>>,
    /// Who is told.
    pub readings: mpsc::Sender<Reading>,
}

impl SigningSecretWatch {
    /// Watches for ever; ends when nobody listens any more.
    pub async fn run(self, client: Client) {
        let api: Api<Secret> = Api::namespaced(client, &self.namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        let mut seen = false;
        while let Some(event) = events.next().await {
            let reading = match event {
                Ok(watcher::Event::Init) => {
                    seen = false;
                    continue;
                }
                Ok(watcher::Event::InitApply(secret) | watcher::Event::Apply(secret)) => {
                    seen = true;
                    self.read(secret.data.unwrap_or_default())
                }
                Ok(watcher::Event::InitDone) if seen => continue,
                Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => Err(AuthorityError::Absent),
                Err(error) => {
                    tracing::error!(secret = self.name, %error, "watch interrupted; retrying");
                    continue;
                }
            };
            if self.readings.send(reading).await.is_err() {
                return;
            }
        }
    }

    fn read(&self, data: BTreeMap<String, ByteString>) -> Reading {
        let secret = SigningSecret::from_data(data.iter().map(|(key, value)| (key.as_str(), value.0.as_slice())));
        let options = LoadOptions {
            trust_domain: &self.trust_domain,
            cluster_cas: &self.cluster_cas,
        };
        let authority = Authority::load(&secret, &options, Timestamp::now());
        for mut value in data.into_values() {
            zeroize::Zeroize::zeroize(&mut value.0);
        }
        authority.map(Arc::new)
    }
}
