//! Preselection of tags by a regular expression, anywhere in the tag unless it is anchored. Its cost is bounded: pattern and
//! compiled form have a limit, and matching takes time in proportion to both and the tag's length.

use regex::{Regex, RegexBuilder};

/// Longest pattern, in bytes.
const MAX_LEN: usize = 1024;
/// Largest compiled form, and largest cache beside it, in bytes.
const MAX_SIZE: usize = 1024 * 1024;

/// A regular expression on raw tags.
#[derive(Debug, Clone)]
pub struct TagFilter(Regex);

/// Why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// More than 1 KiB.
    #[error("the regular expression has more than {MAX_LEN} bytes")]
    TooLong,
    /// Its compiled form, with all repetitions written out, is larger than 1 MiB.
    #[error("the regular expression takes more than {MAX_SIZE} bytes once compiled")]
    TooLarge,
    /// Not a regular expression.
    #[error("not a regular expression: {0}")]
    Syntax(String),
}

impl TagFilter {
    /// Compiles a pattern of at most 1 KiB into at most 1 MiB.
    pub fn new(pattern: &str) -> Result<Self, FilterError> {
        if pattern.len() > MAX_LEN {
            return Err(FilterError::TooLong);
        }
        let built = RegexBuilder::new(pattern)
            .size_limit(MAX_SIZE)
            .dfa_size_limit(MAX_SIZE)
            .build();
        built.map(Self).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => FilterError::TooLarge,
            // Several lines that point into the pattern; the last says what is wrong.
            error => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default().trim();
                FilterError::Syntax(last.strip_prefix("error: ").unwrap_or(last).to_owned())
            }
        })
    }

    /// Whether the pattern is found in the tag.
    pub fn matches(&self, tag: &str) -> bool {
        self.0.is_match(tag)
    }

    /// Where the pattern is found in the tag, first and leftmost.
    pub fn find<'a>(&self, tag: &'a str) -> Option<TagMatch<'a>> {
        self.0.captures(tag).map(TagMatch)
    }
}

/// What the groups of a pattern matched.
#[derive(Debug)]
pub struct TagMatch<'a>(regex::Captures<'a>);

impl<'a> TagMatch<'a> {
    /// The text of a group by its position; 0 is the whole match. Empty where there is none.
    pub fn position(&self, position: usize) -> &'a str {
        self.0.get(position).map_or("", |found| found.as_str())
    }

    /// The text of a group by its name. Empty where there is none.
    pub fn name(&self, name: &str) -> &'a str {
        self.0.name(name).map_or("", |found| found.as_str())
    }
}

impl PartialEq for TagFilter {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for TagFilter {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_anchored() {
        let filter = TagFilter::new("-rc").unwrap();
        assert!(filter.matches("1.0.0-rc.1"));
        assert!(!filter.matches("1.0.0"));
        assert!(!TagFilter::new("^-rc$").unwrap().matches("1.0.0-rc.1"));
    }

    #[test]
    fn what_cannot_be_used_is_told_in_one_line() {
        let refused = |pattern: &str| TagFilter::new(pattern).unwrap_err();
        assert_eq!(refused("(").to_string(), "not a regular expression: unclosed group");
        assert_eq!(refused(&"a".repeat(1025)), FilterError::TooLong);
        assert_eq!(refused("((a{100}){100}){100}"), FilterError::TooLarge);
    }
}
