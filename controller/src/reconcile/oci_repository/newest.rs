//! Looks through a repository's tags for the newest of a range, a page at a time. A regular expression may be costly, so it
//! runs where blocking is allowed and has a budget.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    registry::{RegistryError, Session, TagPage},
    semver::{Newest, TagRange},
};

/// What the filter may take in all: the worst patterns need about 20 s for 100,000 tags.
const FILTER_BUDGET: Duration = Duration::from_secs(5);
/// Tags between two looks at the clock.
const TAGS_PER_LOOK: usize = 16;
/// A page up to this size, without a filter, takes less time to look through than to hand to another thread and back.
const AT_ONCE: usize = 64 * 1024;

/// Why there is no tag.
#[derive(Debug, thiserror::Error)]
pub enum Undetermined {
    /// The list could not be had.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// No tag is within the range; it is quoted.
    #[error("no match found for semver: {0}")]
    NoMatch(String),
    /// The pattern is too costly for so many tags.
    #[error("spec.ref.semverFilter takes more than {} s on the tags of this repository", FILTER_BUDGET.as_secs())]
    FilterTooSlow,
    /// The process is ending.
    #[error("the search was interrupted")]
    Interrupted,
}

/// The newest tag within `range`.
pub async fn newest_tag(session: &mut Session, range: &Arc<TagRange>) -> Result<Box<str>, Undetermined> {
    let mut search = Search {
        newest: Newest::new(Arc::clone(range)),
        filtered: range.filter.is_some(),
        left: FILTER_BUDGET,
    };
    let mut pages = session.tags();
    while let Some(page) = pages.next().await? {
        search = if search.filtered || page.size() > AT_ONCE {
            let searched = tokio::task::spawn_blocking(move || search.through(&page)).await;
            searched.map_err(|_| Undetermined::Interrupted)??
        } else {
            search.through(&page)?
        };
    }
    search
        .newest
        .into_tag()
        .ok_or_else(|| Undetermined::NoMatch(range.constraint.as_str().to_owned()))
}

struct Search {
    newest: Newest,
    filtered: bool,
    /// Of the filter's budget.
    left: Duration,
}

impl Search {
    fn through(mut self, page: &TagPage) -> Result<Self, Undetermined> {
        let started = Instant::now();
        for (index, tag) in page.iter().enumerate() {
            if self.filtered && index % TAGS_PER_LOOK == 0 && started.elapsed() >= self.left {
                return Err(Undetermined::FilterTooSlow);
            }
            self.newest.offer(tag);
        }
        self.left = self.left.saturating_sub(started.elapsed());
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::semver::{Constraint, TagFilter, TagForm};

    fn search(filter: Option<&str>, left: Duration) -> Result<Search, Undetermined> {
        let mut page = TagPage::default();
        page.add("1.0.0");
        page.add("1.1.0");
        let range = TagRange {
            constraint: Constraint::parse("*").unwrap(),
            filter: filter.map(|pattern| TagFilter::new(pattern).unwrap()),
            form: TagForm::Plain,
        };
        let search = Search {
            newest: Newest::new(Arc::new(range)),
            filtered: filter.is_some(),
            left,
        };
        search.through(&page)
    }

    #[test]
    fn the_filter_has_a_budget_and_the_rest_has_none() {
        let found = search(Some("0$"), FILTER_BUDGET).unwrap();
        assert!(found.left < FILTER_BUDGET);
        assert_eq!(found.newest.into_tag().as_deref(), Some("1.1.0"));
        assert!(matches!(
            search(Some("0$"), Duration::ZERO),
            Err(Undetermined::FilterTooSlow)
        ));
        assert!(search(None, Duration::ZERO).is_ok());
    }
}
