//! Which version of a repository's content an object asks for: a digest, a semver range, a tag, or the tag `latest`.
//!
//! [`OciRepositoryRef::selection`] applies the precedence of the fields; [`Tag`] is the grammar of the OCI distribution
//! specification.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The tag that is pulled when nothing is selected.
pub const DEFAULT_TAG: &str = "latest";

/// Longest tag of the OCI distribution specification, in bytes.
pub const MAX_TAG_LEN: usize = 128;

/// Selects the version to pull. Fields later in the list are ignored when an earlier one is set: digest, semver, tag.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OciRepositoryRef {
    /// Digest of the manifest to pull, as `sha256:<hex>`. Takes precedence over `semver` and `tag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Range of versions; the newest tag within it is pulled. Takes precedence over `tag`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semver: Option<String>,
    /// Regular expression that tags must match before `semver` is applied. Meaningful with `semver` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semver_filter: Option<String>,
    /// Tag to pull; `latest` when nothing is selected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
}

/// The one field of an [`OciRepositoryRef`] that counts. The texts are as the user wrote them, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection<'a> {
    /// Pull exactly this manifest.
    Digest(&'a str),
    /// Pull the newest tag in a range.
    Semver {
        /// The range.
        range: &'a str,
        /// Regular expression on the raw tags.
        filter: Option<&'a str>,
    },
    /// Pull a tag.
    Tag(&'a str),
}

impl OciRepositoryRef {
    /// Applies the precedence digest, semver, tag, `latest`. Empty strings count as absent.
    pub fn selection(&self) -> Selection<'_> {
        let filled = |field: &'_ Option<String>| field.as_deref().is_some_and(|text| !text.is_empty());
        match (&self.digest, &self.semver, &self.tag) {
            (Some(digest), _, _) if filled(&self.digest) => Selection::Digest(digest),
            (_, Some(range), _) if filled(&self.semver) => {
                let filter = self.semver_filter.as_deref().filter(|text| !text.is_empty());
                Selection::Semver { range, filter }
            }
            (_, _, Some(tag)) if filled(&self.tag) => Selection::Tag(tag),
            _ => Selection::Tag(DEFAULT_TAG),
        }
    }
}

/// A tag: `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

/// A text is not a tag.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a tag has 1 to 128 characters of A-Z a-z 0-9 . _ - and does not begin with . or -")]
pub struct TagError;

impl Tag {
    /// Parses a tag.
    pub fn parse(text: &str) -> Result<Self, TagError> {
        Self::is_valid(text).then(|| Self(text.to_owned())).ok_or(TagError)
    }

    /// Whether a text is a tag, for those that look at many.
    pub fn is_valid(text: &str) -> bool {
        let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        let starts = text.bytes().next().is_some_and(word);
        let continues = text.bytes().all(|c| word(c) || c == b'.' || c == b'-');
        starts && continues && text.len() <= MAX_TAG_LEN
    }

    /// The tag's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn reference(digest: &str, semver: &str, tag: &str) -> OciRepositoryRef {
        let some = |text: &str| Some(text.to_owned());
        OciRepositoryRef {
            digest: some(digest),
            semver: some(semver),
            semver_filter: None,
            tag: some(tag),
        }
    }

    #[rstest]
    #[case("sha256:00", "1.x", "v1", Selection::Digest("sha256:00"))]
    #[case("", "1.x", "v1", Selection::Semver { range: "1.x", filter: None })]
    #[case("", "", "v1", Selection::Tag("v1"))]
    #[case("", "", "", Selection::Tag("latest"))]
    fn precedence(#[case] digest: &str, #[case] semver: &str, #[case] tag: &str, #[case] selected: Selection<'_>) {
        assert_eq!(reference(digest, semver, tag).selection(), selected);
    }

    #[test]
    fn the_filter_goes_with_the_range_only() {
        let mut reference = reference("", ">= 1.0", "");
        reference.semver_filter = Some(".*-rc.*".to_owned());
        assert_eq!(
            reference.selection(),
            Selection::Semver {
                range: ">= 1.0",
                filter: Some(".*-rc.*")
            }
        );
        assert_eq!(OciRepositoryRef::default().selection(), Selection::Tag(DEFAULT_TAG));
    }

    #[rstest]
    #[case::empty("")]
    #[case::dot(".hidden")]
    #[case::dash("-x")]
    #[case::slash("a/b")]
    #[case::colon("a:b")]
    #[case::plus("1.0.0+build")]
    fn no_tag(#[case] text: &str) {
        assert_eq!(Tag::parse(text), Err(TagError));
    }

    #[test]
    fn length_is_bounded() {
        assert!(Tag::parse(&"a".repeat(128)).is_ok());
        assert_eq!(Tag::parse(&"a".repeat(129)), Err(TagError));
    }

    proptest! {
        #[test]
        fn the_grammar_is_accepted(text in "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}") {
            let tag = Tag::parse(&text).unwrap();
            prop_assert_eq!(tag.as_str(), text.as_str());
        }
    }
}
