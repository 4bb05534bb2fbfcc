//! Takes the pages of a registry's tag list and makes an ordered list of them.

use std::ops::Range;

use super::{Exclusions, TagList};

/// Tags between two looks at the clock.
const TAGS_PER_LOOK: usize = 16;

/// The exclusion list is too costly for so many tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("spec.exclusionList takes too long on the tags of this repository")]
pub struct TooSlow;

/// The tags seen so far, without the excluded ones: their text, and 16 bytes for each.
#[derive(Debug)]
pub struct TagCollector {
    exclusions: Exclusions,
    text: String,
    places: Vec<Range<usize>>,
}

impl TagCollector {
    /// None yet.
    pub fn new(exclusions: Exclusions) -> Self {
        Self {
            exclusions,
            text: String::new(),
            places: Vec::new(),
        }
    }

    /// Takes tags in any order; one may have been there before. `is_over` says whether the time that the exclusions may
    /// take is up, and is asked every few tags.
    pub fn add<'a>(
        &mut self,
        tags: impl IntoIterator<Item = &'a str>,
        is_over: impl Fn() -> bool,
    ) -> Result<(), TooSlow> {
        for (index, tag) in tags.into_iter().enumerate() {
            if index % TAGS_PER_LOOK == 0 && is_over() {
                return Err(TooSlow);
            }
            if !self.exclusions.excludes(tag) {
                let start = self.text.len();
                self.text.push_str(tag);
                self.places.push(start..self.text.len());
            }
        }
        Ok(())
    }

    /// The list. Needs the text twice for a moment.
    pub fn finish(mut self) -> TagList {
        let tag = |place: &Range<usize>| self.text.get(place.clone()).unwrap_or_default();
        self.places.sort_unstable_by(|one, other| tag(other).cmp(tag(one)));
        self.places.dedup_by(|one, other| tag(one) == tag(other));
        let mut text = String::with_capacity(self.text.len() + self.places.len());
        for place in &self.places {
            text.push_str(tag(place));
            text.push('\n');
        }
        TagList::of_ordered(text.into_boxed_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn list(pages: &[&[&str]], exclusions: &[&str]) -> TagList {
        let mut collector = TagCollector::new(Exclusions::new(exclusions.iter().copied()).unwrap());
        for page in pages {
            collector.add(page.iter().copied(), || false).unwrap();
        }
        collector.finish()
    }

    #[test]
    fn pages_become_one_list_in_descending_order_by_bytes() {
        let list = list(&[&["1.0", "a", "1.10"], &["1.0", "Z", "b.sig"]], &[r"\.sig$"]);
        assert_eq!(list.text(), "a\nZ\n1.10\n1.0\n");
        assert_eq!((list.len(), list.is_empty()), (4, false));
        // `printf 'a\nZ\n1.10\n1.0\n' | sha256sum`
        assert_eq!(list.revision(), SHA);
    }

    const SHA: &str = "sha256:91a0350d17ca507556614d7f33b290e665ba46c2f62c89da8e74f0c93fac0808";

    #[test]
    fn nothing_has_a_revision_too() {
        let list = list(&[&[]], &[]);
        assert_eq!((list.len(), list.is_empty(), list.text()), (0, true, ""));
        let nothing = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(list.revision(), nothing);
    }

    #[test]
    fn ten_are_shown() {
        let tags: Vec<String> = (10..30).map(|number| number.to_string()).collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let latest = list(&[&tags], &[]).latest();
        assert_eq!(latest.len(), 10);
        assert_eq!(latest.first().map(String::as_str), Some("29"));
        assert_eq!(latest.last().map(String::as_str), Some("20"));
    }

    #[test]
    fn the_time_of_the_exclusions_is_bounded() {
        let mut collector = TagCollector::new(Exclusions::default());
        assert_eq!(collector.add(["a"], || true), Err(TooSlow));
    }

    proptest! {
        #[test]
        fn the_list_is_the_set_of_what_was_offered(
            pages in prop::collection::vec(prop::collection::vec("[ab0-2]{1,3}", 0..6), 0..6),
        ) {
            let pages: Vec<Vec<&str>> = pages.iter().map(|page| page.iter().map(String::as_str).collect()).collect();
            let slices: Vec<&[&str]> = pages.iter().map(Vec::as_slice).collect();
            let offered: BTreeSet<&str> = pages.iter().flatten().copied().collect();
            let list = list(&slices, &[]);
            let expected: Vec<&str> = offered.into_iter().rev().collect();
            prop_assert_eq!(list.iter().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(list.len(), expected.len());
        }
    }
}
