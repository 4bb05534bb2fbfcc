//! What goes into the ring and what comes out of it. The caller performs the actions in the order given and reports back
//! how a write ended; everything else is the ring's business.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::state::X509Material;
use super::stored::{StoredKeys, StoredState};
use crate::authority::{Authority, AuthorityError, JwtUnavailable, X509Unavailable};
use crate::documents::{Documents, DocumentsError};
use crate::{JwtAuthority, X509Authority};

/// The time by both clocks of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    /// Wall time.
    pub wall: Timestamp,
    /// Monotonic time since any fixed moment of this process.
    pub monotonic: Duration,
}

/// What a signing Secret is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUses {
    /// JWTs and certificates: the only Secret.
    Both,
    /// JWTs only: the second Secret, where one is configured.
    Jwt,
    /// Certificates only: the first Secret, where a second one is configured.
    X509,
}

/// Something happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A signing Secret was read: at start, on every change, and with [`AuthorityError::Absent`] when it is gone.
    Secret {
        /// What it is for.
        uses: KeyUses,
        /// What came of it.
        outcome: Result<Arc<Authority>, AuthorityError>,
    },
    /// A write was acknowledged.
    Stored {
        /// [`StoreWrite::id`].
        write: u64,
    },
    /// A write failed. The ring offers it again at the next event.
    StoreFailed {
        /// [`StoreWrite::id`].
        write: u64,
    },
    /// These key or authority ids are never to be used again. Texts that have the form of neither are ignored.
    Revoked(BTreeSet<String>),
    /// Time has passed; see [`super::KeyRing::next_due`].
    Tick,
}

/// What the caller has to do, in order.
#[derive(Debug, Clone)]
pub enum Action {
    /// Write both Secrets, the private keys first, then answer with [`Event::Stored`] or [`Event::StoreFailed`].
    Store(Box<StoreWrite>),
    /// Serve these documents from now on.
    Publish(Arc<Documents>),
    /// Sign with these authorities from now on.
    Sign(Arc<SigningSet>),
    /// Tell the owner of the signing Secret.
    Notify(Notice),
}

/// One write of both Secrets.
#[derive(Debug, Clone)]
pub struct StoreWrite {
    /// Names the write in the answer.
    pub id: u64,
    /// The content of Secret `mintmark-issuer`.
    pub state: StoredState,
    /// The content of Secret `mintmark-issuer-ring`.
    pub keys: StoredKeys,
}

/// Who signs now.
#[derive(Debug, Clone)]
pub struct SigningSet {
    /// The JWT authority, or why there is none.
    pub jwt: Result<Arc<JwtAuthority>, NoSigner>,
    /// The X.509 authority, or why there is none.
    pub x509: Result<Arc<X509Authority>, NoSigner>,
}

/// Why nothing signs for a use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSigner {
    /// No signing Secret was read yet.
    #[error("the signing Secret has not been read yet")]
    NotRead,
    /// The signing Secret is not usable, and none was before.
    #[error("the signing Secret is not usable: {0}")]
    Secret(AuthorityError),
    /// The Secret is fine, but its key signs no JWTs.
    #[error("{0}")]
    Jwt(JwtUnavailable),
    /// The Secret is fine, but its certificate signs no certificates.
    #[error("{0}")]
    X509(X509Unavailable),
    /// The key was revoked and no other is there.
    #[error("key {0} is revoked; put a new key into the signing Secret")]
    Revoked(String),
    /// The key is not stored yet, so that nothing may be signed with it.
    #[error("the new signing key is not stored yet")]
    NotStored,
}

impl SigningSet {
    /// Whether both sign with the same keys and certificates, or do not for the same reasons.
    pub fn is_same(&self, other: &Self) -> bool {
        let jwt = |set: &Self| {
            set.jwt
                .as_ref()
                .map(|jwt| (jwt.kid().to_owned(), jwt.not_after()))
                .map_err(Clone::clone)
        };
        let x509 = |set: &Self| {
            set.x509
                .as_ref()
                .map(|x509| X509Material::of(x509))
                .map_err(Clone::clone)
        };
        jwt(self) == jwt(other) && x509(self) == x509(other)
    }
}

impl NoSigner {
    /// Whether only another kind of key or certificate would help: such an object is stalled instead of retried.
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Jwt(_) | Self::X509(_))
    }
}

/// News for the owner of the signing Secret: an event and a log line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// A key signs from now on.
    #[error("{kind} key {id} signs from now on")]
    Signs {
        /// `JWT` or `X.509`.
        kind: &'static str,
        /// The key or authority id.
        id: String,
    },
    /// A retired or revoked key left the documents.
    #[error("{kind} key {id} is no longer published")]
    Gone {
        /// `JWT` or `X.509`.
        kind: &'static str,
        /// The key or authority id.
        id: String,
    },
    /// The Secret is not usable; what signed before signs on.
    #[error("the signing Secret is not usable, the last good key, if any, goes on: {0}")]
    NotUsable(AuthorityError),
    /// The Secret is usable, but not for certificates; a CA from before signs on.
    #[error("the signing Secret cannot sign certificates, the last good CA, if any, goes on: {0}")]
    NoX509(X509Unavailable),
    /// The Secret is usable, but not for JWTs; a key from before signs on.
    #[error("the signing Secret cannot sign JWTs, the last good key, if any, goes on: {0}")]
    NoJwt(JwtUnavailable),
    /// The Secret holds a key that was revoked.
    #[error("key {0} is revoked and not accepted again")]
    Revoked(String),
    /// The ring is full; the new key waits until a retired one is gone.
    #[error("{kind} key {id} waits: {limit} keys are published already", limit = super::MAX_KEYS_PER_USE)]
    Full {
        /// `JWT` or `X.509`.
        kind: &'static str,
        /// The key or authority id.
        id: String,
    },
    /// A new CA is not valid yet.
    #[error("authority {id} signs from {at} on, when its certificate becomes valid")]
    NotYetValid {
        /// The authority id.
        id: String,
        /// Its `notBefore`.
        at: Timestamp,
    },
    /// The documents could not be made; nothing changed.
    #[error("the documents could not be made, nothing changed: {0}")]
    Documents(DocumentsError),
}
