//! What a stored state must be to be trusted: ids are the hashes of their keys, certificates are CAs, states and times are
//! possible, and the documents beside it are made of its entries and of nothing else.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::state::{Entry, KeyState, MAX_KEYS_PER_USE, RingState, root_id};
use super::stored::StateError;
use crate::authority::authority_id;
use crate::documents::Documents;
use crate::keys::{Jwk, PublicKey};
use crate::{IssuerUrl, pem};

/// Stored times may lie this far in the future: the clocks of two replicas differ.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// The entries are what they say, and possible at this moment.
pub(super) fn entries(ring: &RingState, now: Timestamp) -> Result<(), StateError> {
    if ring.jwt.len() > MAX_KEYS_PER_USE || ring.x509.len() > MAX_KEYS_PER_USE {
        return Err(StateError::TooMany);
    }
    check_entries(&ring.jwt, &ring.revoked, now)?;
    check_entries(&ring.x509, &ring.revoked, now)?;
    for entry in &ring.jwt {
        let key = PublicKey::from_jwk(&entry.material.key).map_err(|_| StateError::KeyKind(entry.id.clone()))?;
        if key.algorithm().jws().is_none() {
            return Err(StateError::KeyKind(entry.id.clone()));
        }
        if key.thumbprint() != entry.id {
            return Err(StateError::Id(entry.id.clone()));
        }
    }
    for entry in &ring.x509 {
        let not_ca = || StateError::NotCa(entry.id.clone());
        for der in entry.material.full_chain().iter().chain(&entry.material.root) {
            let (_, certificate) = X509Certificate::from_der(der).map_err(|_| not_ca())?;
            if !certificate.is_ca() {
                return Err(not_ca());
            }
        }
        let (_, ca) = X509Certificate::from_der(&entry.material.certificate).map_err(|_| not_ca())?;
        let key = PublicKey::from_spki_der(ca.public_key().raw).map_err(|_| StateError::KeyKind(entry.id.clone()))?;
        if authority_id(&key, ca.subject().as_raw()) != entry.id {
            return Err(StateError::Id(entry.id.clone()));
        }
    }
    let roots: BTreeSet<_> = ring
        .x509
        .iter()
        .filter_map(|entry| entry.material.root.as_ref())
        .map(|root| root_id(root))
        .collect();
    for (id, at) in &ring.roots {
        if !roots.contains(id) {
            return Err(StateError::Contradiction(id.clone()));
        }
        if is_future(*at, now) {
            return Err(StateError::Times(id.clone()));
        }
    }
    Ok(())
}

fn is_future(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > CLOCK_SKEW
}

/// What holds for the entries of either use.
fn check_entries<M>(entries: &[Entry<M>], revoked: &BTreeSet<String>, now: Timestamp) -> Result<(), StateError> {
    let (mut seen, mut signing, mut waiting) = (BTreeSet::new(), 0, 0);
    for entry in entries {
        signing += usize::from(entry.state == KeyState::Signing);
        waiting += usize::from(entry.state == KeyState::Published);
        if !seen.insert(&entry.id) || signing > 1 || waiting > 1 || revoked.contains(&entry.id) {
            return Err(StateError::Contradiction(entry.id.clone()));
        }
        let needed = match entry.state {
            KeyState::Published => entry.retired_at.is_none(),
            KeyState::Signing => entry.signing_at.is_some() && entry.retired_at.is_none(),
            KeyState::Retired => entry.retired_at.is_some(),
        };
        let times = [Some(entry.published_at), entry.signing_at, entry.retired_at];
        if !needed || times.into_iter().flatten().any(|time| is_future(time, now)) {
            return Err(StateError::Times(entry.id.clone()));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct ReadSet {
    #[serde(default)]
    keys: Vec<ReadKey>,
    spiffe_sequence: Option<u64>,
}

#[derive(Deserialize)]
struct ReadKey {
    #[serde(flatten)]
    key: Jwk,
    kid: Option<String>,
    x5c: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct ReadDiscovery {
    issuer: String,
    jwks_uri: String,
}

/// The documents name this issuer and hold exactly these keys. Their bytes may differ from what this version would write.
pub(super) fn documents(documents: &Documents, ring: &RingState, issuer: Option<&IssuerUrl>) -> Result<(), StateError> {
    let expected: BTreeSet<&str> = ring.jwt.iter().map(|entry| entry.id.as_str()).collect();
    let kids = |set: &ReadSet| {
        let named = set.keys.iter().filter(|key| key.x5c.is_none());
        named
            .map(|key| key.kid.clone().filter(|kid| *kid == key.key.thumbprint()))
            .collect::<Option<BTreeSet<_>>>()
    };
    let same =
        |set: &ReadSet| kids(set).is_some_and(|kids| kids.iter().map(String::as_str).eq(expected.iter().copied()));
    if let (Some(issuer), Some(discovery), Some(keys)) = (issuer, documents.discovery(), documents.keys()) {
        let read: ReadDiscovery = read(Documents::DISCOVERY, &discovery.body)?;
        if read.issuer != issuer.as_str() || read.jwks_uri != format!("{}/keys", issuer.base()) {
            return Err(StateError::Document(Documents::DISCOVERY));
        }
        if !same(&self::read(Documents::KEYS, &keys.body)?) {
            return Err(StateError::Document(Documents::KEYS));
        }
    }
    let bundle: ReadSet = read(Documents::BUNDLE_JSON, &documents.bundle_json().body)?;
    let listed = ring.x509.iter().filter_map(|entry| entry.material.root.as_ref());
    let listed = listed.filter(|root| ring.roots.contains_key(&root_id(root)));
    let needed: BTreeSet<String> = ring
        .anchors(false)
        .iter()
        .chain(listed)
        .map(|anchor| encode(anchor))
        .collect();
    let published: BTreeSet<String> = bundle
        .keys
        .iter()
        .filter_map(|key| key.x5c.as_ref())
        .flatten()
        .cloned()
        .collect();
    if !same(&bundle) || bundle.spiffe_sequence != Some(ring.sequence) || published != needed {
        return Err(StateError::Document(Documents::BUNDLE_JSON));
    }
    let sections = if documents.bundle_pem().body.is_empty() {
        Vec::new()
    } else {
        pem::sections(&documents.bundle_pem().body).map_err(|_| StateError::Document(Documents::BUNDLE_PEM))?
    };
    if sections
        .iter()
        .map(|section| encode(&section.der))
        .collect::<BTreeSet<_>>()
        != published
    {
        return Err(StateError::Document(Documents::BUNDLE_PEM));
    }
    Ok(())
}

fn encode(der: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(der)
}

fn read<T: for<'de> Deserialize<'de>>(name: &'static str, body: &[u8]) -> Result<T, StateError> {
    serde_json::from_slice(body).map_err(|_| StateError::Document(name))
}
