//! Follows Secret `mintmark-issuer` for a process that has no key ring: whatever good state it ever held is what is
//! published. A state that is refused or gone changes nothing, and neither does an API server that is away.

use std::sync::Arc;

use jiff::Timestamp;
use kube::Client;
use mintmark_issuer::{Documents, StateError, StoredState};
use tokio::sync::watch;

use super::input::Input;
use crate::{
    issuing::DocumentsReceiver,
    runtime::{health::Gate, metrics::Metrics},
    watch::{SecretData, follow_secret},
};

/// The Secret with the public state of the key ring.
pub const STATE_SECRET: &str = "mintmark-issuer";

/// Why the content of the Secret is not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// Apply the manifests; the controller fills it.
    #[error("it does not exist")]
    Absent,
    /// No controller has written it yet.
    #[error("it is empty")]
    Empty,
    /// Written by an accident or a forger; the controller replaces it.
    #[error("{0}")]
    State(#[from] StateError),
    /// An older copy could bring a revoked key back. The controller replaces it; a restart would take it.
    #[error("its sequence {found} is older than {held}")]
    Older {
        /// In the Secret.
        found: u64,
        /// What is published.
        held: u64,
    },
}

/// Publishes what the Secret holds.
pub struct StateFollower {
    documents: watch::Sender<Option<Arc<Documents>>>,
    input: Input,
    held: Option<StoredState>,
}

impl StateFollower {
    /// Nothing is published yet. `gate` opens with the first good state.
    pub fn new(metrics: Metrics, gate: Gate) -> (Self, DocumentsReceiver) {
        let (documents, receiver) = watch::channel(None);
        let follower = Self {
            documents,
            input: Input::new("state", STATE_SECRET, metrics, Some(gate)),
            held: None,
        };
        (follower, receiver)
    }

    /// Follows the Secret in `namespace`; never returns.
    pub async fn run(mut self, client: Client, namespace: &str) {
        follow_secret(client, namespace, STATE_SECRET, |data| {
            self.take(data, Timestamp::now());
        })
        .await;
    }

    fn take(&mut self, data: Option<&SecretData>, now: Timestamp) {
        match self.read(data, now) {
            Err(error) => self.input.refused(&error),
            Ok(state) => {
                self.input.accepted();
                if self.held.as_ref() != Some(&state) {
                    tracing::info!(sequence = state.ring.sequence, "publishing");
                    self.documents.send_replace(Some(Arc::new(state.documents.clone())));
                    self.held = Some(state);
                }
            }
        }
    }

