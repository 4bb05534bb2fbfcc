//! News for the owner of the signing Secret: every step of a key, and everything that keeps a step from happening. The
//! caller makes an event and a log line of each.

use jiff::Timestamp;

use super::stored::StateError;
use crate::authority::{AuthorityError, JwtUnavailable, X509Unavailable};
use crate::documents::DocumentsError;

/// What a key is used for, as it is written in a [`Notice`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyUse {
    /// It signs JWT-SVIDs.
    Jwt,
    /// It signs X.509-SVIDs.
    X509,
}

impl std::fmt::Display for KeyUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Jwt => "JWT",
            Self::X509 => "X.509",
        })
    }
}

/// News for the owner of the signing Secret: an event and a log line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// A new key is published and waits for its overlap.
    #[error("{kind} key {id} is published and signs from {from} on")]
    Published {
        /// What it signs.
        kind: KeyUse,
        /// The key or authority id.
        id: String,
        /// When it will sign, unless a restart or a clock makes it later, or an activation or revocation earlier.
        from: Timestamp,
    },
    /// A key signs from now on.
    #[error("{kind} key {id} signs from now on")]
    Signs {
        /// What it signs.
        kind: KeyUse,
        /// The key or authority id.
        id: String,
    },
    /// A key signs no more and stays published for what it signed.
    #[error("{kind} key {id} signs no more and stays published until {until}")]
    Retired {
        /// What it signed.
        kind: KeyUse,
        /// The key or authority id.
        id: String,
        /// When it leaves the documents, at the earliest.
        until: Timestamp,
    },
    /// A published key was overtaken by another one before it signed.
    #[error("{kind} key {id} never signs, another key came first; it stays published until {until}")]
    Superseded {
        /// What it was to sign.
        kind: KeyUse,
        /// The key or authority id.
        id: String,
        /// When it leaves the documents, at the earliest.
        until: Timestamp,
    },
    /// A retired or superseded key left the documents.
    #[error("{kind} key {id} is no longer published")]
    Gone {
        /// What it signed.
        kind: KeyUse,
        /// The key or authority id.
        id: String,
    },
    /// A revoked key left the documents.
    #[error("{kind} key {id} is revoked and no longer published")]
    Revoked {
        /// What it signed.
        kind: KeyUse,
        /// The key or authority id.
        id: String,
    },
    /// A pending CA signs before its overlap is over, because somebody wants it.
    #[error("authority {0} was activated: it signs before its overlap is over")]
    Activated(String),
    /// A new CA is not valid yet.
    #[error("authority {id} signs not before {at}, when its certificate becomes valid")]
    NotYetValid {
        /// The authority id.
        id: String,
        /// Its `notBefore`.
        at: Timestamp,
    },
    /// The ring is full; the new key waits until another one is gone.
    #[error("{kind} key {id} waits: {limit} keys are published already", limit = super::MAX_KEYS_PER_USE)]
    Full {
        /// What it is to sign.
        kind: KeyUse,
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
    #[error("key {0} is revoked and not accepted again; put a new key into the signing Secret")]
    NotAccepted(String),
    /// The stored private key of a key is not its own.
    #[error("a stored private key is ignored: {0}")]
    PrivateKey(StateError),
    /// The stored state is refused; memory or the signing Secret replaces it.
    #[error("the stored key ring is refused: {0}")]
    StateRefused(StateError),
    /// The stored state is gone; memory goes on and replaces it.
    #[error("the stored key ring is gone; what this process knows of it is written again")]
    StateMissing,
    /// The stored state is not what this process wrote or is older; memory replaces it.
    #[error("the stored key ring was changed by somebody else; what this process knows of it is written again")]
    StateOverwritten,
    /// The wall clock is wrong; keys stay as they are meanwhile.
    #[error("the clock differs too much from the API server's: no key is published, signs or leaves until it is right")]
    ClockSkew,
    /// The documents could not be made; nothing changed.
    #[error("the documents could not be made, nothing changed: {0}")]
    Documents(DocumentsError),
}

impl Notice {
    /// Whether somebody should look at it: the `Warning` of a Kubernetes event.
    pub fn is_warning(&self) -> bool {
        !matches!(
            self,
            Self::Published { .. }
                | Self::Signs { .. }
                | Self::Retired { .. }
                | Self::Superseded { .. }
                | Self::Gone { .. }
                | Self::Activated(_)
                | Self::NotYetValid { .. }
        )
    }

    /// The reason of a Kubernetes event: one word in `CamelCase`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Published { .. } => "KeyPublished",
            Self::Signs { .. } => "KeySigning",
            Self::Retired { .. } => "KeyRetired",
            Self::Superseded { .. } => "KeySuperseded",
            Self::Gone { .. } => "KeyGone",
            Self::Revoked { .. } => "KeyRevoked",
            Self::Activated(_) => "KeyActivated",
            Self::NotYetValid { .. } => "KeyNotYetValid",
            Self::Full { .. } => "KeyRingFull",
            Self::NotUsable(_) | Self::NoX509(_) | Self::NoJwt(_) => "SigningSecretInvalid",
            Self::NotAccepted(_) => "RevokedKeyInSecret",
            Self::PrivateKey(_) => "PrivateKeyInvalid",
            Self::StateRefused(_) => "StateRefused",
            Self::StateMissing => "StateMissing",
            Self::StateOverwritten => "StateOverwritten",
            Self::ClockSkew => "ClockSkew",
            Self::Documents(_) => "DocumentsFailed",
        }
    }
}
