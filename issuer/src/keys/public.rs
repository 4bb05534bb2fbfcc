//! Public keys in the two forms that verifiers read: `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7) and JWK (RFC 7517, RFC 7518
//! §6), with the RFC 7638 thumbprint that names them. Both directions fail with what is wrong.

use ::ring::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::KeyAlgorithm;
use crate::der::{self, Reader};

const SPKI_P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];
const SPKI_P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
];
const SPKI_RSA: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
const SPKI_ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];

/// A public key of an accepted kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: KeyAlgorithm,
    spki: Vec<u8>,
    /// The content of `SubjectPublicKeyInfo`'s bit string: the uncompressed point, the `RSAPublicKey`, the 32 bytes.
    raw: Vec<u8>,
    jwk: Jwk,
}

/// The key parameters of a JSON Web Key: nothing private and none of the optional members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kty")]
pub enum Jwk {
    /// An elliptic curve key (RFC 7518 §6.2).
    #[serde(rename = "EC")]
    Ec {
        /// `P-256` or `P-384`.
        crv: String,
        /// The x coordinate, base64url, full length.
        x: String,
        /// The y coordinate, base64url, full length.
        y: String,
    },
    /// An RSA key (RFC 7518 §6.3).
    #[serde(rename = "RSA")]
    Rsa {
        /// The modulus, base64url.
        n: String,
        /// The public exponent, base64url.
        e: String,
    },
    /// An Edwards curve key (RFC 8037 §2).
    #[serde(rename = "OKP")]
    Okp {
        /// `Ed25519`.
        crv: String,
        /// The public key, base64url.
        x: String,
    },
}

