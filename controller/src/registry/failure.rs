//! Reads the meaning out of an HTTP library error or a response status.
//!
//! `reqwest` errors print whole URLs, queries included, so none of their text is used: only the types along the chain of
//! causes count, and for one without a public type the fixed text.

use std::{
    error::Error,
    io,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use rustls::{AlertDescription, CertificateError};
use serde::Deserialize;

use super::{address::AddressDenied, error::Failure, tls::NotAsked};

/// What a failed request means. `issuer` is the CA's name when a client certificate was presented.
pub(super) fn of_error(error: &reqwest::Error, host: &str, issuer: Option<&str>) -> Failure {
    for cause in causes(error) {
        if cause.is::<NotAsked>() {
            return Failure::NoCertificateRequest;
        }
        if is_proxy_refusal(cause) {
            return Failure::ProxyRefused;
        }
        if let Some(reason) = cause.downcast_ref::<AddressDenied>() {
            return of_denied(*reason, host);
        }
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return of_tls(tls, issuer);
        }
    }
    if error.is_connect() && !causes(error).any(is_cut) {
        Failure::Unreachable
    } else {
        Failure::ConnectionLost
    }
}

/// Whether a proxy answered 407 to CONNECT: hyper-util's `TunnelError`, which has no public name.
fn is_proxy_refusal(cause: &(dyn Error + 'static)) -> bool {
    cause.source().is_none() && cause.to_string() == "tunnel error: proxy authorization required"
}

/// Whether a connection existed and was cut. A handshake that ends like this may be about one client's certificate and says
/// nothing about the host.
fn is_cut(cause: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    cause.downcast_ref::<io::Error>().is_some_and(|error| {
        matches!(
            error.kind(),
            ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof
        )
    })
}

/// A peer that is not loopback is about the token, not about the address.
pub(super) fn of_denied(reason: AddressDenied, host: &str) -> Failure {
    match reason {
        AddressDenied::NotLoopback => Failure::InsecureCredential,
        reason => Failure::AddressDenied {
            host: host.to_owned(),
            reason,
        },
    }
}

/// The chain of causes, looking inside `io::Error`, whose own `source` skips the error it wraps.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    fn next<'a>(error: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    }
    std::iter::successors(Some(error), next)
}

fn of_tls(error: &rustls::Error, issuer: Option<&str>) -> Failure {
    match (error, issuer) {
        (rustls::Error::AlertReceived(alert), Some(issuer)) => match client_certificate_alert(*alert) {
            Some(alert) => Failure::CertificateRefused {
                issuer: issuer.to_owned(),
                alert,
            },
            None => Failure::Tls,
        },
        (rustls::Error::InvalidCertificate(reason), _) => Failure::ServerCertificate(certificate_reason(reason)),
        _ => Failure::Tls,
    }
}

/// Alerts by which servers refuse a client certificate (RFC 8446 §6.2). TLS 1.3 ones arrive after our side of the handshake.
fn client_certificate_alert(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::BadCertificate => "bad_certificate",
        AlertDescription::UnsupportedCertificate => "unsupported_certificate",
        AlertDescription::CertificateRevoked => "certificate_revoked",
        AlertDescription::CertificateExpired => "certificate_expired",
        AlertDescription::CertificateUnknown => "certificate_unknown",
        AlertDescription::UnknownCA => "unknown_ca",
        AlertDescription::AccessDenied => "access_denied",
        AlertDescription::DecryptError => "decrypt_error",
        AlertDescription::HandshakeFailure => "handshake_failure",
        AlertDescription::CertificateRequired => "certificate_required",
        _ => return None,
    })
}

fn certificate_reason(reason: &CertificateError) -> &'static str {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "not yet valid",
        CertificateError::UnknownIssuer => "unknown issuer",
        // A CA of the same name, but with another key.
        CertificateError::BadSignature => "signed with a key that is not trusted",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "issued for another name"
        }
        CertificateError::Revoked => "revoked",
        _ => "unusable",
    }
}

/// What a status other than success, redirect and 401 means.
pub(super) fn of_status(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    anonymous: bool,
    now: SystemTime,
) -> Failure {
    match status.as_u16() {
        403 if anonymous => Failure::DeniedAnonymous,
        403 => Failure::Denied,
        407 => Failure::ProxyRefused,
        404 => Failure::NotFound { code: error_code(body) },
        429 => Failure::RateLimited {
            retry_after: retry_after(headers, now),
        },
        408 | 500..=599 => Failure::Unavailable {
            status: status.as_u16(),
            retry_after: retry_after(headers, now),
        },
        status => Failure::UnexpectedStatus { status },
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    Some(
        httpdate::parse_http_date(text)
            .ok()?
            .duration_since(now)
            .unwrap_or_default(),
    )
}

/// The registry's error code, if it is one of the distribution specification's; nothing else of a body is ever quoted.
/// Both forms occur: `{"errors": [{"code": …}]}` and the bare `{"code": …}`.
fn error_code(body: &[u8]) -> Option<&'static str> {
    const CODES: [&str; 8] = [
        "NAME_UNKNOWN",
        "MANIFEST_UNKNOWN",
        "BLOB_UNKNOWN",
        "NAME_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "DIGEST_INVALID",
        "UNSUPPORTED",
        "DENIED",
    ];
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Code>,
        code: Option<String>,
    }
    #[derive(Deserialize)]
    struct Code {
        code: String,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    let code = body.errors.into_iter().next().map(|error| error.code).or(body.code)?;
    CODES.into_iter().find(|known| *known == code)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::errors(
        r#"{"errors":[{"code":"NAME_UNKNOWN","message":"secret","detail":{}}]}"#,
        Some("NAME_UNKNOWN")
    )]
    #[case::bare(
        r#"{"code":"MANIFEST_UNKNOWN","message":"m","detail":null}"#,
        Some("MANIFEST_UNKNOWN")
    )]
    #[case::foreign(r#"{"errors":[{"code":"eyJhbGciOi"}]}"#, None)]
    #[case::html("<html>", None)]
    fn error_codes(#[case] body: &str, #[case] expected: Option<&str>) {
        assert_eq!(error_code(body.as_bytes()), expected);
    }

    #[rstest]
    #[case("7", Some(7))]
    #[case("Sun, 06 Nov 1994 08:49:47 GMT", Some(10))]
    #[case("Sun, 06 Nov 1994 08:49:27 GMT", Some(0))]
    #[case("soon", None)]
    fn both_forms_of_retry_after(#[case] text: &str, #[case] expected: Option<u64>) {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, text.parse().unwrap());
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs));
    }

    #[test]
    fn an_alert_without_a_certificate_of_ours_is_just_tls() {
        let alert = rustls::Error::AlertReceived(AlertDescription::UnknownCA);
        assert!(matches!(of_tls(&alert, None), Failure::Tls));
        let refused = of_tls(&alert, Some("Tenant CA"));
        assert_eq!(
            refused.to_string(),
            "registry does not accept the client certificate issued by 'Tenant CA' (TLS alert unknown_ca: CA unknown there, or certificate not valid there)"
        );
    }
}
