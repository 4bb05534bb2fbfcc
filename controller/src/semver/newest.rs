//! The newest tag of a stream: filtered, read as a version, admitted by the constraint. Holds no more than one tag.

use std::sync::Arc;

use super::{Constraint, TagFilter, Version};

/// How a version stands in a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TagForm {
    /// As it is.
    #[default]
    Plain,
    /// As Helm pushes charts: `_` in place of `+`, which no tag can have.
    HelmChart,
}

/// Which tags are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRange {
    /// On the version.
    pub constraint: Constraint,
    /// On the raw tag, before anything else.
    pub filter: Option<TagFilter>,
    /// From tag to version.
    pub form: TagForm,
}

/// Takes tags in any order and keeps the newest wanted one. Of two tags with the same version (`1.0.0` and `v1.0.0`) the
/// greater by bytes counts as newer, so that the outcome does not depend on the order.
#[derive(Debug)]
pub struct Newest {
    range: Arc<TagRange>,
    best: Option<(Version, Box<str>)>,
}

impl Newest {
    /// None yet.
    pub fn new(range: Arc<TagRange>) -> Self {
        Self { range, best: None }
    }

    /// Considers a tag.
    pub fn offer(&mut self, tag: &str) {
        let range = &self.range;
        if range.filter.as_ref().is_some_and(|filter| !filter.matches(tag)) {
            return;
        }
        self.offer_as(tag, tag);
    }

    /// Considers a tag whose version is to be read from `text`. There is no filter before it.
    pub fn offer_as(&mut self, text: &str, tag: &str) {
        let range = &self.range;
        let version = match range.form {
            TagForm::HelmChart if text.contains('_') => Version::of_tag(&text.replace('_', "+")),
            _ => Version::of_tag(text),
        };
        let Some(version) = version.filter(|version| range.constraint.admits(version)) else {
            return;
        };
        let newer = self
            .best
            .as_ref()
            .is_none_or(|(best, text)| (best, &**text) < (&version, tag));
        if newer {
            self.best = Some((version, tag.into()));
        }
    }

    /// The newest tag as it was offered.
    pub fn into_tag(self) -> Option<Box<str>> {
        self.best.map(|(_, tag)| tag)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::newest_not_last(">=1", None, TagForm::Plain, &["1.9.0", "1.10.0", "latest", "1.2.0"], Some("1.10.0"))]
    #[case::text_is_kept("x", None, TagForm::Plain, &["v01.02.0003"], Some("v01.02.0003"))]
    #[case::two_parts_are_no_version("*", None, TagForm::Plain, &["1.2", "20240101"], None)]
    #[case::prereleases_stay_out(">=1", None, TagForm::Plain, &["1.0.0", "1.1.0-rc.1"], Some("1.0.0"))]
    #[case::unless_named(">=1.0.0-0", None, TagForm::Plain, &["1.0.0", "1.1.0-rc.1"], Some("1.1.0-rc.1"))]
    #[case::filter_sees_the_tag(">=1.0.0-0", Some("^v.*-rc"), TagForm::Plain, &["v1.0.0", "v1.1.0-rc.1", "1.2.0-rc.1"], Some("v1.1.0-rc.1"))]
    #[case::nothing_admitted(">=3", None, TagForm::Plain, &["1.0.0"], None)]
    #[case::underscore_is_no_version("1.x", None, TagForm::Plain, &["1.0.0", "1.1.0_build.7"], Some("1.0.0"))]
    #[case::but_a_charts("1.x", None, TagForm::HelmChart, &["1.0.0", "1.1.0_build.7"], Some("1.1.0_build.7"))]
    fn newest(
        #[case] constraint: &str,
        #[case] filter: Option<&str>,
        #[case] form: TagForm,
        #[case] tags: &[&str],
        #[case] expected: Option<&str>,
    ) {
        let range = Arc::new(TagRange {
            constraint: Constraint::parse(constraint).unwrap(),
            filter: filter.map(|pattern| TagFilter::new(pattern).unwrap()),
            form,
        });
        let mut newest = Newest::new(range);
        for tag in tags {
            newest.offer(tag);
        }
        assert_eq!(newest.into_tag().as_deref(), expected);
    }

    #[test]
    fn ties_do_not_depend_on_the_order() {
        let range = Arc::new(TagRange {
            constraint: Constraint::parse("1.0.0").unwrap(),
            filter: None,
            form: TagForm::HelmChart,
        });
        let tags = ["1.0.0", "v1.0.0", "1.0.0_b", "01.0.0", "v1.0.0_a"];
        for start in 0..tags.len() {
            let mut newest = Newest::new(range.clone());
            tags.iter()
                .cycle()
                .skip(start)
                .take(tags.len())
                .for_each(|tag| newest.offer(tag));
            assert_eq!(newest.into_tag().as_deref(), Some("v1.0.0_a"));
        }
    }
}
