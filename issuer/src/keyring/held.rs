//! The authorities that a ring can sign with, by id, each with the private key that is stored for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::event::{NoSigner, SigningSet};
use super::plan::{Candidate, Candidates};
use super::state::{Entry, KeyState, RingState};
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
    /// Rebuilds the authorities of a stored state from the stored keys. An entry without a key cannot sign until the
    /// signing Secret brings it.
    pub(super) fn restore(state: &RingState, keys: &StoredKeys) -> Result<Self, StateError> {
        let mut held = Self::default();
        for entry in state.jwt.iter().filter(|entry| entry.state != KeyState::Retired) {
            let Some(key) = keys.jwt.get(&entry.id) else { continue };
            let signer = signer(&entry.id, key)?;
            if signer.public_key().jwk() != &entry.material.key {
                return Err(StateError::PrivateKey(entry.id.clone()));
            }
            let authority = JwtAuthority::new(signer, entry.material.not_after)
                .map_err(|_| StateError::PrivateKey(entry.id.clone()))?;
            held.jwt.insert(entry.id.clone(), candidate(authority, key));
        }
        for entry in state.x509.iter().filter(|entry| entry.state != KeyState::Retired) {
            let Some(key) = keys.x509.get(&entry.id) else { continue };
            let authority = X509Authority::assemble(
                signer(&entry.id, key)?,
                entry.material.full_chain(),
                entry.material.root.clone(),
            )
            .map_err(|_| StateError::PrivateKey(entry.id.clone()))?;
            held.x509.insert(entry.id.clone(), candidate(authority, key));
        }
        Ok(held)
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

    /// The ids whose private keys are held.
    pub(super) fn ids(&self) -> BTreeSet<&str> {
        self.jwt.keys().chain(self.x509.keys()).map(String::as_str).collect()
    }

    /// Who signs in this state, or why nobody.
    pub(super) fn signing_set(&self, state: &RingState, candidates: &Candidates) -> SigningSet {
        let jwt = signing_id(&state.jwt).and_then(|id| self.jwt.get(id));
        let x509 = signing_id(&state.x509).and_then(|id| self.x509.get(id));
        let jwt_candidate = candidates.jwt.as_ref().map(|next| next.authority.kid());
        let x509_candidate = candidates.x509.as_ref().map(|next| next.authority.id());
        SigningSet {
            jwt: jwt
                .map(|held| Arc::clone(&held.authority))
                .ok_or_else(|| reason(state, jwt_candidate, &candidates.jwt_failure)),
            x509: x509
                .map(|held| Arc::clone(&held.authority))
                .ok_or_else(|| reason(state, x509_candidate, &candidates.x509_failure)),
        }
    }
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

fn signing_id<M>(entries: &[Entry<M>]) -> Option<&str> {
    entries
        .iter()
        .find(|entry| entry.state == KeyState::Signing)
        .map(|entry| entry.id.as_str())
}

fn reason(state: &RingState, candidate: Option<&str>, failure: &NoSigner) -> NoSigner {
    match candidate {
        Some(id) if state.revoked.contains(id) => NoSigner::Revoked(id.to_owned()),
        Some(_) => NoSigner::NotStored,
        None => failure.clone(),
    }
}
