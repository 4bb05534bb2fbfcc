//! JWT-SVIDs (JWT-SVID §2–3, RFC 7519): one authority, one header made once, claims per object. The key stays parsed, so
//! that minting costs little more than the signature. Minting fails when the request is empty, when the certificate that
//! came with the key is over, or when the key's keeper cannot sign.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde::Serialize;

use crate::authority::JwtUnavailable;
use crate::keys::{PublicKey, SignError, Signer};
use crate::{IssuerUrl, Random, RandomError, SpiffeId};

/// `iat` and `nbf` lie this far in the past: verifiers exist that refuse an `iat` in the future and have no leeway.
const BACKDATE: SignedDuration = SignedDuration::from_secs(5);
/// Bytes of randomness in `jti`.
const JTI_BYTES: usize = 16;

/// Signs JWT-SVIDs with one key.
#[derive(Debug, Clone)]
pub struct JwtAuthority {
    signer: Arc<dyn Signer>,
    kid: String,
    /// The encoded header and the dot after it.
    header: String,
    not_after: Option<Timestamp>,
}

/// What a token is to say.
#[derive(Debug, Clone, Copy)]
pub struct JwtRequest<'a> {
    /// `sub`.
    pub subject: &'a SpiffeId,
    /// `aud`: one or more, none empty.
    pub audiences: &'a [&'a str],
    /// `iss`.
    pub issuer: &'a IssuerUrl,
    /// The claim `mintmark.dev/object`.
    pub object: ObjectRef<'a>,
    /// The token's life from now on; whole seconds count.
    pub ttl: SignedDuration,
}

/// The Kubernetes object that a token speaks for: the claim `mintmark.dev/object`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ObjectRef<'a> {
    /// E.g. `OCIRepository`.
    pub kind: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID; empty for a token minted on the command line.
    pub uid: &'a str,
}

/// A minted token and what may be said about it.
#[derive(Debug, Clone)]
pub struct JwtSvid {
    /// The compact JWS. Never logged.
    pub token: SecretString,
    /// The key id of its header.
    pub kid: String,
    /// Its `jti`: 32 hexadecimal digits.
    pub jti: String,
    /// Its `iat` and `nbf`.
    pub issued_at: Timestamp,
    /// Its `exp`.
    pub expires_at: Timestamp,
}

/// Why no token was minted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtMintError {
    /// No audience, or an empty one.
    #[error("a JWT-SVID needs at least one audience, and none may be empty")]
    Audience,
    /// A life of less than a second.
    #[error("the life of a JWT-SVID must be at least one second")]
    Life,
    /// The certificate beside the key is over.
    #[error("the signing certificate (tls.crt) expired at {0}")]
    Expired(Timestamp),
    /// The system's random source failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The key could not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The claims could not be written.
    #[error("the claims could not be encoded: {0}")]
    Encode(String),
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: Audiences<'a>,
    iat: i64,
    nbf: i64,
    exp: i64,
    jti: &'a str,
    #[serde(rename = "mintmark.dev/object")]
    object: ObjectRef<'a>,
}

/// RFC 7519 §4.1.3 allows both forms; Keycloak and others take a single audience only as a string.
#[derive(Serialize)]
#[serde(untagged)]
enum Audiences<'a> {
    One(&'a str),
    Several(&'a [&'a str]),
}

impl JwtAuthority {
    /// An authority for this key. `not_after` is the end of the certificate beside the key: no token outlives it.
    ///
    /// Fails for a kind of key that JWT-SVID §2.2 knows no algorithm for.
    pub fn new(signer: Arc<dyn Signer>, not_after: Option<Timestamp>) -> Result<Self, JwtUnavailable> {
        let algorithm = signer.public_key().algorithm();
        let alg = algorithm.jws().ok_or(JwtUnavailable::KeyKind(algorithm))?;
        let kid = signer.public_key().thumbprint();
        let header = serde_json::to_vec(&Header {
            alg,
            kid: &kid,
            typ: "JWT",
        })
        .map_err(|error| JwtUnavailable::Header(error.to_string()))?;
        let header = format!("{}.", URL_SAFE_NO_PAD.encode(header));
        Ok(Self {
            signer,
            kid,
            header,
            not_after,
        })
    }

    /// The id of the key: its RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public half of the key.
    pub fn public_key(&self) -> &PublicKey {
        self.signer.public_key()
    }

    /// No token of this authority is valid after this.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.not_after
    }

    /// Whether a token minted at this time would be valid for a second at least.
    pub fn check_time(&self, now: Timestamp) -> Result<(), JwtMintError> {
        self.validity(SignedDuration::from_secs(1), now).map(drop)
    }

    /// Mints one token: `iat` = `nbf` = `now` − 5 s, `exp` = `now` + ttl but not after the certificate's end.
    pub fn mint(&self, request: &JwtRequest<'_>, now: Timestamp, random: &dyn Random) -> Result<JwtSvid, JwtMintError> {
        let aud = match request.audiences {
            [] => return Err(JwtMintError::Audience),
            several if several.iter().any(|audience| audience.is_empty()) => return Err(JwtMintError::Audience),
            [one] => Audiences::One(one),
            several => Audiences::Several(several),
        };
        let (issued_at, expires_at) = self.validity(request.ttl, now)?;
        let mut id = [0; JTI_BYTES];
        random.fill(&mut id)?;
        let jti = crate::hex(&id);
        let claims = Claims {
            iss: request.issuer.as_str(),
            sub: request.subject.as_str(),
            aud,
            iat: issued_at.as_second(),
            nbf: issued_at.as_second(),
            exp: expires_at.as_second(),
            jti: &jti,
            object: request.object,
        };
        let claims = serde_json::to_vec(&claims).map_err(|error| JwtMintError::Encode(error.to_string()))?;
        let mut token = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 700);
        token.push_str(&self.header);
        URL_SAFE_NO_PAD.encode_string(&claims, &mut token);
        let signature = self.signer.sign(token.as_bytes())?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&signature, &mut token);
        Ok(JwtSvid {
            token: token.into(),
            kid: self.kid.clone(),
            jti,
            issued_at,
            expires_at,
        })
    }

    /// Both ends of a token's validity, in whole seconds.
    fn validity(&self, ttl: SignedDuration, now: Timestamp) -> Result<(Timestamp, Timestamp), JwtMintError> {
        if ttl < SignedDuration::from_secs(1) {
            return Err(JwtMintError::Life);
        }
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let wanted = now
            .saturating_add(SignedDuration::from_secs(ttl.as_secs()))
            .unwrap_or(Timestamp::MAX);
        let expires_at = self.not_after.map_or(wanted, |end| wanted.min(end));
        if expires_at <= now {
            return Err(JwtMintError::Expired(expires_at));
        }
        Ok((now.saturating_sub(BACKDATE).unwrap_or(Timestamp::MIN), expires_at))
    }
}

#[cfg(test)]
mod tests;
