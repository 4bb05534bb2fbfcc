//! The stored form of a ring: Secret `mintmark-issuer` holds the public state and the documents exactly as they are
//! served, Secret `mintmark-issuer-ring` the private keys by id. Whoever can write the first can forge trust, so reading
//! it checks everything that a forger or an accident could bend.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use super::check;
use super::state::{MAX_KEYS_PER_USE, RingState};
use crate::documents::{Documents, DocumentsError};
use crate::keys::{KeyError, PrivateKey};
use crate::{IssuerUrl, TrustDomain, pem};

/// The key of the state in the Secret's data; the documents stand beside it under their own names.
const STATE: &str = "state.json";
/// The form written and read by this version.
const VERSION: u32 = 1;
/// Largest sequence and revision: what every JSON reader takes as an integer (RFC 8259 §6).
pub(super) const MAX_NUMBER: u64 = (1 << 53) - 1;
/// The content of Secret `mintmark-issuer`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredState {
    /// The trust domain that all of it belongs to.
    pub trust_domain: TrustDomain,
    /// The issuer of the documents.
    pub issuer: Option<IssuerUrl>,
    /// The JWT overlap that the documents were rendered for; decides `Cache-Control`.
    pub overlap: Duration,
    /// Which write made it: max(previous + 1, Unix seconds), larger with every write. A smaller one is an older copy.
    pub revision: u64,
    /// The ring.
    pub ring: RingState,
    /// The documents as they are served.
    pub documents: Documents,
}

/// The content of Secret `mintmark-issuer-ring`: private keys by id. `Debug` shows the ids and kinds only.
#[derive(Debug, Clone, Default)]
pub struct StoredKeys {
    /// JWT keys by key id.
    pub jwt: BTreeMap<String, Arc<PrivateKey>>,
    /// CA keys by authority id.
    pub x509: BTreeMap<String, Arc<PrivateKey>>,
}

/// Why stored content is refused. The caller tells it and rebuilds from the signing Secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Not JSON of the expected form.
    #[error("state.json cannot be read: {0}")]
    Json(String),
    /// Written by another version in a form that this one does not know.
    #[error("state.json has version {0}; this version reads {VERSION}")]
    Version(u32),
    /// It belongs to another trust domain.
    #[error("it belongs to trust domain {0:?}")]
    TrustDomain(String),
    /// The issuer is not a URL.
    #[error("its issuer is not acceptable: {0}")]
    Issuer(String),
    /// An id is not the hash of its key.
    #[error("the id {0:?} does not belong to its key")]
    Id(String),
    /// A key of a kind that is not accepted for its use.
    #[error("key {0:?} is of a kind that is not accepted")]
    KeyKind(String),
    /// A certificate is not a CA, or not a certificate.
    #[error("a certificate of authority {0:?} is not a CA")]
    NotCa(String),
    /// More keys than a ring may have.
    #[error("it holds more than {MAX_KEYS_PER_USE} keys of one use")]
    TooMany,
    /// Two entries with one id, or two that sign, or one that is revoked.
    #[error("the entries contradict each other at {0:?}")]
    Contradiction(String),
    /// A sequence or revision that no JSON reader takes.
    #[error("its sequence or revision is impossible")]
    Number,
    /// A time in the future, or missing where the state needs one.
    #[error("the times of key {0:?} are impossible")]
    Times(String),
    /// A document is missing or is not made of these entries.
    #[error("the document {0:?} does not belong to the state")]
    Document(&'static str),
    /// A document cannot be read.
    #[error("{0}")]
    Documents(#[from] DocumentsError),
    /// A private key is not the one of its entry.
    #[error("the private key of {0:?} does not belong to it")]
    PrivateKey(String),
    /// A private key cannot be read.
    #[error("the private key {0:?} cannot be read: {1}")]
    Key(String, KeyError),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    version: u32,
    trust_domain: TrustDomain,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// *P*, for whoever reads the state without parsing the issuer.
    #[serde(default)]
    path: String,
    overlap_seconds: u64,
    #[serde(default)]
    revision: u64,
    #[serde(flatten)]
    ring: RingState,
}

impl StoredState {
    /// The Secret's data.
    pub fn to_data(&self) -> Result<BTreeMap<String, Vec<u8>>, StateError> {
        let written = Written {
            version: VERSION,
            trust_domain: self.trust_domain.clone(),
            issuer: self.issuer.as_ref().map(|issuer| issuer.as_str().to_owned()),
            path: self
                .issuer
                .as_ref()
                .map(|issuer| issuer.path().to_owned())
                .unwrap_or_default(),
            overlap_seconds: self.overlap.as_secs(),
            revision: self.revision,
            ring: self.ring.clone(),
        };
        let state = serde_json::to_vec(&written).map_err(|error| StateError::Json(error.to_string()))?;
        let documents = self
            .documents
            .named()
            .map(|(name, document)| (name.to_owned(), document.body.to_vec()));
        Ok(documents.chain([(STATE.to_owned(), state)]).collect())
    }

    /// Like [`StoredState::from_data`], and keeps what remains in force of a refused state.
    pub fn read<'a>(
        data: impl IntoIterator<Item = (&'a str, &'a [u8])> + Clone,
        now: Timestamp,
    ) -> Result<Option<Self>, Refused> {
        Self::from_data(data.clone(), now).map_err(|error| Refused::new(error, data))
    }

    /// Reads and checks the Secret's data; `None` for an empty Secret, as it is shipped.
    pub fn from_data<'a>(
        data: impl IntoIterator<Item = (&'a str, &'a [u8])>,
        now: Timestamp,
    ) -> Result<Option<Self>, StateError> {
        let data: BTreeMap<&str, &[u8]> = data.into_iter().collect();
        let Some(state) = data.get(STATE) else { return Ok(None) };
        let written: Written = serde_json::from_slice(state).map_err(|error| StateError::Json(error.to_string()))?;
        if written.version != VERSION {
            return Err(StateError::Version(written.version));
        }
        // Whether plain http is allowed was decided by the flags of whoever wrote it.
        let issuer = written
            .issuer
            .as_deref()
            .map(|issuer| IssuerUrl::parse(issuer, true))
            .transpose();
        let issuer = issuer.map_err(|error| StateError::Issuer(error.to_string()))?;
        let overlap = Duration::from_secs(written.overlap_seconds);
        check::entries(&written.ring, now)?;
        if written.revision > MAX_NUMBER || written.ring.sequence > MAX_NUMBER {
            return Err(StateError::Number);
        }
        let documents = Documents::from_stored(|name| data.get(name).copied(), issuer.as_ref(), overlap)?;
        check::documents(&documents, &written.ring, issuer.as_ref())?;
        Ok(Some(Self {
            trust_domain: written.trust_domain,
            issuer,
            overlap,
            revision: written.revision,
            ring: written.ring,
            documents,
        }))
    }
}

