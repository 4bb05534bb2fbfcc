//! A version, read loosely: a leading `v`, leading zeros and a missing minor or patch are fine. Its order is that of
//! Semantic Versioning 2.0.0 §11; build metadata is checked and then forgotten.

use std::cmp::Ordering;

use super::scan;

/// Longest text of a version, in bytes.
const MAX_LEN: usize = 256;

/// A version without its build metadata. Equal versions may have come from different texts (`1.2.3`, `v01.2.3+a`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub(super) major: u64,
    pub(super) minor: u64,
    pub(super) patch: u64,
    pub(super) pre: Prerelease,
}

/// Identifiers between dots; empty for a release, which comes after its prereleases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Prerelease(Box<str>);

/// One identifier of a prerelease. A number that takes more than 64 bits counts as text, as it does in Go.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Identifier<'a> {
    Number(u64),
    Text(&'a str),
}

impl Version {
    /// Reads `[v]major[.minor[.patch]][-prerelease][+metadata]`: at most 256 bytes, numbers below 2⁶⁴, no numeric identifier
    /// of the prerelease with a leading zero.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > MAX_LEN {
            return None;
        }
        let (parts, rest) = scan::parts(text, |byte| byte.is_ascii_digit())?;
        if !rest.is_empty() {
            return None;
        }
        let number = |text: Option<&str>| text.map_or(Some(0), |digits| digits.parse().ok());
        Some(Self {
            major: number(Some(parts.major))?,
            minor: number(parts.minor)?,
            patch: number(parts.patch)?,
            pre: Prerelease::new(parts.pre)?,
        })
    }

    /// Reads a tag the way Flux does: as [`Self::parse`], but only with three parts between dots or more, so that `1.2` and
    /// `20240101` are no versions (and `1.2-rc.1`, oddly, is one).
    pub fn of_tag(tag: &str) -> Option<Self> {
        if tag.split('.').count() < 3 {
            return None;
        }
        Self::parse(tag)
    }
}

impl Prerelease {
    fn new(text: &str) -> Option<Self> {
        let zero_led = |identifier: &str| {
            identifier.len() > 1 && identifier.starts_with('0') && identifier.bytes().all(|byte| byte.is_ascii_digit())
        };
        (!text.split('.').any(zero_led)).then(|| Self(text.into()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn identifiers(&self) -> impl Iterator<Item = Identifier<'_>> {
        self.0
            .split('.')
            .map(|text| text.parse().map_or(Identifier::Text(text), Identifier::Number))
    }
}

impl PartialOrd for Prerelease {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Prerelease {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self.is_empty(), other.is_empty()) {
            (false, false) => self.identifiers().cmp(other.identifiers()),
            (mine, others) => mine.cmp(&others),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of Semantic Versioning 2.0.0 §11.4.4.
    #[test]
    fn precedence_of_the_standard() {
        let texts = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
        ];
        let versions = texts.map(|text| Version::parse(text).unwrap());
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    }

    #[test]
    fn a_tag_has_three_parts() {
        for tag in ["1.2", "20240101", "v1"] {
            assert_eq!(Version::of_tag(tag), None, "{tag}");
            assert!(Version::parse(tag).is_some(), "{tag}");
        }
        assert_eq!(Version::of_tag("v01.2.3+b"), Version::parse("1.2.3"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = Version::of_tag(&text);
            prop_assert!(Version::parse(&text).is_none_or(|version| version == version.clone()));
        }

        #[test]
        fn what_the_standard_allows_is_read_and_ordered(
            numbers in any::<[u64; 3]>(), pre in "(-(0|[1-9][0-9]{0,25}|[a-z-][0-9a-z-]*)(\\.(0|[1-9][0-9]{0,25}|[a-z-][0-9a-z-]*)){0,3})?",
            others in any::<[u64; 3]>(), metadata in "(\\+[0-9a-z-]+)?",
        ) {
            let [major, minor, patch] = numbers;
            let version = Version::parse(&format!("v0{major}.{minor}.{patch}{pre}{metadata}")).unwrap();
            let release = Version::parse(&format!("{major}.{minor}.{patch}")).unwrap();
            prop_assert_eq!(version < release, !pre.is_empty());
            let [major, minor, patch] = others;
            let other = Version::parse(&format!("{major}.{minor}.{patch}{pre}")).unwrap();
            prop_assert_eq!(version.cmp(&other), numbers.cmp(&others));
            prop_assert_eq!(version.cmp(&other), other.cmp(&version).reverse());
        }
    }
}
