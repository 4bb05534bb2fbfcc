//! The watch on a signing Secret: every content it ever has becomes a checked authority or the reason why it is none, with
//! what its annotations ask for. Needs get, list and watch on that one Secret. It decides nothing: what a bad update means
//! is the key ring's business.

use std::{collections::BTreeMap, sync::Arc};

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client, runtime::watcher};
use mintmark_issuer::{Authority, AuthorityError, KeyUses, LoadOptions, SigningSecret, TrustDomain};
use rustls_pki_types::CertificateDer;
use tokio::sync::mpsc;

use super::watch_events;
use crate::issuing::Annotations;

/// What a reading of a signing Secret came to.
#[derive(Debug, Clone)]
pub struct SigningReading {
    /// What the Secret is for.
    pub uses: KeyUses,
    /// The authority in it.
    pub outcome: Result<Arc<Authority>, AuthorityError>,
    /// What its owner asks for, however good its data is.
    pub annotations: Annotations,
}

/// Watches one Secret by name.
pub struct SigningSecretWatch {
    /// The controller's namespace.
    pub namespace: String,
    /// `--spiffe-secret-name` or `--spiffe-jwt-secret-name`.
    pub name: String,
    /// What it is for.
    pub uses: KeyUses,
    /// The trust domain that the CA must belong to.
    pub trust_domain: TrustDomain,
    /// CAs of the cluster itself, which must not sign.
    pub cluster_cas: Vec<CertificateDer<'static>>,
    /// Who is told.
    pub readings: mpsc::Sender<SigningReading>,
}

impl SigningSecretWatch {
    /// Watches for ever; ends when nobody listens any more.
    pub async fn run(self, client: Client) {
        let api: Api<Secret> = Api::namespaced(client, &self.namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut events = std::pin::pin!(watch_events(api, config));
        let mut seen = false;
        while let Some(event) = events.next().await {
            let reading = match event {
                Ok(watcher::Event::Init) => {
                    seen = false;
                    continue;
                }
                Ok(watcher::Event::InitApply(secret) | watcher::Event::Apply(secret)) => {
                    seen = true;
                    self.read(secret)
                }
                Ok(watcher::Event::InitDone) if seen => continue,
                Ok(watcher::Event::InitDone | watcher::Event::Delete(_)) => SigningReading {
                    uses: self.uses,
                    outcome: Err(AuthorityError::Absent),
                    annotations: Annotations::default(),
                },
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

    fn read(&self, secret: Secret) -> SigningReading {
        SigningReading {
            uses: self.uses,
            annotations: Annotations::of(secret.metadata.annotations.as_ref()),
            outcome: self.load(secret.data.unwrap_or_default()),
        }
    }

    fn load(&self, data: BTreeMap<String, ByteString>) -> Result<Arc<Authority>, AuthorityError> {
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
