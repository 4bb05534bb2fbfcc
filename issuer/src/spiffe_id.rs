//! SPIFFE IDs of Kubernetes objects. An ID is built from the object's plural, namespace and name, and from nothing that a
//! tenant could write into `spec` or `status`. Building fails when a part is not a path segment or the ID is too long.

use std::fmt;

use crate::TrustDomain;

/// Longest SPIFFE ID in bytes (SPIFFE-ID §2.3).
const MAX_LENGTH: usize = 2048;
/// Longest `sub` that `OpenID` Connect Core §2 lets a verifier rely on, in ASCII characters.
const OIDC_SUBJECT_LENGTH: usize = 255;

/// The SPIFFE ID `spiffe://<trust domain>/<plural>/<namespace>/<name>` of one object, at most 2048 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    id: spiffe::SpiffeId,
    text: String,
}

/// Why no SPIFFE ID can be made.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SpiffeIdError {
    /// A part of the ID breaks a rule of SPIFFE-ID §2.2.
    #[error("no SPIFFE ID can be made of {part} {value:?}: {source}")]
    Segment {
        /// Which part: `kind`, `namespace` or `name`.
        part: &'static str,
        /// Its value.
        value: String,
        /// The rule.
        source: spiffe::SpiffeIdError,
    },
    /// The parts are fine, their sum is not.
    #[error("the SPIFFE ID would have {0} bytes; at most {MAX_LENGTH} are allowed")]
    TooLong(usize),
    /// The text is not a SPIFFE ID.
    #[error("not a SPIFFE ID: {0}")]
    Invalid(#[from] spiffe::SpiffeIdError),
}

impl SpiffeId {
    /// The ID of an object, e.g. `spiffe://example.org/ocirepositories/tenant-a/app`.
    ///
    /// `plural` is the resource's plural in lower case; `namespace` and `name` are the object's own.
    pub fn for_object(domain: &TrustDomain, plural: &str, namespace: &str, name: &str) -> Result<Self, SpiffeIdError> {
        let authority = spiffe::TrustDomain::new(domain.as_str())?;
        for (part, value) in [("kind", plural), ("namespace", namespace), ("name", name)] {
            spiffe::SpiffeId::from_segments(authority.clone(), &[value]).map_err(|source| match source {
                spiffe::SpiffeIdError::SpiffeIdTooLong { .. } => SpiffeIdError::TooLong(value.len()),
                source => SpiffeIdError::Segment {
                    part,
                    value: value.to_owned(),
                    source,
                },
            })?;
        }
        let text = format!("spiffe://{domain}/{plural}/{namespace}/{name}");
        if text.len() > MAX_LENGTH {
            return Err(SpiffeIdError::TooLong(text.len()));
        }
        let id = spiffe::SpiffeId::from_segments(authority, &[plural, namespace, name])?;
        Ok(Self { id, text })
    }

    /// Reads an ID that somebody else wrote, e.g. the subject of a token; at most 2048 bytes.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        if text.len() > MAX_LENGTH {
            return Err(SpiffeIdError::TooLong(text.len()));
        }
        let id = spiffe::SpiffeId::new(text)?;
        Ok(Self {
            text: id.to_string(),
            id,
        })
    }

    /// The whole ID.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        self.id.trust_domain_name()
    }

    /// The path, with its leading slash.
    pub fn path(&self) -> &str {
        self.id.path()
    }

    /// Whether the ID is longer than the 255 characters that `OpenID` Connect Core §2 promises for `sub`. SPIFFE allows it;
    /// a verifier that cuts there would confuse two objects, so the caller warns.
    pub fn exceeds_oidc_subject(&self) -> bool {
        self.text.len() > OIDC_SUBJECT_LENGTH
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn domain() -> TrustDomain {
        TrustDomain::parse("example.org").expect("trust domain")
    }

    #[test]
    fn names_the_object() {
        let id = SpiffeId::for_object(&domain(), "ocirepositories", "tenant-a", "app.v1").expect("id");
        assert_eq!(id.as_str(), "spiffe://example.org/ocirepositories/tenant-a/app.v1");
        assert_eq!(SpiffeId::parse(id.as_str()), Ok(id));
    }

    #[rstest]
    #[case::empty_namespace("", "app", "namespace")]
    #[case::slash_in_name("ns", "a/b", "name")]
    #[case::dot_segment("ns", "..", "name")]
    #[case::percent("ns", "a%2fb", "name")]
    #[case::space("n s", "app", "namespace")]
    fn refuses(#[case] namespace: &str, #[case] name: &str, #[case] expected: &str) {
        let error = SpiffeId::for_object(&domain(), "ocirepositories", namespace, name).expect_err("refused");
        assert!(
            matches!(error, SpiffeIdError::Segment { part, .. } if part == expected),
            "{error}"
        );
    }

    #[test]
    fn refuses_more_than_2048_bytes() {
        let fixed = "spiffe://example.org/ocirepositories/ns/".len();
        let fits = "a".repeat(2048 - fixed);
        assert!(SpiffeId::for_object(&domain(), "ocirepositories", "ns", &fits).is_ok());
        let long = SpiffeId::for_object(&domain(), "ocirepositories", "ns", &format!("{fits}a"));
        assert_eq!(long, Err(SpiffeIdError::TooLong(2049)));
    }

    #[test]
    fn tells_when_oidc_may_cut_the_subject() {
        let fixed = "spiffe://example.org/ocirepositories/ns/".len();
        let id = |length: usize| SpiffeId::for_object(&domain(), "ocirepositories", "ns", &"a".repeat(length - fixed));
        assert!(!id(255).expect("id").exceeds_oidc_subject());
        assert!(id(256).expect("id").exceeds_oidc_subject());
    }

    proptest! {
        #[test]
        fn different_objects_have_different_ids(
            a in "[a-z0-9./-]{1,8}", b in "[a-z0-9./-]{1,8}", c in "[a-z0-9./-]{1,8}", d in "[a-z0-9./-]{1,8}",
        ) {
            let first = SpiffeId::for_object(&domain(), "ocirepositories", &a, &b);
            let second = SpiffeId::for_object(&domain(), "ocirepositories", &c, &d);
            if let (Ok(first), Ok(second)) = (first, second) {
                prop_assert_eq!(first == second, (a, b) == (c, d));
            }
        }
    }
}
