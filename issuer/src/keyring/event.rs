//! What goes into the ring and what comes out of it. The caller performs the actions in the order given and reports back
//! how a write ended; everything else is the ring's business.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::notice::Notice;
use super::state::X509Material;
use super::stored::{Refused, StoredKeys, StoredState};
use crate::authority::{Authority, AuthorityError, JwtUnavailable, X509Unavailable};
use crate::documents::Documents;
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
    /// The pending CAs with these authority ids may sign before their overlap is over. The whole set of the annotation,
    /// with every read of the signing Secret; it replaces the former.
    Activated(BTreeSet<String>),
    /// Whether this process may plan and write from now on. A ring begins not leading. Losing it keeps publishing and
    /// signing from memory; gaining it starts the monotonic clocks again. Give [`Event::Found`] right before `true`.
    Leading(bool),
    /// What the two Secrets hold, freshly read: at start, with every change while not leading, right before leading, and
    /// while leading when somebody else wrote or a write failed with an unknown or partial outcome. Without a first
    /// one nothing is ever written.
    Found(Box<Found>),
    /// Whether the wall clock differs too much from the API server's. While it does, no key moves on, except the first
    /// key of a use and the successor of a revoked signer.
    ClockSkew(bool),
    /// Time has passed; see [`super::KeyRing::next_due`].
    Tick,
}

/// What Secrets `mintmark-issuer` and `mintmark-issuer-ring` hold.
#[derive(Debug, Clone)]
pub struct Found {
    /// The state: see [`StoredState::read`]. `None` when the Secret is empty or absent.
    pub state: Result<Option<StoredState>, Refused>,
    /// The private keys that could be read: see [`StoredKeys::from_data`].
    pub keys: StoredKeys,
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
    /// The only key there is waits, published, for the first moment of its certificate.
    #[error("key {0} is published and does not sign yet")]
    Waits(String),
    /// The private key of the signing key is in no Secret any more.
    #[error("the private key of {0} is lost; another key has to be published before it signs")]
    Lost(String),
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
