//! The authorities that a ring can sign with, by id, each with the private key that is stored for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::candidates::{Candidate, Candidates};
use super::event::{NoSigner, SigningSet};
use super::state::{Entry, JwtMaterial, KeyState, RingState, X509Material};
use super::stored::{StateError, StoredKeys};
use crate::keys::{PrivateKey, Signer};
use crate::{JwtAuthority, X509Authority};

/// Authorities by id. A candidate and a held authority are the same thing at two moments.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    jwt: BTreeMap<String, Candidate<JwtAuthority>>,
    x509: BTreeMap<String, Candidate<X509Authority>>,
}

impl Held {
    /// Rebuilds the authorities of a stored state from the stored keys, and from those held before where one is missing.
    /// A key that does not belong to its entry is left out and told. An entry without a key cannot sign until the signing
    /// Secret brings it.
    pub(super) fn restore(state: &RingState, keys: &StoredKeys, before: &Self) -> (Self, Vec<StateError>) {
        let (mut held, mut errors) = (Self::default(), Vec::new());
        for entry in state.jwt.iter().filter(|entry| entry.state != KeyState::Retired) {
            let kept = before.jwt.get(&entry.id).and_then(|held| held.key.as_ref());
            for key in keys.jwt.get(&entry.id).into_iter().chain(kept) {
                match jwt_authority(entry, key) {
                    Ok(authority) => {
                        held.jwt.insert(entry.id.clone(), candidate(authority, key));
                        break;
                    }
                    Err(error) => errors.push(error),
                }
            }
        }
        for entry in state.x509.iter().filter(|entry| entry.state != KeyState::Retired) {
            let kept = before.x509.get(&entry.id).and_then(|held| held.key.as_ref());
            for key in keys.x509.get(&entry.id).into_iter().chain(kept) {
                match x509_authority(entry, key) {
                    Ok(authority) => {
                        held.x509.insert(entry.id.clone(), candidate(authority, key));
                        break;
                    }
                    Err(error) => errors.push(error),
                }
            }
        }
        (held, errors)
    }

    /// What is to be held for a planned state: nothing retired, the candidates where they are planned.
    pub(super) fn planned(&self, planned: &RingState, candidates: &Candidates) -> Self {
        let mut next = self.clone();
        if let Some(new) = &candidates.jwt {
            next.jwt.insert(new.authority.kid().to_owned(), new.clone());
        }
        if let Some(new) = &candidates.x509 {
            next.x509.insert(new.authority.id().to_owned(), new.clone());
        }
        next.jwt.retain(|id, _| needs_key(&planned.jwt, id));
        next.x509.retain(|id, _| needs_key(&planned.x509, id));
        next
    }

    pub(super) fn stored_keys(&self) -> StoredKeys {
        let jwt = self
            .jwt
            .iter()
            .filter_map(|(id, held)| Some((id.clone(), held.key.clone()?)));
        let x509 = self
            .x509
            .iter()
            .filter_map(|(id, held)| Some((id.clone(), held.key.clone()?)));
        StoredKeys {
            jwt: jwt.collect(),
            x509: x509.collect(),
        }
    }

