//! `exclusionList`: regular expressions of tags that are left out, found anywhere in the tag unless they are anchored.

use std::sync::LazyLock;

use mintmark_api::image_repository::DEFAULT_EXCLUSION_LIST;

use crate::semver::{FilterError, TagFilter};

/// The default list, which most objects have: compiling it for each scan cost as much as finding it in 1,000 tags.
static DEFAULT: LazyLock<Result<Exclusions, ExclusionError>> =
    LazyLock::new(|| Exclusions::compile(&DEFAULT_EXCLUSION_LIST));

/// The patterns of one object. Clones share what is compiled but not the space to match in, so that scans at the same time
/// are not in each other's way.
#[derive(Debug, Clone, Default)]
pub struct Exclusions(Vec<TagFilter>);

/// A pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to compile regex {pattern}: {error}")]
pub struct ExclusionError {
    /// As it was written.
    pub pattern: String,
    /// What is wrong with it.
    pub error: FilterError,
}

impl Exclusions {
    /// Compiles patterns of at most 1 KiB each, into at most 1 MiB each.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, ExclusionError> {
        let patterns: Vec<&str> = patterns.into_iter().collect();
        if patterns == DEFAULT_EXCLUSION_LIST {
            DEFAULT.clone()
        } else {
            Self::compile(&patterns)
        }
    }

    fn compile(patterns: &[&str]) -> Result<Self, ExclusionError> {
        let compile = |pattern: &&str| {
            TagFilter::new(pattern).map_err(|error| ExclusionError {
                pattern: (*pattern).to_owned(),
                error,
            })
        };
        patterns.iter().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of the patterns is found in the tag.
    pub fn excludes(&self, tag: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_pattern_is_enough_and_need_not_be_anchored() {
        let exclusions = Exclusions::new(["-rc", "^test-"]).unwrap();
        assert!(exclusions.excludes("1.0.0-rc.1") && exclusions.excludes("test-7"));
        assert!(!exclusions.excludes("latest-7"));
        assert!(!Exclusions::default().excludes("a"));
    }

    #[test]
    fn the_default_leaves_signatures_out() {
        let exclusions = Exclusions::new(DEFAULT_EXCLUSION_LIST).unwrap();
        assert!(exclusions.excludes("sha256-0011.sig"));
        assert!(!exclusions.excludes("1.0.sig.2"));
    }

    #[test]
    fn a_bad_pattern_is_quoted() {
        assert_eq!(
            Exclusions::new(["a", "("]).unwrap_err().to_string(),
            "failed to compile regex (: not a regular expression: unclosed group"
        );
    }
}
