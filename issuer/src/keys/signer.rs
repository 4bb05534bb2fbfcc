//! The one way to sign: [`Signer`], which shows the public key and makes signatures and has no key getter, so that a key in
//! a KMS or a PKCS#11 token can stand behind it as well. Signing fails only when the key's keeper fails.

use std::fmt;

use ::ring::rand::SystemRandom;
use ::ring::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};

use super::{JwkError, KeyAlgorithm, PublicKey};

/// Signs messages with one private key.
pub trait Signer: fmt::Debug + Send + Sync {
    /// The public half.
    fn public_key(&self) -> &PublicKey;

    /// Signs `message` with the hash that belongs to the kind of key (SHA-384 for P-384, else SHA-256; none for Ed25519).
    ///
    /// The signature has the form of JWS (RFC 7518 §3.3, §3.4): for EC keys both numbers in full length one after the
    /// other, 64 or 96 bytes.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}

/// The keeper of the key could not sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the signing key could not be used: {0}")]
pub struct SignError(pub String);

/// A signer whose key is in this process's memory.
pub struct LocalSigner {
    pair: Pair,
    public: PublicKey,
    rng: SystemRandom,
}

pub(super) enum Pair {
    EcP256(EcdsaKeyPair),
    EcP384(EcdsaKeyPair),
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl LocalSigner {
    pub(super) fn new(pair: Pair, rng: SystemRandom) -> Result<Self, JwkError> {
        let public = match &pair {
            Pair::EcP256(key) => PublicKey::from_raw(KeyAlgorithm::EcP256, key.public_key().as_ref()),
            Pair::EcP384(key) => PublicKey::from_raw(KeyAlgorithm::EcP384, key.public_key().as_ref()),
            Pair::Rsa(key) => PublicKey::from_raw(KeyAlgorithm::Rsa, key.public_key().as_ref()),
            Pair::Ed25519(key) => PublicKey::from_raw(KeyAlgorithm::Ed25519, key.public_key().as_ref()),
        }?;
        Ok(Self { pair, public, rng })
    }
}

impl Signer for LocalSigner {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let failed = |_| SignError("the system's random source failed".to_owned());
        match &self.pair {
            Pair::EcP256(key) | Pair::EcP384(key) => {
                Ok(key.sign(&self.rng, message).map_err(failed)?.as_ref().to_vec())
            }
            Pair::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &self.rng, message, &mut signature)
                    .map_err(failed)?;
                Ok(signature)
            }
            Pair::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
        }
    }
}

impl fmt::Debug for LocalSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSigner")
            .field("algorithm", &self.public.algorithm())
            .field("kid", &self.public.thumbprint())
            .finish_non_exhaustive()
    }
}
