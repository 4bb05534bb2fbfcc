//! Keys: private keys as they come out of a Secret, public keys as verifiers see them, and the [`Signer`] between them.
//! Reading a key fails with what is wrong with it, by name; nothing here prints or returns a private key, except the one
//! export that the ring's Secret needs.

mod parse;
mod public;
mod signer;

pub use parse::PrivateKey;
pub use public::{Jwk, JwkError, PublicKey};
pub use signer::{LocalSigner, SignError, Signer};

pub(crate) use public::ecdsa_to_der;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::pem::PemError;

/// The kinds of key that can sign here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// EC P-256: JWTs with ES256, certificates with ecdsa-with-SHA256.
    #[serde(rename = "EC-P256")]
    EcP256,
    /// EC P-384: JWTs with ES384, certificates with ecdsa-with-SHA384.
    #[serde(rename = "EC-P384")]
    EcP384,
    /// RSA of 2048–4096 bits: JWTs with RS256, certificates with sha256WithRSAEncryption.
    #[serde(rename = "RSA")]
    Rsa,
    /// Ed25519: certificates only. JWT-SVID §2.2 lists no algorithm for it.
    #[serde(rename = "Ed25519")]
    Ed25519,
}

impl KeyAlgorithm {
    /// The JWS algorithm (RFC 7518 §3.1) of tokens signed by such a key; none for Ed25519.
    pub fn jws(self) -> Option<&'static str> {
        match self {
            Self::EcP256 => Some("ES256"),
            Self::EcP384 => Some("ES384"),
            Self::Rsa => Some("RS256"),
            Self::Ed25519 => None,
        }
    }
}

impl std::fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::EcP256 => "EC P-256",
            Self::EcP384 => "EC P-384",
            Self::Rsa => "RSA",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// Why a private key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not PEM.
    #[error("{0}")]
    Pem(#[from] PemError),
    /// PEM, but no private key in it.
    #[error("no private key found, only {0:?}; put the PEM of a private key here")]
    NoPrivateKey(String),
    /// More than one private key.
    #[error("more than one private key found; leave exactly one")]
    Several,
    /// A key protected by a passphrase.
    #[error("encrypted key; store it without a passphrase")]
    Encrypted,
    /// A kind of key that is not accepted.
    #[error("{0} is not accepted; use EC P-256, EC P-384, RSA 2048–4096 or Ed25519")]
    NotAccepted(String),
    /// The key's encoding is damaged.
    #[error("damaged {0} private key: {1}")]
    Damaged(&'static str, String),
}
