//! Private keys from PEM: PKCS#8 (RFC 5958), SEC1 `EC PRIVATE KEY` (RFC 5915) and PKCS#1 `RSA PRIVATE KEY` (RFC 8017),
//! the latter two being what cert-manager writes unless told otherwise. Everything becomes PKCS#8 in a buffer that is
//! wiped on drop. Unknown curves, sizes and kinds are refused by name.

use std::fmt;

use ::ring::rand::SystemRandom;
use ::ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RsaKeyPair,
};
use zeroize::Zeroizing;

use super::signer::{LocalSigner, Pair};
use super::{KeyAlgorithm, KeyError};
use crate::der::{self, Reader};
use crate::pem;

const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const DER_NULL: &[u8] = &[0x05, 0x00];
/// INTEGER 0 and INTEGER 1: the versions of PKCS#8 and of RFC 5915.
const VERSION_0: &[u8] = &[0x02, 0x01, 0x00];
const VERSION_1: &[u8] = &[0x02, 0x01, 0x01];

/// A private key of an accepted kind, as normalised PKCS#8. Wiped on drop; `Debug` shows the kind only.
#[derive(Clone)]
pub struct PrivateKey {
    algorithm: KeyAlgorithm,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    /// Reads the one private key of a PEM text; `EC PARAMETERS` and certificates beside it are ignored.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let sections = pem::sections(text)?;
        let mut keys = sections.iter().filter(|section| section.label.ends_with("PRIVATE KEY"));
        let Some(section) = keys.next() else {
            return Err(KeyError::NoPrivateKey(
                sections.first().map(|s| s.label.clone()).unwrap_or_default(),
            ));
        };
        if keys.next().is_some() {
            return Err(KeyError::Several);
        }
        if section.encrypted {
            return Err(KeyError::Encrypted);
        }
        match section.label.as_str() {
            "PRIVATE KEY" => Self::from_pkcs8_der(&section.der),
            "EC PRIVATE KEY" => Self::from_sec1(&section.der, None),
            "RSA PRIVATE KEY" => Self::from_pkcs1(&section.der),
            "ENCRYPTED PRIVATE KEY" => Err(KeyError::Encrypted),
            other => Err(KeyError::NotAccepted(other.to_owned())),
        }
    }

    /// Reads a PKCS#8 key in DER.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        let damaged = || KeyError::Damaged("PKCS#8", "not a PrivateKeyInfo".to_owned());
        let mut info = Reader::new(der::single(der, der::SEQUENCE).ok_or_else(damaged)?);
        info.expect(der::INTEGER).ok_or_else(damaged)?;
        let mut algorithm = Reader::new(info.expect(der::SEQUENCE).ok_or_else(damaged)?);
        let key = info.expect(der::OCTET_STRING).ok_or_else(damaged)?;
        match algorithm.expect(der::OID).ok_or_else(damaged)? {
            OID_EC => Self::from_sec1(key, Some(algorithm.expect(der::OID).ok_or_else(damaged)?)),
            OID_RSA => Self::from_pkcs1(key),
            OID_ED25519 => Self::checked(KeyAlgorithm::Ed25519, Zeroizing::new(der.to_vec())),
            other => Err(KeyError::NotAccepted(name_of_kind(other))),
        }
    }

    /// The kind of key.
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// A signer for this key.
    pub fn signer(&self) -> Result<LocalSigner, KeyError> {
        let rejected = |error: ::ring::error::KeyRejected| KeyError::Damaged(name(self.algorithm), error.to_string());
        let rng = SystemRandom::new();
        let pair = match self.algorithm {
            KeyAlgorithm::EcP256 => Pair::EcP256(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.pkcs8, &rng).map_err(rejected)?,
            ),
            KeyAlgorithm::EcP384 => Pair::EcP384(
                EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &self.pkcs8, &rng).map_err(rejected)?,
            ),
            KeyAlgorithm::Rsa => Pair::Rsa(RsaKeyPair::from_pkcs8(&self.pkcs8).map_err(rejected)?),
            KeyAlgorithm::Ed25519 => {
                Pair::Ed25519(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&self.pkcs8).map_err(rejected)?)
            }
        };
        LocalSigner::new(pair, rng).map_err(|error| KeyError::Damaged(name(self.algorithm), error.to_string()))
    }

    /// The key as PKCS#8 DER, for the Secret of the ring and for nothing else.
    pub fn expose_pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// Reads RFC 5915, with the curve from PKCS#8's parameters, from its own, or from the length of the key.
    fn from_sec1(der: &[u8], outer_curve: Option<&[u8]>) -> Result<Self, KeyError> {
        let damaged = |why: &str| KeyError::Damaged("EC", why.to_owned());
        let mut content = Reader::new(der::single(der, der::SEQUENCE).ok_or_else(|| damaged("not an ECPrivateKey"))?);
        content.expect(der::INTEGER).ok_or_else(|| damaged("no version"))?;
        let secret = content
            .expect(der::OCTET_STRING)
            .ok_or_else(|| damaged("no private key"))?;
        let (mut inner_curve, mut public) = (None, None);
        while let Some(element) = content.next() {
            match element.tag {
                der::CONTEXT_0 => {
                    let named = der::single(element.content, der::OID);
                    inner_curve =
                        Some(named.ok_or_else(|| KeyError::NotAccepted("EC key with explicit parameters".into()))?);
                }
                der::CONTEXT_1 => public = der::single(element.content, der::BIT_STRING),
                _ => return Err(damaged("unknown field")),
            }
        }
        if let (Some(outer), Some(inner)) = (outer_curve, inner_curve)
            && outer != inner
        {
            return Err(damaged("it names two different curves"));
        }
        let by_length = match secret.len() {
            32 => OID_P256,
            48 => OID_P384,
            length => {
                return Err(KeyError::NotAccepted(name_of_length(
                    length,
                    outer_curve.or(inner_curve),
                )));
            }
        };
        let (algorithm, curve) = match outer_curve.or(inner_curve).unwrap_or(by_length) {
            OID_P256 if secret.len() == 32 => (KeyAlgorithm::EcP256, OID_P256),
            OID_P384 if secret.len() == 48 => (KeyAlgorithm::EcP384, OID_P384),
            OID_P256 | OID_P384 => return Err(damaged("the length of the key does not fit its curve")),
            other => return Err(KeyError::NotAccepted(name_of_curve(other))),
        };
        let public = public.ok_or_else(|| damaged("it lacks its public half; re-encode it with `openssl ec`"))?;
        let public = der::element(der::CONTEXT_1, &[&der::element(der::BIT_STRING, &[public])]);
        let secret = der::element(der::OCTET_STRING, &[secret]);
        let key = der::element(der::SEQUENCE, &[VERSION_1, &secret, &public]);
        let kind = [
            der::element(der::OID, &[OID_EC]).as_slice(),
            &der::element(der::OID, &[curve]),
        ]
        .concat();
        Self::checked(algorithm, wrap(&kind, &key))
    }

    /// Reads RFC 8017 §A.1.2.
    fn from_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        let damaged = || KeyError::Damaged("RSA", "not an RSAPrivateKey".to_owned());
        let mut content = Reader::new(der::single(der, der::SEQUENCE).ok_or_else(damaged)?);
        content.expect(der::INTEGER).ok_or_else(damaged)?;
        let modulus = content.expect(der::INTEGER).ok_or_else(damaged)?;
        let bits = bit_length(modulus);
        if !(2048..=4096).contains(&bits) {
            return Err(KeyError::NotAccepted(format!("RSA {bits}")));
        }
        let kind = [der::element(der::OID, &[OID_RSA]).as_slice(), DER_NULL].concat();
        Self::checked(KeyAlgorithm::Rsa, wrap(&kind, der))
    }

    /// Accepts the key only if the library that is to sign with it does.
    fn checked(algorithm: KeyAlgorithm, pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let key = Self { algorithm, pkcs8 };
        key.signer()?;
        Ok(key)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

fn wrap(kind: &[u8], key: &[u8]) -> Zeroizing<Vec<u8>> {
    let kind = der::element(der::SEQUENCE, &[kind]);
    let key = der::element(der::OCTET_STRING, &[key]);
    der::element(der::SEQUENCE, &[VERSION_0, &kind, &key])
}

fn bit_length(number: &[u8]) -> usize {
    let skip = number.iter().take_while(|byte| **byte == 0).count();
    let digits = number.get(skip..).unwrap_or_default();
    digits
        .first()
        .map_or(0, |first| digits.len() * 8 - first.leading_zeros() as usize)
}

fn name(algorithm: KeyAlgorithm) -> &'static str {
    match algorithm {
        KeyAlgorithm::EcP256 => "EC P-256",
        KeyAlgorithm::EcP384 => "EC P-384",
        KeyAlgorithm::Rsa => "RSA",
        KeyAlgorithm::Ed25519 => "Ed25519",
    }
}

