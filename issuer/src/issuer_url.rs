//! The issuer URL: the `iss` of every JWT-SVID and the place where verifiers look for discovery. It keeps the configured
//! text byte for byte, because verifiers compare it so, and offers the two forms that the published paths are built from.
//! Parsing fails with the rule that was broken.

use std::fmt;

use serde::Serialize;
use url::{Host, Url};

/// The configured issuer (`OpenID` Connect Discovery §3, RFC 8414 §2): https, or http on loopback; no query, no fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(into = "String")]
pub struct IssuerUrl {
    text: String,
    path: String,
}

/// Why a text is not an issuer URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssuerUrlError {
    /// Not a URL at all.
    #[error("the issuer is not a URL: {0}")]
    Invalid(String),
    /// Written in a form that a verifier may rewrite, e.g. with capital letters in the host or a default port.
    #[error("the issuer is not in normal form; write it as {0:?}")]
    NotNormal(String),
    /// A scheme that no verifier follows.
    #[error("the issuer's scheme is {0:?}; it must be https")]
    Scheme(String),
    /// Plain http to a host that is not loopback; the caller may override this one.
    #[error("the issuer is plain http and its host {0:?} is not loopback: anybody on the path could replace the keys")]
    Insecure(String),
    /// A user name or password in the URL.
    #[error("the issuer must not contain a user name or password")]
    UserInfo,
    /// A query (`?…`), which discovery forbids.
    #[error("the issuer must not have a query")]
    Query,
    /// A fragment (`#…`), which discovery forbids.
    #[error("the issuer must not have a fragment")]
    Fragment,
}

impl IssuerUrl {
    /// Parses the issuer; with `allow_insecure`, http is allowed to any host.
    pub fn parse(text: &str, allow_insecure: bool) -> Result<Self, IssuerUrlError> {
        let url = Url::parse(text).map_err(|error| IssuerUrlError::Invalid(error.to_string()))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(IssuerUrlError::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(IssuerUrlError::UserInfo);
        }
        if url.query().is_some() {
            return Err(IssuerUrlError::Query);
        }
        if url.fragment().is_some() {
            return Err(IssuerUrlError::Fragment);
        }
        // `Url` writes the root path as "/", which a configured issuer may leave out.
        if url.as_str() != text && url.as_str().strip_suffix('/') != Some(text) {
            return Err(IssuerUrlError::NotNormal(url.into()));
        }
        if url.scheme() == "http" && !allow_insecure && !is_loopback(&url) {
            return Err(IssuerUrlError::Insecure(url.host_str().unwrap_or_default().to_owned()));
        }
        let path = url.path().strip_suffix('/').unwrap_or(url.path()).to_owned();
        Ok(Self {
            text: text.to_owned(),
            path,
        })
    }

    /// The issuer byte for byte as configured: the `iss` claim and discovery's `issuer`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// *I*: the issuer without a trailing slash, to append published paths to.
    pub fn base(&self) -> &str {
        self.text.strip_suffix('/').unwrap_or(&self.text)
    }

    /// *P*: the issuer's path without a trailing slash; empty for an issuer at the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether verifiers reach the issuer over TLS.
    pub fn is_https(&self) -> bool {
        self.text.starts_with("https:")
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<IssuerUrl> for String {
    fn from(issuer: IssuerUrl) -> Self {
        issuer.text
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::root("https://issuer.example", "https://issuer.example", "")]
    #[case::root_with_slash("https://issuer.example/", "https://issuer.example", "")]
    #[case::path("https://issuer.example/a/b", "https://issuer.example/a/b", "/a/b")]
    #[case::path_with_slash("https://issuer.example:8443/a/", "https://issuer.example:8443/a", "/a")]
    #[case::loopback_v4("http://127.0.0.1:9080", "http://127.0.0.1:9080", "")]
    #[case::loopback_v6("http://[::1]:9080/x", "http://[::1]:9080/x", "/x")]
    #[case::localhost("http://localhost:9080", "http://localhost:9080", "")]
    fn accepts_and_keeps_the_text(#[case] text: &str, #[case] base: &str, #[case] path: &str) {
        let issuer = IssuerUrl::parse(text, false).expect("accepted");
        assert_eq!((issuer.as_str(), issuer.base(), issuer.path()), (text, base, path));
    }

    #[rstest]
    #[case::not_a_url("issuer.example", IssuerUrlError::Invalid("relative URL without a base".into()))]
    #[case::scheme("ftp://issuer.example", IssuerUrlError::Scheme("ftp".into()))]
    #[case::plain_http("http://issuer.example", IssuerUrlError::Insecure("issuer.example".into()))]
    #[case::query("https://issuer.example/?a=b", IssuerUrlError::Query)]
    #[case::empty_query("https://issuer.example/?", IssuerUrlError::Query)]
    #[case::fragment("https://issuer.example/#x", IssuerUrlError::Fragment)]
    #[case::userinfo("https://me@issuer.example/", IssuerUrlError::UserInfo)]
    #[case::password("https://:pw@issuer.example/", IssuerUrlError::UserInfo)]
    #[case::capital_host("https://Issuer.example", IssuerUrlError::NotNormal("https://issuer.example/".into()))]
    #[case::default_port("https://issuer.example:443/", IssuerUrlError::NotNormal("https://issuer.example/".into()))]
    #[case::dot_segment("https://issuer.example/a/../b", IssuerUrlError::NotNormal("https://issuer.example/b".into()))]
    fn refuses(#[case] text: &str, #[case] expected: IssuerUrlError) {
        assert_eq!(IssuerUrl::parse(text, false), Err(expected));
    }

    #[test]
    fn plain_http_can_be_allowed() {
        assert!(IssuerUrl::parse("http://issuer.example", true).is_ok());
    }
}
