//! The names that become parts of storage paths, each checked before it can. A path is never put together from
//! anything else, so none can leave its directory.

use std::fmt;

use super::error::StorageError;

/// Namespace and name of an object whose artifact is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    namespace: Box<str>,
    name: Box<str>,
}

impl ObjectKey {
    /// Takes a namespace (RFC 1123 label, 63 characters) and a name (RFC 1123 subdomain, 253 characters).
    pub fn new(namespace: &str, name: &str) -> Result<Self, StorageError> {
        if !is_label(namespace) {
            return Err(StorageError::InvalidName(shown(namespace)));
        }
        if name.len() > 253 || !name.split('.').all(is_alphanumeric_bounded) {
            return Err(StorageError::InvalidName(shown(name)));
        }
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    /// The object's namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn shown(name: &str) -> String {
    name.escape_default().take(80).collect()
}

fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_alphanumeric_bounded(text)
}

/// Lower-case letters, digits and `-`, neither first nor last of them `-`.
fn is_alphanumeric_bounded(text: &str) -> bool {
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.as_bytes().iter().all(inner)
}

/// What follows the digest in an artifact's file name.
const SUFFIX: &str = ".tar.gz";

/// `<algorithm>:<hex>.tar.gz`, from what follows the last `@` of a revision.
pub(super) fn file_name(revision: &str) -> Result<String, StorageError> {
    let digest = revision.rsplit('@').next().unwrap_or_default();
    if is_digest(digest) {
        Ok(format!("{digest}{SUFFIX}"))
    } else {
        Err(StorageError::InvalidRevision(
            revision.escape_default().take(200).collect(),
        ))
    }
}

fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else {
        return false;
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("ns", "name", true)]
    #[case("ns-1", "a.b-c.d", true)]
    #[case("", "name", false)]
    #[case("ns", "", false)]
    #[case("..", "name", false)]
    #[case("ns", "..", false)]
    #[case("ns", ".", false)]
    #[case("ns", "a..b", false)]
    #[case("ns", "a/b", false)]
    #[case("ns/x", "a", false)]
    #[case("ns.x", "a", false)]
    #[case("ns", ".record.json", false)]
    #[case("ns", "UPPER", false)]
    #[case("ns", "-a", false)]
    #[case("ns", "a\0", false)]
    fn only_kubernetes_names_become_paths(#[case] namespace: &str, #[case] name: &str, #[case] good: bool) {
        assert_eq!(ObjectKey::new(namespace, name).is_ok(), good);
    }

    #[test]
    fn lengths_are_those_of_kubernetes() {
        assert!(ObjectKey::new(&"n".repeat(63), &"n".repeat(253)).is_ok());
        assert!(ObjectKey::new(&"n".repeat(64), "n").is_err());
        assert!(ObjectKey::new("n", &"n".repeat(254)).is_err());
    }

    #[test]
    fn file_name_is_the_digest_of_the_revision() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for revision in [digest.clone(), format!("v1.0@{digest}"), format!("a@b@{digest}")] {
            assert_eq!(file_name(&revision).unwrap(), format!("{digest}.tar.gz"));
        }
        for bad in [
            "",
            "v1",
            "latest@",
            "sha256:",
            "sha256:zz",
            "x@sha256:../../etc",
            &digest.to_uppercase(),
        ] {
            assert!(matches!(file_name(bad), Err(StorageError::InvalidRevision(_))), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn file_names_never_hold_a_slash(revision in ".{0,90}") {
            if let Ok(name) = file_name(&revision) {
                prop_assert!(!name.contains('/'));
            }
        }
    }
}