fn name_of_curve(oid: &[u8]) -> String {
    match oid {
        [0x2b, 0x81, 0x04, 0x00, 0x23] => "EC P-521".into(),
        [0x2b, 0x81, 0x04, 0x00, 0x21] => "EC P-224".into(),
        [0x2b, 0x81, 0x04, 0x00, 0x0a] => "EC secp256k1".into(),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x01] => "EC P-192".into(),
        [0x2b, 0x24, 0x03, 0x03, 0x02, 0x08, 0x01, 0x01, ..] => "EC Brainpool".into(),
        _ => "this elliptic curve".into(),
    }
}

fn name_of_length(length: usize, curve: Option<&[u8]>) -> String {
    match (curve, length) {
        (Some(curve), _) if curve != OID_P256 && curve != OID_P384 => name_of_curve(curve),
        (None, 65 | 66) => "EC P-521".into(),
        (None, 28) => "EC P-224".into(),
        _ => format!("EC key of {length} bytes"),
    }
}

fn name_of_kind(oid: &[u8]) -> String {
    match oid {
        [0x2b, 0x65, 0x71] => "Ed448".into(),
        [0x2b, 0x65, 0x6e] => "X25519".into(),
        [0x2b, 0x65, 0x6f] => "X448".into(),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a] => "RSA-PSS".into(),
        [0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01] => "DSA".into(),
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x11..=0x13] => "ML-DSA".into(),
        _ => "this kind of key".into(),
    }
}
