//! Keeps the latest of the tags that were offered so far.

use std::{cmp::Ordering as Compared, sync::Arc};

use super::{Direction, NoLatest, Ordering, number::number};
use crate::semver::Newest;

/// The latest tag so far, by one of the three orders.
pub(super) enum Ranking {
    Versions { newest: Newest, is_empty: bool },
    Texts(Best<Box<str>>),
    Numbers(Best<f64>),
}

/// The last value in a direction, and the tag it stands in.
pub(super) struct Best<V> {
    direction: Direction,
    held: Option<(V, Box<str>)>,
}

impl<V> Best<V> {
    fn new(direction: Direction) -> Self {
        Self { direction, held: None }
    }

    /// Takes the tag if its value comes after the held one, or is equal and the tag is greater by bytes. `compare` says
    /// how the new value stands to the held one.
    fn offer(&mut self, tag: &str, compare: impl Fn(&V) -> Compared, value: impl FnOnce() -> V) {
        let is_later = self.held.as_ref().is_none_or(|(held, held_tag)| {
            let compared = match self.direction {
                Direction::Greatest => compare(held),
                Direction::Least => compare(held).reverse(),
            };
            compared.then_with(|| tag.cmp(held_tag)).is_gt()
        });
        if is_later {
            self.held = Some((value(), tag.into()));
        }
    }

    fn into_tag(self) -> Result<Box<str>, NoLatest> {
        self.held.map(|(_, tag)| tag).ok_or(NoLatest::Empty)
    }
}

impl Ranking {
    pub(super) fn new(ordering: &Ordering) -> Self {
        match ordering {
            Ordering::Semver(range) => Self::Versions {
                newest: Newest::new(Arc::clone(range)),
                is_empty: true,
            },
            Ordering::Alphabetical(direction) => Self::Texts(Best::new(*direction)),
            Ordering::Numerical(direction) => Self::Numbers(Best::new(*direction)),
        }
    }

    /// Considers a tag for which `text` is ranked.
    pub(super) fn offer(&mut self, text: &str, tag: &str) -> Result<(), NoLatest> {
        match self {
            Self::Versions { newest, is_empty } => {
                *is_empty = false;
                newest.offer_as(text, tag);
            }
            Self::Texts(best) => best.offer(tag, |held| text.cmp(held), || text.into()),
            Self::Numbers(best) => {
                let value = number(text).ok_or_else(|| NoLatest::NotANumber(text.to_owned()))?;
                // Both are finite; 0 and -0 are equal.
                best.offer(tag, |held| value.partial_cmp(held).unwrap_or(Compared::Equal), || value);
            }
        }
        Ok(())
    }

    pub(super) fn into_tag(self) -> Result<Box<str>, NoLatest> {
        match self {
            Self::Versions { is_empty: true, .. } => Err(NoLatest::Empty),
            Self::Versions { newest, .. } => newest.into_tag().ok_or(NoLatest::NoVersion),
            Self::Texts(best) => best.into_tag(),
            Self::Numbers(best) => best.into_tag(),
        }
    }
}
