//! Constraints: groups of comparisons, with `||` between groups, and comma or white space within one.

use super::{
    comparator::{Comparator, OPERATORS},
    hyphen,
    scan::{self, SPACE},
    version::Version,
};

/// Longest constraint, in bytes.
const MAX_LEN: usize = 512;
/// Most groups.
const MAX_GROUPS: usize = 32;

/// Which versions are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    text: Box<str>,
    groups: Vec<Group>,
}

/// Why a text is no constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// More than 512 bytes.
    #[error("constraint string is too long (max {MAX_LEN} bytes)")]
    TooLong,
    /// More than 32 groups.
    #[error("too many constraint groups (max {MAX_GROUPS})")]
    TooManyGroups,
    /// This group cannot be read. The text is the user's own.
    #[error("improper constraint: {0:?}")]
    Improper(String),
}

/// Comparisons that have to hold all.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    comparators: Vec<Comparator>,
    /// Whether prereleases are looked at: one of the comparisons names one.
    prereleases: bool,
}

/// What stands for a number in a constraint. The bar belongs to it in Masterminds' grammar, which shows in hyphen ranges
/// and after a wild part only: elsewhere no number can be read from it.
pub(super) fn is_numeral(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'x' | b'X' | b'*' | b'|')
}

impl Constraint {
    /// Reads a constraint of at most 512 bytes and 32 groups.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        if text.len() > MAX_LEN {
            return Err(ConstraintError::TooLong);
        }
        let rewritten = hyphen::rewritten(text);
        if rewritten.split("||").count() > MAX_GROUPS {
            return Err(ConstraintError::TooManyGroups);
        }
        let group = |text: &str| Group::parse(text).ok_or_else(|| ConstraintError::Improper(text.to_owned()));
        Ok(Self {
            text: text.into(),
            groups: rewritten.split("||").map(group).collect::<Result<_, _>>()?,
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the version is wanted: by one group at least, and a prerelease only by one that names a prerelease.
    pub fn admits(&self, version: &Version) -> bool {
        self.groups.iter().any(|group| group.admits(version))
    }
}

impl Group {
    fn parse(text: &str) -> Option<Self> {
        let mut comparators = Vec::new();
        let mut rest = text.trim_start_matches(SPACE);
        loop {
            let (comparator, after) = comparison(rest)?;
            comparators.push(comparator);
            let next = after.trim_start_matches(SPACE);
            if next.is_empty() {
                break;
            }
            rest = match next.strip_prefix(',') {
                Some(next) => next.trim_start_matches(SPACE),
                None if next.len() < after.len() => next,
                None => return None,
            };
        }
        Some(Self {
            prereleases: comparators.iter().any(Comparator::names_prerelease),
            comparators,
        })
    }

    fn admits(&self, version: &Version) -> bool {
        (self.prereleases || version.pre.is_empty())
            && self.comparators.iter().all(|comparator| comparator.admits(version))
    }
}

/// The comparison at the beginning of `text`, and what follows it. White space after an operator belongs to it.
fn comparison(text: &str) -> Option<(Comparator, &str)> {
    let (operator, rest) = OPERATORS
        .iter()
        .find_map(|(spelling, operator)| Some((*operator, text.strip_prefix(spelling)?)))?;
    let (parts, rest) = scan::parts(rest.trim_start_matches(SPACE), is_numeral)?;
    Some((Comparator::new(operator, &parts)?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn admits(constraint: &str, version: &str) -> bool {
        let constraint = Constraint::parse(constraint).unwrap();
        constraint.admits(&Version::parse(version).unwrap())
    }

    #[rstest]
    #[case::both(">= 1.2, < 2", "1.9.0", "2.0.0")]
    #[case::space_means_and(">1.2 <2", "1.3.0", "1.2.9")]
    #[case::either("1.2.3 || 2.x", "2.7.0", "1.2.4")]
    #[case::hyphen("1.2 - 2.3", "2.3.9", "2.4.0")]
    #[case::partial_is_tilde("1.2", "1.2.9", "1.3.0")]
    #[case::equals_partial_is_tilde("= 1", "1.9.0", "2.0.0")]
    #[case::full_is_equality("1.2.3", "1.2.3+build", "1.2.4")]
    #[case::tilde("~1.2.3", "1.2.9", "1.3.0")]
    #[case::pessimistic("~>1", "1.9.0", "2.0.0")]
    #[case::caret("^1.2.3", "1.9.0", "2.0.0")]
    #[case::caret_of_zero("^0.2.3", "0.2.9", "0.3.0")]
    #[case::caret_of_zeros("^0.0.3", "0.0.3", "0.0.4")]
    #[case::wild("1.X", "1.9.0", "2.0.0")]
    #[case::not("!= 1.2", "1.3.0", "1.2.0")]
    #[case::reversed_spellings("=> 1.2 =< 1.3", "1.3.7", "1.4.0")]
    #[case::prerelease_named(">= 1.2.3-rc.1", "1.2.3-rc.2", "1.2.3-beta.1")]
    #[case::prerelease_not_named(">= 1", "1.2.3", "1.2.4-rc.1")]
    #[case::prerelease_by_group("<1 || >=1.0.0-0", "2.0.0-rc.1", "0.9.0-rc.1")]
    fn means(#[case] constraint: &str, #[case] inside: &str, #[case] outside: &str) {
        assert!(admits(constraint, inside), "{constraint} {inside}");
        assert!(!admits(constraint, outside), "{constraint} {outside}");
    }

    #[rstest]
    #[case::empty("", ConstraintError::Improper(String::new()))]
    #[case::word("latest", ConstraintError::Improper("latest".into()))]
    #[case::second_group("1.x || y", ConstraintError::Improper(" y".into()))]
    #[case::long(&"1 ".repeat(257), ConstraintError::TooLong)]
    #[case::groups(&"1||".repeat(32), ConstraintError::TooManyGroups)]
    fn refused(#[case] text: &str, #[case] error: ConstraintError) {
        assert_eq!(Constraint::parse(text), Err(error));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".*", version in "[0-9]{1,3}\\.[0-9]\\.[0-9](-[a-z0-9.-]{1,5})?") {
            if let (Ok(constraint), Some(version)) = (Constraint::parse(&text), Version::parse(&version)) {
                constraint.admits(&version);
            }
        }

        #[test]
        fn near_misses_are_read_or_refused(text in "[ ,|<>=!~^v*xX0-9.+a-]{0,40}", version in "[0-2]\\.[0-2]\\.[0-2](-a)?") {
            if let (Ok(constraint), Some(version)) = (Constraint::parse(&text), Version::parse(&version)) {
                constraint.admits(&version);
            }
        }

        #[test]
        fn a_caret_goes_up_to_the_next_major(wanted in [1..4_u64, 0..4, 0..4], offered in [0..5_u64, 0..5, 0..5]) {
            let text = |[major, minor, patch]: [u64; 3]| format!("{major}.{minor}.{patch}");
            let expected = offered >= wanted && offered[0] == wanted[0];
            prop_assert_eq!(admits(&format!("^{}", text(wanted)), &text(offered)), expected);
        }

        #[test]
        fn a_hyphen_range_is_two_comparisons(low in "[0-3](\\.[0-3]){0,2}", high in "[0-3](\\.[0-3]){0,2}", offered in "[0-3]\\.[0-3]\\.[0-3]") {
            let two = format!(">={low},<={high}");
            prop_assert_eq!(admits(&format!("{low} - {high}"), &offered), admits(&two, &offered));
        }
    }
}
