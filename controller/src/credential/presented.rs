use std::{fmt, sync::Arc, time::Instant};

use futures::future::BoxFuture;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::SecretString;

use super::Login;

/// A value of a token's `aud` claim: 1–255 characters, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Audience(String);

/// Why a string is not an [`Audience`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AudienceError {
    /// Empty, or longer than 255 characters.
    #[error("an audience has 1 to 255 characters, this one has {0}")]
    Length(usize),
    /// Contains a control character.
    #[error("an audience contains no control characters")]
    Control,
}

impl Audience {
    /// Parses one audience.
    pub fn new(value: impl Into<String>) -> Result<Self, AudienceError> {
        let value = value.into();
        let length = value.chars().count();
        if !(1..=255).contains(&length) {
            return Err(AudienceError::Length(length));
        }
        if value.chars().any(char::is_control) {
            return Err(AudienceError::Control);
        }
        Ok(Self(value))
    }

    /// The audience as it stands in the `aud` claim.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Identifies one minted credential of one object. Whatever was obtained with it (an exchanged token, a connection)
/// is usable with exactly this generation and no other.
///
/// The string is made of public parts only: object UID, credential kind, key or authority id, and a counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CredentialGeneration(pub Arc<str>);

/// A bearer token and what the registry client has to know of it.
#[derive(Clone)]
pub struct JwtCredential {
    /// The compact JWS. Never logged.
    pub token: SecretString,
    /// The audiences it was minted for: they decide which realms may receive it.
    pub audiences: Arc<[Audience]>,
    /// Set by the ServiceAccount annotation `credential.auth.fluxcd.io/username`: the JWT is then the password of HTTP
    /// basic authentication.
    pub username: Option<Arc<str>>,
    /// Which minting this is.
    pub generation: CredentialGeneration,
    /// When it was minted (monotonic clock).
    pub minted_at: Instant,
}

/// A client certificate with its key.
#[derive(Clone)]
pub struct CertificateCredential {
    /// Leaf first, then intermediates; no root.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// The leaf's private key. Never logged.
    pub key: Arc<PrivateKeyDer<'static>>,
    /// Common name or first attribute of the issuing CA's subject, for the message of a refused handshake.
    pub issuer: Arc<str>,
    /// Which minting, or version of a Secret, this is: the connection pool's key.
    pub generation: CredentialGeneration,
    /// Whether a server that does not ask for it is none to talk to. So it is where the certificate is the credential.
    pub must_be_asked: bool,
}

/// What a pull secret holds for a registry.
#[derive(Clone, Debug)]
pub struct LoginCredential {
    /// User name and password, or a token.
    pub login: Arc<Login>,
    /// Which version of which Secret.
    pub generation: CredentialGeneration,
}

/// What one request presents.
#[derive(Clone, Debug)]
pub enum Presented {
    /// Nothing: the object names no credential.
    Anonymous,
    /// A login, sent only when the registry asks for one.
    Login(LoginCredential),
    /// A bearer token.
    Jwt(JwtCredential),
    /// A TLS client certificate.
    Certificate(CertificateCredential),
}

impl Presented {
    /// Which minting this is; none for an anonymous request.
    pub fn generation(&self) -> Option<&CredentialGeneration> {
        match self {
            Self::Anonymous => None,
            Self::Login(login) => Some(&login.generation),
            Self::Jwt(jwt) => Some(&jwt.generation),
            Self::Certificate(certificate) => Some(&certificate.generation),
        }
    }
}

/// Why a credential could not be had. Its text is shown in conditions: it names the stage, never secret material.
#[derive(Debug, Clone, thiserror::Error)]
#[error("could not mint: {message}")]
pub struct CredentialError {
    /// What failed and what to look at.
    pub message: String,
    /// True when waiting for the signing Secret (or the API server) can mend it.
    pub transient: bool,
}

/// Yields the credential of one object.
pub trait CredentialSource: Send + Sync {
    /// The credential to present now: cached while it is fresh, else minted.
    fn current(&self) -> BoxFuture<'_, Result<Presented, CredentialError>>;

    /// A credential minted after `refused` was answered with 401. Called at most once per request.
    fn renew<'a>(&'a self, refused: &'a Presented) -> BoxFuture<'a, Result<Presented, CredentialError>>;
}

impl fmt::Debug for JwtCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtCredential")
            .field("token", &"[redacted]")
            .field("audiences", &self.audiences)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for CertificateCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateCredential")
            .field("key", &"[redacted]")
            .field("issuer", &self.issuer)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}
