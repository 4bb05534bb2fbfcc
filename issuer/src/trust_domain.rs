//! The trust domain: the first part of every SPIFFE ID that is minted here. It is parsed once, from a flag or from a
//! stored document, and cannot hold a bad name afterwards. Parsing fails with the rule that was broken.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest trust domain name in bytes (SPIFFE-ID §2.1).
const MAX_LENGTH: usize = 255;

/// A trust domain name (SPIFFE-ID §2.1): 1–255 bytes of `[a-z0-9._-]`, labels between dots not empty.
///
/// Stricter than the standard's parsing rule in two points: capital letters are refused, not folded, because the name is
/// compared byte for byte by many verifiers, and empty labels are refused, because registries read it as a DNS name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

/// Why a text is not a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustDomainError {
    /// Nothing was given.
    #[error("the trust domain is empty")]
    Empty,
    /// More than 255 bytes.
    #[error("the trust domain has {0} bytes; at most {MAX_LENGTH} are allowed")]
    TooLong(usize),
    /// A URI was given where only the name belongs.
    #[error("give the trust domain's name alone, without `spiffe://` and without a path")]
    Uri,
    /// A capital letter.
    #[error("the trust domain contains the capital letter {0:?}; write it in lower case")]
    CapitalLetter(char),
    /// A character outside `[a-z0-9._-]`.
    #[error("the trust domain contains {0:?}; allowed are a-z, 0-9, `.`, `_` and `-`")]
    Character(char),
    /// The name ends with a dot.
    #[error("the trust domain ends with a dot")]
    TrailingDot,
    /// Two dots in a row, or a dot at the start.
    #[error("the trust domain has an empty label (a dot at the start, or two dots in a row)")]
    EmptyLabel,
}

impl TrustDomain {
    /// Parses a name such as `example.org`.
    pub fn parse(name: &str) -> Result<Self, TrustDomainError> {
        if name.is_empty() {
            return Err(TrustDomainError::Empty);
        }
        if name.contains("://") || name.contains('/') {
            return Err(TrustDomainError::Uri);
        }
        if let Some(found) = name
            .chars()
            .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-'))
        {
            return Err(match found {
                'A'..='Z' => TrustDomainError::CapitalLetter(found),
                _ => TrustDomainError::Character(found),
            });
        }
        if name.len() > MAX_LENGTH {
            return Err(TrustDomainError::TooLong(name.len()));
        }
        if name.ends_with('.') {
            return Err(TrustDomainError::TrailingDot);
        }
        if name.split('.').any(str::is_empty) {
            return Err(TrustDomainError::EmptyLabel);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name, e.g. `example.org`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The SPIFFE ID of the trust domain itself, e.g. `spiffe://example.org`.
    pub fn id(&self) -> String {
        format!("spiffe://{}", self.0)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = TrustDomainError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::parse(name)
    }
}

impl TryFrom<String> for TrustDomain {
    type Error = TrustDomainError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        Self::parse(&name)
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case::empty("", TrustDomainError::Empty)]
    #[case::scheme("spiffe://example.org", TrustDomainError::Uri)]
    #[case::path("example.org/x", TrustDomainError::Uri)]
    #[case::capital_letter("Example.org", TrustDomainError::CapitalLetter('E'))]
    #[case::port("example.org:8080", TrustDomainError::Character(':'))]
    #[case::userinfo("me@example.org", TrustDomainError::Character('@'))]
    #[case::percent_encoding("example%2eorg", TrustDomainError::Character('%'))]
    #[case::space("example org", TrustDomainError::Character(' '))]
    #[case::not_ascii("exämple.org", TrustDomainError::Character('ä'))]
    #[case::trailing_dot("example.org.", TrustDomainError::TrailingDot)]
    #[case::leading_dot(".example.org", TrustDomainError::EmptyLabel)]
    #[case::two_dots("example..org", TrustDomainError::EmptyLabel)]
    fn refuses(#[case] name: &str, #[case] expected: TrustDomainError) {
        assert_eq!(TrustDomain::parse(name), Err(expected));
    }

    #[test]
    fn refuses_more_than_255_bytes() {
        assert!(TrustDomain::parse(&"a".repeat(255)).is_ok());
        assert_eq!(
            TrustDomain::parse(&"a".repeat(256)),
            Err(TrustDomainError::TooLong(256))
        );
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_accepted_by_the_spiffe_crate_unchanged(name in "[a-zA-Z0-9._%:/-]{0,24}") {
            if let Ok(domain) = TrustDomain::parse(&name) {
                let theirs = spiffe::TrustDomain::new(domain.as_str()).expect("a valid trust domain");
                prop_assert_eq!(theirs.as_str(), domain.as_str());
                prop_assert_eq!(theirs.id_string(), domain.id());
            }
        }

        #[test]
        fn every_well_formed_name_is_accepted(name in "[a-z0-9_-]{1,12}(\\.[a-z0-9_-]{1,12}){0,4}") {
            prop_assert!(TrustDomain::parse(&name).is_ok());
        }
    }
}
