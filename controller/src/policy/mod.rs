//! Which of an image's tags is the latest: an image policy, made from its spec once and then asked of tags in any order. The
//! outcome depends on the tags only, not on their order. Pure: the clock that bounds a costly pattern is an argument.
//!
//! [`TagPolicy`] is the policy, [`latest`] applies it. The rules are those of image-reflector-controller 1.2, where ties are
//! arbitrary; here the greater tag by bytes wins them.

mod extract;
mod number;
#[cfg(test)]
mod oracle_tests;
mod rank;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use mintmark_api::image_policy::{Order, OrderPolicy, PolicyChoice, TagFilterSpec};

use self::{extract::Extraction, rank::Ranking};
use crate::semver::{Constraint, ConstraintError, FilterError, TagForm, TagRange};

/// Tags between two looks at the clock: the worst patterns take a fifth of a millisecond for each.
const TAGS_PER_LOOK: usize = 16;

/// How a tag is selected.
#[derive(Debug, Clone)]
pub struct TagPolicy {
    ordering: Ordering,
    extraction: Option<Extraction>,
}

/// What the considered texts are ordered by.
#[derive(Debug, Clone)]
enum Ordering {
    /// The newest version of a range.
    Semver(Arc<TagRange>),
    /// The greatest text by bytes, or the least.
    Alphabetical(Direction),
    /// The greatest number, or the least.
    Numerical(Direction),
}

/// Which end of an order is the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Greatest,
    Least,
}

/// Why a spec is no policy. Nothing but an edit mends it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// None of the three is set.
    #[error("invalid policy: spec.policy names none of semver, alphabetical and numerical")]
    NoChoice,
    /// The range cannot be read.
    #[error("invalid policy: {0}")]
    Range(#[from] ConstraintError),
    /// The word in `order` is neither of the two.
    #[error("invalid policy: order is one of asc, desc")]
    Order,
    /// The pattern cannot be used.
    #[error("failed to filter tags: invalid regular expression pattern '{pattern}': {error}")]
    Pattern {
        /// As it was written.
        pattern: String,
        /// What is wrong with it.
        error: FilterError,
    },
    /// The template is too long.
    #[error("failed to filter tags: extract has more than {limit} bytes")]
    Extract {
        /// The limit in bytes.
        limit: usize,
    },
}

/// Why no tag was selected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoLatest {
    /// There was none to select from.
    #[error("version list argument cannot be empty")]
    Empty,
    /// None is a version within the range.
    #[error("unable to determine latest version from provided list")]
    NoVersion,
    /// This one is no finite number.
    #[error("failed to parse invalid numeric value '{0}'")]
    NotANumber(String),
    /// The pattern is too costly for so many tags.
    #[error("spec.filterTags takes too long on the tags of this repository")]
    TooSlow,
}

impl TagPolicy {
    /// Reads `spec.policy` and `spec.filterTags`. Of several policies the first counts, in the order semver, alphabetical,
    /// numerical. A pattern has at most 1 KiB and takes at most 1 MiB once compiled; so does no template exceed 1 KiB.
    pub fn new(choice: &PolicyChoice, filter: Option<&TagFilterSpec>) -> Result<Self, PolicyError> {
        let ordering = match (&choice.semver, &choice.alphabetical, &choice.numerical) {
            (Some(semver), _, _) => Ordering::Semver(Arc::new(TagRange {
                constraint: Constraint::parse(&semver.range)?,
                filter: None,
                form: TagForm::Plain,
            })),
            (None, Some(order), _) => Ordering::Alphabetical(direction(order)?),
            (None, None, Some(order)) => Ordering::Numerical(direction(order)?),
            (None, None, None) => return Err(PolicyError::NoChoice),
        };
        let extraction = filter.map(Extraction::new).transpose()?;
        Ok(Self { ordering, extraction })
    }
}

fn direction(order: &OrderPolicy) -> Result<Direction, PolicyError> {
    match order.order.unwrap_or_default() {
        Order::Asc => Ok(Direction::Greatest),
        Order::Desc => Ok(Direction::Least),
        Order::Unknown => Err(PolicyError::Order),
    }
}

/// The latest of `tags` as it stands there. `is_over` says whether the time that a pattern may take is up; it is asked
/// every few tags, and not at all without a pattern.
pub fn latest<'a>(
    policy: &TagPolicy,
    tags: impl IntoIterator<Item = &'a str>,
    is_over: impl Fn() -> bool,
) -> Result<Box<str>, NoLatest> {
    let mut ranking = Ranking::new(&policy.ordering);
    let Some(extraction) = &policy.extraction else {
        for tag in tags {
            ranking.offer(tag, tag)?;
        }
        return ranking.into_tag();
    };
    let mut text = String::new();
    for (index, tag) in tags.into_iter().enumerate() {
        if index % TAGS_PER_LOOK == 0 && is_over() {
            return Err(NoLatest::TooSlow);
        }
        if extraction.extract(tag, &mut text) {
            ranking.offer(&text, tag)?;
        }
    }
    ranking.into_tag()
}