/// Why a public key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// A kind of key that is not accepted.
    #[error("the public key is of a kind that is not accepted")]
    NotAccepted,
    /// A coordinate, modulus or exponent that cannot be one.
    #[error("the public key's {0:?} is damaged")]
    Damaged(&'static str),
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo` in DER.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, JwkError> {
        let mut content = Reader::new(der::single(spki, der::SEQUENCE).ok_or(JwkError::NotAccepted)?);
        let kind = content.next().ok_or(JwkError::NotAccepted)?.raw;
        let [0, raw @ ..] = content.expect(der::BIT_STRING).ok_or(JwkError::NotAccepted)? else {
            return Err(JwkError::NotAccepted);
        };
        let algorithm = match kind {
            SPKI_P256 => KeyAlgorithm::EcP256,
            SPKI_P384 => KeyAlgorithm::EcP384,
            SPKI_RSA => KeyAlgorithm::Rsa,
            SPKI_ED25519 => KeyAlgorithm::Ed25519,
            _ => return Err(JwkError::NotAccepted),
        };
        Self::from_raw(algorithm, raw)
    }

    /// Makes a key of the content of `SubjectPublicKeyInfo`'s bit string, which is what `ring` calls the public key.
    pub(crate) fn from_raw(algorithm: KeyAlgorithm, raw: &[u8]) -> Result<Self, JwkError> {
        let (kind, jwk) = match algorithm {
            KeyAlgorithm::EcP256 => (SPKI_P256, ec_jwk("P-256", 32, raw)?),
            KeyAlgorithm::EcP384 => (SPKI_P384, ec_jwk("P-384", 48, raw)?),
            KeyAlgorithm::Rsa => (SPKI_RSA, rsa_jwk(raw)?),
            KeyAlgorithm::Ed25519 if raw.len() == 32 => (
                SPKI_ED25519,
                Jwk::Okp {
                    crv: "Ed25519".into(),
                    x: URL_SAFE_NO_PAD.encode(raw),
                },
            ),
            KeyAlgorithm::Ed25519 => return Err(JwkError::Damaged("x")),
        };
        let bits = der::element(der::BIT_STRING, &[&[0], raw]);
        let spki = der::element(der::SEQUENCE, &[kind, &bits]).to_vec();
        Ok(Self {
            algorithm,
            spki,
            raw: raw.to_vec(),
            jwk,
        })
    }

    /// Reads a JWK's key parameters.
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, JwkError> {
        let bytes = |name, text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| JwkError::Damaged(name));
        let key = match jwk {
            Jwk::Ec { crv, x, y } => {
                let algorithm = match crv.as_str() {
                    "P-256" => KeyAlgorithm::EcP256,
                    "P-384" => KeyAlgorithm::EcP384,
                    _ => return Err(JwkError::NotAccepted),
                };
                Self::from_raw(algorithm, &[&[4][..], &bytes("x", x)?, &bytes("y", y)?].concat())?
            }
            Jwk::Rsa { n, e } => {
                let (n, e) = (der::unsigned(&bytes("n", n)?), der::unsigned(&bytes("e", e)?));
                Self::from_raw(KeyAlgorithm::Rsa, &der::element(der::SEQUENCE, &[&n, &e]))?
            }
            Jwk::Okp { crv, x } if crv == "Ed25519" => Self::from_raw(KeyAlgorithm::Ed25519, &bytes("x", x)?)?,
            Jwk::Okp { .. } => return Err(JwkError::NotAccepted),
        };
        if key.jwk == *jwk {
            Ok(key)
        } else {
            Err(JwkError::Damaged("encoding"))
        }
    }

    /// The kind of key.
    pub fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    /// `SubjectPublicKeyInfo` in DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The key parameters as JWK.
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// The key id: the RFC 7638 SHA-256 thumbprint, base64url, 43 characters.
    pub fn thumbprint(&self) -> String {
        self.jwk.thumbprint()
    }

    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }
}

impl Jwk {
    /// The RFC 7638 SHA-256 thumbprint, base64url, 43 characters.
    pub fn thumbprint(&self) -> String {
        // RFC 7638 §3.2: required members only, in lexicographic order, no white space. No value needs escaping.
        let canonical = match self {
            Self::Ec { crv, x, y } => format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#),
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
            Self::Okp { crv, x } => format!(r#"{{"crv":"{crv}","kty":"OKP","x":"{x}"}}"#),
        };
        URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()))
    }
}

/// An ECDSA signature as `ECDSA-Sig-Value` (RFC 3279 §2.2.3), from the two halves that JWS carries (RFC 7518 §3.4).
pub(crate) fn ecdsa_to_der(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    der::element(der::SEQUENCE, &[&der::unsigned(r), &der::unsigned(s)]).to_vec()
}

fn ec_jwk(curve: &str, length: usize, point: &[u8]) -> Result<Jwk, JwkError> {
    let [4, coordinates @ ..] = point else {
        return Err(JwkError::Damaged("point"));
    };
    if coordinates.len() != 2 * length {
        return Err(JwkError::Damaged("point"));
    }
    let (x, y) = coordinates.split_at(length);
    Ok(Jwk::Ec {
        crv: curve.to_owned(),
        x: URL_SAFE_NO_PAD.encode(x),
        y: URL_SAFE_NO_PAD.encode(y),
    })
}

fn rsa_jwk(key: &[u8]) -> Result<Jwk, JwkError> {
    let mut content = Reader::new(der::single(key, der::SEQUENCE).ok_or(JwkError::Damaged("n"))?);
    let n = positive(content.expect(der::INTEGER).ok_or(JwkError::Damaged("n"))?).ok_or(JwkError::Damaged("n"))?;
    let e = positive(content.expect(der::INTEGER).ok_or(JwkError::Damaged("e"))?).ok_or(JwkError::Damaged("e"))?;
    if !(256..=512).contains(&n.len()) {
        return Err(JwkError::NotAccepted);
    }
    Ok(Jwk::Rsa {
        n: URL_SAFE_NO_PAD.encode(n),
        e: URL_SAFE_NO_PAD.encode(e),
    })
}

/// The digits of a positive INTEGER without its sign byte.
fn positive(integer: &[u8]) -> Option<&[u8]> {
    match integer {
        [] | [0] | [0x80..=0xff, ..] => None,
        [0, digits @ ..] | digits => Some(digits),
    }
}