    fn read(&self, data: Option<&SecretData>, now: Timestamp) -> Result<StoredState, FollowError> {
        let data = data.ok_or(FollowError::Absent)?;
        let fields = data.iter().map(|(name, value)| (name.as_str(), value.0.as_slice()));
        let state = StoredState::from_data(fields, now)?.ok_or(FollowError::Empty)?;
        let found = state.ring.sequence;
        match &self.held {
            Some(held) if held.trust_domain == state.trust_domain && held.ring.sequence > found => {
                Err(FollowError::Older {
                    found,
                    held: held.ring.sequence,
                })
            }
            _ => Ok(state),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8s_openapi::ByteString;
    use mintmark_issuer::{DocumentInput, IssuerUrl, Jwk, PrivateKey, Signer};
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;
    use crate::{publish::tests::pem, runtime::health::Health};

    const NOW: &str = "2026-11-22T12:00:00Z";

    fn now() -> Timestamp {
        NOW.parse().unwrap()
    }

    fn key() -> Jwk {
        let pem = pem("PRIVATE KEY", &rcgen::KeyPair::generate().unwrap().serialize_der());
        let key = PrivateKey::from_pem(pem.as_bytes()).unwrap();
        key.signer().unwrap().public_key().jwk().clone()
    }

    /// The Secret as a controller writes it, with one published key; `change` bends the state.
    fn secret(key: &Jwk, sequence: u64, change: impl FnOnce(&mut Value)) -> SecretData {
        let issuer = IssuerUrl::parse("https://issuer.example/p", false).unwrap();
        let mut state = json!({
            "version": 1, "trustDomain": "td.example", "issuer": issuer.as_str(), "path": "/p", "overlapSeconds": 300,
            "sequence": sequence,
            "jwt": [{ "id": key.thumbprint(), "state": "Published", "key": key, "publishedAt": NOW }],
        });
        change(&mut state);
        let documents = Documents::render(&DocumentInput {
            issuer: Some(&issuer),
            jwt_keys: std::slice::from_ref(key),
            x509_anchors: &[],
            sequence,
            overlap: Duration::from_mins(5),
        })
        .unwrap();
        let documents = documents
            .named()
            .map(|(name, document)| (name.to_owned(), document.body.to_vec()));
        let state = ("state.json".to_owned(), serde_json::to_vec(&state).unwrap());
        documents
            .chain([state])
            .map(|(name, value)| (name, ByteString(value)))
            .collect()
    }

    fn follower() -> (Health, Metrics, StateFollower, DocumentsReceiver) {
        let (health, metrics) = (Health::new(), Metrics::default());
        let (follower, documents) = StateFollower::new(metrics.clone(), health.gate("state"));
        (health, metrics, follower, documents)
    }

    fn shows(metrics: &Metrics, state: &str) -> bool {
        let line = format!("mintmark_issuer_input_state{{input=\"state\",state=\"{state}\"}} 1.0");
        metrics.encode().unwrap().contains(&line)
    }

    fn published(documents: &DocumentsReceiver) -> String {
        let documents = documents.borrow().clone().unwrap();
        documents.get("/p/keys").unwrap().etag.clone()
    }

    #[test]
    fn the_first_good_state_opens_the_gate_and_the_next_replaces_it() {
        let (health, metrics, mut follower, documents) = follower();
        for nothing in [None, Some(SecretData::new())] {
            follower.take(nothing.as_ref(), now());
            assert!(!health.is_ready() && documents.borrow().is_none() && shows(&metrics, "absent"));
        }
        follower.take(Some(&secret(&key(), 1, |_| {})), now());
        assert!(health.is_ready() && shows(&metrics, "valid"));
        let first = published(&documents);
        follower.take(Some(&secret(&key(), 2, |_| {})), now());
        assert_ne!(published(&documents), first);
    }

    #[rstest]
    #[case::gone(None)]
    #[case::emptied(Some(SecretData::new()))]
    #[case::garbage(Some(SecretData::from([("state.json".into(), ByteString(b"{".to_vec()))])))]
    #[case::forged(Some(secret(&key(), 9, |state| state["jwt"][0]["id"] = "a".repeat(43).into())))]
    #[case::from_the_future(Some(secret(&key(), 9, |state| state["jwt"][0]["publishedAt"] = "2027-01-01T00:00:00Z".into())))]
    #[case::an_older_copy(Some(secret(&key(), 1, |_| {})))]
    fn what_cannot_be_used_leaves_the_last_good_state(#[case] bad: Option<SecretData>) {
        let (health, metrics, mut follower, documents) = follower();
        follower.take(Some(&secret(&key(), 5, |_| {})), now());
        let good = published(&documents);
        follower.take(bad.as_ref(), now());
        assert_eq!(published(&documents), good);
        assert!(health.is_ready() && shows(&metrics, "last_good"));
        follower.take(Some(&secret(&key(), 10, |_| {})), now());
        assert!(shows(&metrics, "valid") && published(&documents) != good);
    }

    #[test]
    fn another_trust_domain_begins_its_own_sequence() {
        let (_health, metrics, mut follower, documents) = follower();
        follower.take(Some(&secret(&key(), 5, |_| {})), now());
        let good = published(&documents);
        let other = secret(&key(), 1, |state| state["trustDomain"] = "other.example".into());
        follower.take(Some(&other), now());
        assert!(shows(&metrics, "valid") && published(&documents) != good);
    }
}
