//! What can go wrong with a registry, by whose fault, in words fit for a condition.
//!
//! No text here carries a query, a redirect target's path, a response body or a header of ours: a presigned URL is a
//! credential, and `reqwest` and `serde_json` errors print such things. Remote text that is quoted went through
//! [`sanitise`].

use std::{io, time::Duration};

use super::address::AddressDenied;
use crate::credential::CredentialError;

/// Longest remote text quoted anywhere, in bytes.
const MAX_QUOTED: usize = 1024;

/// A failed registry operation: which request of ours, and what became of it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{request}: {failure}")]
pub struct RegistryError {
    request: String,
    #[source]
    failure: Failure,
}

/// What became of a request. The text of each variant is the short message of a condition.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// The credential could not be had.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// A token or certificate would have to be presented without TLS. Terminal until the object or the flags change.
    #[error(
        "a credential is not presented over plain HTTP to a peer that is not loopback (--allow-insecure-credentials)"
    )]
    InsecureCredential,
    /// 401, and the object names no credential.
    #[error("registry requires a credential (401) and the object names none")]
    CredentialRequired,
    /// 401 with a credential. `fresh`: also with one minted a moment ago, so perhaps the registry cannot reach the issuer.
    #[error(
        "registry does not accept the credential (401: issuer, audience or CA unknown there, or it cannot reach the issuer)"
    )]
    NotAccepted {
        /// Whether the last credential tried was minted for this very request.
        fresh: bool,
    },
    /// 401 with the login of a pull secret.
    #[error("registry does not accept the login of the pull secret (401)")]
    LoginRefused,
    /// The TLS handshake ended with an alert about our certificate (RFC 8446 §6.2).
    #[error(
        "registry does not accept the client certificate issued by '{issuer}' (TLS alert {alert}: CA unknown there, or certificate not valid there)"
    )]
    CertificateRefused {
        /// The issuing CA's name.
        issuer: String,
        /// The alert's name in the RFC.
        alert: &'static str,
    },
    /// A full handshake in which the server wanted no client certificate.
    #[error("registry did not ask for a client certificate")]
    NoCertificateRequest,
    /// The token server named by the challenge may not receive the credential.
    #[error("the credential may not be sent to the token realm {realm}: {reason}")]
    RealmRefused {
        /// The realm's origin.
        realm: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// 403 with a credential.
    #[error("authenticated but not authorised (403)")]
    Denied,
    /// 403 without any.
    #[error("not authorised (403), and the object names no credential")]
    DeniedAnonymous,
    /// 404.
    #[error("not found (404{})", code.map(|code| format!(": {code}")).unwrap_or_default())]
    NotFound {
        /// The registry's error code, when it is one of the specification's.
        code: Option<&'static str>,
    },
    /// The target's address is not allowed.
    #[error("connection to {host} refused by policy: {reason}")]
    AddressDenied {
        /// Host of the target.
        host: String,
        /// The rule.
        reason: AddressDenied,
    },
    /// A redirect we do not follow.
    #[error("redirect refused: {0}")]
    RedirectRefused(&'static str),
    /// A next page of a list that we do not ask for.
    #[error("next page refused: {0}")]
    LinkRefused(&'static str),
    /// A list without end, or nearly so.
    #[error("tag list has more than {limit} pages")]
    TooManyPages {
        /// The limit.
        limit: usize,
    },
    /// What came is not what was promised.
    #[error("invalid content: {0}")]
    Invalid(#[from] InvalidContent),
    /// More bytes than allowed, declared or received.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What it is: manifest, blob.
        what: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// 429.
    #[error("registry limits the rate (429)")]
    RateLimited {
        /// What the registry asked for, whatever its length.
        retry_after: Option<Duration>,
    },
    /// 408 or 5xx.
    #[error("registry answered with status {status}")]
    Unavailable {
        /// The status code.
        status: u16,
        /// What the registry asked for, whatever its length.
        retry_after: Option<Duration>,
    },
    /// No connection, for whatever reason: told coarsely, so that nobody can map a network with it.
    #[error("cannot connect")]
    Unreachable,
    /// 407, in answer to a request or while a tunnel was asked for.
    #[error("the proxy does not accept the login, or requires one (407)")]
    ProxyRefused,
    /// Too many connect failures in a row: one probe at a time.
    #[error("cannot connect, next attempt in {} s", .retry_in.as_secs().max(1))]
    CircuitOpen {
        /// Until the next probe.
        retry_in: Duration,
    },
    /// The server's certificate is not acceptable.
    #[error("registry's TLS certificate is not trusted: {0}")]
    ServerCertificate(&'static str),
    /// Any other TLS failure.
    #[error("TLS handshake failed")]
    Tls,
    /// Reset or end of stream before the response was complete.
    #[error("connection lost before the response was complete")]
    ConnectionLost,
    /// The pass's time is used up.
    #[error("timed out")]
    TimedOut,
    /// Less than the minimum rate over the first half minute.
    #[error("transfer too slow, below {minimum} bytes per second")]
    TooSlow {
        /// Bytes per second.
        minimum: u64,
    },
    /// Any other status.
    #[error("registry answered with unexpected status {status}")]
    UnexpectedStatus {
        /// The status code.
        status: u16,
    },
    /// Writing what was received failed here.
    #[error("failed to write received content: {0}")]
    Local(io::ErrorKind),
    /// The client for this registry could not be built.
    #[error("cannot set up the transport: {0}")]
    Setup(&'static str),
}

/// How content broke its promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidContent {
    /// The hash is another one.
    #[error("content of {what} does not match its digest")]
    Digest {
        /// What it is: manifest, blob.
        what: &'static str,
    },
    /// The length is another one.
    #[error("{what} has another length than declared ({declared} bytes)")]
    Length {
        /// What it is: manifest, blob.
        what: &'static str,
        /// The descriptor's size.
        declared: u64,
    },
    /// Not a manifest at all, for example a web page.
    #[error("answer is not a manifest but '{0}'")]
    ContentType(String),
    /// `mediaType` and `Content-Type`, or the fields present, contradict each other (CVE-2021-41190).
    #[error("manifest contradicts itself: {0}")]
    Contradiction(String),
    /// Not the JSON it should be.
    #[error("{what} is not valid JSON of its kind (line {line}, column {column})")]
    Json {
        /// What it is: manifest, token.
        what: &'static str,
        /// Line of the error.
        line: usize,
        /// Column of the error.
        column: usize,
    },
    /// A descriptor with a bad digest or size.
    #[error("manifest has a descriptor with an unusable {0}")]
    Descriptor(&'static str),
    /// An index without a child for us.
    #[error("index has no linux/amd64 manifest and more than one other, or none")]
    NoChild,
    /// An index within an index.
    #[error("index points to another index")]
    NestedIndex,
    /// A partial answer that does not continue where we asked.
    #[error("partial answer does not fit the requested range")]
    Range,
    /// A token endpoint's answer without a usable token.
    #[error("token answer has no usable token")]
    Token,
}

impl RegistryError {
    pub(super) fn new(request: String, failure: Failure) -> Self {
        Self { request, failure }
    }

    /// What became of the request.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// The short message for a condition, without the request.
    pub fn message(&self) -> String {
        self.failure.to_string()
    }

    /// Whether trying again later, with the object unchanged, can help. False: terminal, the object or the flags have to
    /// change.
    pub fn retryable(&self) -> bool {
        match &self.failure {
            Failure::InsecureCredential => false,
            Failure::Credential(error) => error.transient,
            _ => true,
        }
    }

    /// Whether it is about who we are: no credential to be had, not accepted, not allowed to be sent.
    pub fn is_authentication(&self) -> bool {
        matches!(
            self.failure,
            Failure::Credential(_)
                | Failure::InsecureCredential
                | Failure::CredentialRequired
                | Failure::NotAccepted { .. }
                | Failure::LoginRefused
                | Failure::CertificateRefused { .. }
                | Failure::NoCertificateRequest
                | Failure::RealmRefused { .. }
                | Failure::Denied
                | Failure::DeniedAnonymous
                | Failure::ProxyRefused
        )
    }

    /// The wait that the registry asked for.
    pub fn retry_after(&self) -> Option<Duration> {
        self.failure.retry_after()
    }
}

impl Failure {
    /// Whether the same request deserves another attempt within the pass.
    pub(super) fn is_momentary(&self) -> bool {
        matches!(
            self,
            Self::RateLimited { .. } | Self::Unavailable { .. } | Self::Unreachable | Self::ConnectionLost
        )
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Unavailable { retry_after, .. } => *retry_after,
            Self::CircuitOpen { retry_in } => Some(*retry_in),
            _ => None,
        }
    }

    pub(super) fn json(what: &'static str, error: &serde_json::Error) -> Self {
        InvalidContent::Json {
            what,
            line: error.line(),
            column: error.column(),
        }
        .into()
    }
}

/// Remote text made fit for quoting: control characters out, at most 1 KiB.
pub(super) fn sanitise(text: &str) -> String {
    let mut clean = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if clean.len() + c.len_utf8() > MAX_QUOTED {
            break;
        }
        clean.push(c);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_text_is_cleaned_and_cut() {
        assert_eq!(sanitise("a\r\nb\u{1b}[31mc"), "ab[31mc");
        assert!(sanitise(&"ä".repeat(2000)).len() <= MAX_QUOTED);
    }

    #[test]
    fn only_our_own_configuration_is_terminal() {
        let error = |failure| RegistryError::new("GET https://r.example/v2/a/manifests/b".into(), failure);
        assert!(!error(Failure::InsecureCredential).retryable());
        assert!(error(Failure::NotAccepted { fresh: true }).retryable());
        assert!(error(Failure::Denied).is_authentication());
        assert_eq!(
            error(Failure::NotFound {
                code: Some("NAME_UNKNOWN")
            })
            .to_string(),
            "GET https://r.example/v2/a/manifests/b: not found (404: NAME_UNKNOWN)"
        );
    }
}
