//! JWT-SVIDs (JWT-SVID §4): `jsonwebtoken` reads the token and `ring` verifies it, through a provider of ours, as the crate
//! brings none for `ring`. The dates are compared with the given moment, without leeway.

use std::sync::Once;

use ::ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use jiff::Timestamp;
use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Validation};
use serde::Deserialize;

use super::TrustBundle;
use crate::keys::KeyAlgorithm;
use crate::{SpiffeId, SpiffeIdError, TrustDomain};

/// What a valid token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedJwt {
    /// `sub`.
    pub subject: SpiffeId,
    /// `iss`, if any.
    pub issuer: Option<String>,
    /// `aud`.
    pub audiences: Vec<String>,
    /// The key that signed it.
    pub kid: String,
    /// `exp`.
    pub expires_at: Timestamp,
    /// All claims.
    pub claims: serde_json::Value,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum JwtVerifyError {
    /// Not a JWT, or one without the claims that a JWT-SVID needs.
    #[error("not a JWT-SVID: {0}")]
    Malformed(String),
    /// A header that JWT-SVID §2 does not allow.
    #[error("the token's header is not that of a JWT-SVID: {0}")]
    Header(&'static str),
    /// Signed with a key that is not in the bundle.
    #[error("the token's key {0:?} is not in the bundle")]
    UnknownKey(String),
    /// The signature is wrong.
    #[error("the token's signature does not verify")]
    Signature,
    /// Meant for somebody else.
    #[error("the token is for {found:?}, not for {wanted:?}")]
    Audience {
        /// Its `aud`.
        found: Vec<String>,
        /// Who verifies.
        wanted: String,
    },
    /// Over.
    #[error("the token expired at {0}")]
    Expired(Timestamp),
    /// Not valid yet.
    #[error("the token is valid only from {0}")]
    NotYetValid(Timestamp),
    /// Its subject is not a SPIFFE ID.
    #[error("the token's subject: {0}")]
    Subject(#[from] SpiffeIdError),
    /// Its subject belongs to another trust domain.
    #[error("the token's subject belongs to trust domain {0:?}")]
    TrustDomain(String),
}

#[derive(Deserialize)]
struct Claims {
    iss: Option<String>,
    sub: String,
    aud: OneOrMany,
    exp: i64,
    nbf: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl TrustBundle {
    /// Verifies a token of the trust domain at `now`; with an audience, the token must name it.
    pub fn verify_jwt(
        &self,
        token: &str,
        domain: &TrustDomain,
        audience: Option<&str>,
        now: Timestamp,
    ) -> Result<VerifiedJwt, JwtVerifyError> {
        let malformed = |error: &dyn std::fmt::Display| JwtVerifyError::Malformed(error.to_string());
        let header = jsonwebtoken::decode_header(token).map_err(|error| malformed(&error))?;
        if !header.typ.as_deref().is_none_or(|typ| matches!(typ, "JWT" | "JOSE")) {
            return Err(JwtVerifyError::Header("typ is neither JWT nor JOSE"));
        }
        let kid = header.kid.ok_or(JwtVerifyError::Header("no kid"))?;
        let key = self
            .jwt
            .get(&kid)
            .ok_or_else(|| JwtVerifyError::UnknownKey(kid.clone()))?;
        let (algorithm, key) = match key.algorithm() {
            KeyAlgorithm::EcP256 => (Algorithm::ES256, DecodingKey::from_ec_der(key.raw())),
            KeyAlgorithm::EcP384 => (Algorithm::ES384, DecodingKey::from_ec_der(key.raw())),
            KeyAlgorithm::Rsa => (Algorithm::RS256, DecodingKey::from_rsa_der(key.raw())),
            KeyAlgorithm::Ed25519 => return Err(JwtVerifyError::Header("the key signs no JWT-SVIDs")),
        };
        install_provider();
        let mut validation = Validation::new(algorithm);
        // Times and audience are compared below: the crate would ask the system's clock.
        (
            validation.validate_exp,
            validation.validate_nbf,
            validation.validate_aud,
        ) = (false, false, false);
        let data = jsonwebtoken::decode::<serde_json::Value>(token, &key, &validation).map_err(|error| match error
            .kind()
        {
            ErrorKind::InvalidSignature => JwtVerifyError::Signature,
            ErrorKind::InvalidAlgorithm => JwtVerifyError::Header("alg does not fit the key"),
            _ => malformed(&error),
        })?;
        let claims = Claims::deserialize(&data.claims).map_err(|error| malformed(&error))?;
        check(claims, kid, data.claims, domain, audience, now)
    }
}

fn check(
    claims: Claims,
    kid: String,
    all: serde_json::Value,
    domain: &TrustDomain,
    audience: Option<&str>,
    now: Timestamp,
) -> Result<VerifiedJwt, JwtVerifyError> {
    let time = |seconds| Timestamp::from_second(seconds).map_err(|error| JwtVerifyError::Malformed(error.to_string()));
    let expires_at = time(claims.exp)?;
    if expires_at <= now {
        return Err(JwtVerifyError::Expired(expires_at));
    }
    if let Some(start) = claims.nbf.map(time).transpose()?.filter(|start| *start > now) {
        return Err(JwtVerifyError::NotYetValid(start));
    }
    let subject = SpiffeId::parse(&claims.sub)?;
    if subject.trust_domain() != domain.as_str() {
        return Err(JwtVerifyError::TrustDomain(subject.trust_domain().to_owned()));
    }
    let audiences = match claims.aud {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    };
    if let Some(wanted) = audience.filter(|wanted| !audiences.iter().any(|found| found == wanted)) {
        return Err(JwtVerifyError::Audience {
            found: audiences,
            wanted: wanted.to_owned(),
        });
    }
    Ok(VerifiedJwt {
        subject,
        issuer: claims.iss,
        audiences,
        kid,
        expires_at,
        claims: all,
    })
}

/// Makes `jsonwebtoken` verify with `ring`, unless this process has chosen otherwise before.
fn install_provider() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: no_signer,
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(),
    };
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // An error says that another provider is installed, which verifies just as well.
        let _ = PROVIDER.install_default();
    });
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the provider's signature")]
fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::UnsupportedAlgorithm.into())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the provider's signature")]
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let with: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED,
        Algorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    let key = UnparsedPublicKey::new(with, key.try_get_as_bytes()?.to_vec());
    Ok(Box::new(RingVerifier {
        algorithm: *algorithm,
        key,
    }))
}

struct RingVerifier {
    algorithm: Algorithm,
    key: UnparsedPublicKey<Vec<u8>>,
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        self.key.verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