/// What remains of a state that is refused. The revocations stay in force, for they can only stop a key, never add one,
/// and the numbers stay below those to come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Refused {
    /// Why.
    pub error: StateError,
    /// The ids that it revoked, as far as they can be read.
    pub revoked: BTreeSet<String>,
    /// Its `spiffe_sequence`; 0 when it cannot be read or is impossible.
    pub sequence: u64,
    /// Its revision; 0 when it cannot be read or is impossible.
    pub revision: u64,
}

impl Refused {
    fn new<'a>(error: StateError, data: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let state = data.into_iter().find(|(name, _)| *name == STATE);
        let read: Value = state
            .and_then(|(_, value)| serde_json::from_slice(value).ok())
            .unwrap_or_default();
        let revoked = read.get("revoked").and_then(Value::as_array);
        let number = |name: &str| {
            read.get(name)
                .and_then(Value::as_u64)
                .filter(|number| *number <= MAX_NUMBER)
        };
        Self {
            error,
            revoked: revoked
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .filter(|id| is_id(id))
                .map(str::to_owned)
                .collect(),
            sequence: number("sequence").unwrap_or_default(),
            revision: number("revision").unwrap_or_default(),
        }
    }
}

/// Whether the text has the form of a key id (43 characters base64url) or of an authority id (64 hexadecimal digits).
/// Only such an id can be revoked; anything else in an annotation is a mistake and would stay in the state for ever.
pub fn is_id(text: &str) -> bool {
    let base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    is_authority_id(text) || (text.len() == 43 && text.bytes().all(base64url))
}

/// Whether the text has the form of an authority id: 64 lower-case hexadecimal digits.
pub fn is_authority_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl StoredKeys {
    /// The Secret's data: one PEM (PKCS#8) per key, named `jwt.<key id>.pem` and `x509.<authority id>.pem`.
    pub fn to_data(&self) -> BTreeMap<String, Zeroizing<Vec<u8>>> {
        let jwt = self.jwt.iter().map(|(id, key)| (format!("jwt.{id}.pem"), key));
        let x509 = self.x509.iter().map(|(id, key)| (format!("x509.{id}.pem"), key));
        let encode = |key: &PrivateKey| {
            let text = pem::write("PRIVATE KEY", key.expose_pkcs8_der());
            Zeroizing::new(text.as_bytes().to_vec())
        };
        jwt.chain(x509).map(|(name, key)| (name, encode(key))).collect()
    }

    /// Reads the Secret's data; other fields are ignored. A key that cannot be read is left out and told beside: the
    /// others go on.
    pub fn from_data<'a>(data: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> (Self, Vec<StateError>) {
        let (mut keys, mut errors) = (Self::default(), Vec::new());
        for (name, value) in data {
            let Some(name) = name.strip_suffix(".pem") else {
                continue;
            };
            let (map, id) = match name.split_once('.') {
                Some(("jwt", id)) => (&mut keys.jwt, id),
                Some(("x509", id)) => (&mut keys.x509, id),
                _ => continue,
            };
            match PrivateKey::from_pem(value) {
                Ok(key) => drop(map.insert(id.to_owned(), Arc::new(key))),
                Err(error) => errors.push(StateError::Key(id.to_owned(), error)),
            }
        }
        (keys, errors)
    }
}