    /// Whether this key can sign.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.jwt.contains_key(id) || self.x509.contains_key(id)
    }

    /// The ids of the private keys to store.
    pub(super) fn key_ids(&self) -> BTreeSet<String> {
        let keys = self.stored_keys();
        keys.jwt.into_keys().chain(keys.x509.into_keys()).collect()
    }

    /// The ids of found private keys; one that is not held, or not as found, has another name here.
    pub(super) fn found_ids(&self, keys: &StoredKeys) -> BTreeSet<String> {
        let jwt = keys.jwt.iter().map(|(id, key)| {
            let held = self.jwt.get(id).and_then(|held| held.key.as_ref());
            (id, is_same_key(key, held))
        });
        let x509 = keys.x509.iter().map(|(id, key)| {
            let held = self.x509.get(id).and_then(|held| held.key.as_ref());
            (id, is_same_key(key, held))
        });
        jwt.chain(x509)
            .map(|(id, same)| if same { id.clone() } else { format!("another {id}") })
            .collect()
    }

    /// Who signs in this state, or why nobody. What is revoked signs no more, stored or not.
    pub(super) fn signing_set(&self, state: &RingState, candidates: &Candidates) -> SigningSet {
        let revoked = |id: &str| state.revoked.contains(id) || candidates.revoked.contains(id);
        SigningSet {
            jwt: match entry_in(&state.jwt, KeyState::Signing) {
                Some(id) if revoked(id) => Err(NoSigner::Revoked(id.to_owned())),
                Some(id) => self
                    .jwt
                    .get(id)
                    .map(|held| Arc::clone(&held.authority))
                    .ok_or_else(|| NoSigner::Lost(id.to_owned())),
                None => {
                    let next = candidates.jwt.as_ref().map(|next| next.authority.kid());
                    Err(reason(
                        entry_in(&state.jwt, KeyState::Published),
                        next,
                        revoked,
                        &candidates.jwt_failure,
                    ))
                }
            },
            x509: match entry_in(&state.x509, KeyState::Signing) {
                Some(id) if revoked(id) => Err(NoSigner::Revoked(id.to_owned())),
                Some(id) => self
                    .x509
                    .get(id)
                    .map(|held| Arc::clone(&held.authority))
                    .ok_or_else(|| NoSigner::Lost(id.to_owned())),
                None => {
                    let next = candidates.x509.as_ref().map(|next| next.authority.id());
                    Err(reason(
                        entry_in(&state.x509, KeyState::Published),
                        next,
                        revoked,
                        &candidates.x509_failure,
                    ))
                }
            },
        }
    }
}

fn is_same_key(found: &PrivateKey, held: Option<&Arc<PrivateKey>>) -> bool {
    let public = |key: &PrivateKey| key.signer().ok().map(|signer| signer.public_key().jwk().clone());
    held.is_some_and(|held| public(held).is_some_and(|held| public(found) == Some(held)))
}

fn jwt_authority(entry: &Entry<JwtMaterial>, key: &PrivateKey) -> Result<JwtAuthority, StateError> {
    let signer = signer(&entry.id, key)?;
    let wrong = || StateError::PrivateKey(entry.id.clone());
    if signer.public_key().jwk() != &entry.material.key {
        return Err(wrong());
    }
    JwtAuthority::new(signer, entry.material.not_after).map_err(|_| wrong())
}

fn x509_authority(entry: &Entry<X509Material>, key: &PrivateKey) -> Result<X509Authority, StateError> {
    let (chain, root) = (entry.material.full_chain(), entry.material.root.clone());
    X509Authority::assemble(signer(&entry.id, key)?, chain, root).map_err(|_| StateError::PrivateKey(entry.id.clone()))
}

fn signer(id: &str, key: &PrivateKey) -> Result<Arc<dyn Signer>, StateError> {
    key.signer()
        .map(|signer| Arc::new(signer) as Arc<dyn Signer>)
        .map_err(|_| StateError::PrivateKey(id.to_owned()))
}

fn candidate<A>(authority: A, key: &Arc<PrivateKey>) -> Candidate<A> {
    Candidate {
        authority: Arc::new(authority),
        key: Some(Arc::clone(key)),
    }
}

fn needs_key<M>(entries: &[Entry<M>], id: &str) -> bool {
    entries
        .iter()
        .any(|entry| entry.id == id && entry.state != KeyState::Retired)
}

fn entry_in<M>(entries: &[Entry<M>], state: KeyState) -> Option<&str> {
    let entry = entries.iter().find(|entry| entry.state == state);
    entry.map(|entry| entry.id.as_str())
}

/// Why nothing signs where no key is meant to.
fn reason(pending: Option<&str>, next: Option<&str>, revoked: impl Fn(&str) -> bool, failure: &NoSigner) -> NoSigner {
    match (next, pending) {
        (Some(id), _) if revoked(id) => NoSigner::Revoked(id.to_owned()),
        (_, Some(id)) => NoSigner::Waits(id.to_owned()),
        (Some(_), None) => NoSigner::NotStored,
        (None, None) => failure.clone(),
    }
}
