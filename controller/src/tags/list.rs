//! The tags of an image as they are stored: one line each, the last by bytes first, none twice.

use mintmark_api::image_repository::MAX_LATEST_TAGS;
use ring::digest::{SHA256, digest};

/// A list of tags, in descending order by bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagList {
    /// Each tag followed by a line feed, which no tag has.
    text: Box<str>,
    count: usize,
    revision: String,
}

impl TagList {
    /// Of a text whose lines are in order.
    pub(super) fn of_ordered(text: Box<str>) -> Self {
        use std::fmt::Write as _;
        let mut revision = String::from("sha256:");
        for byte in digest(&SHA256, text.as_bytes()).as_ref() {
            let _ = write!(revision, "{byte:02x}");
        }
        Self {
            count: text.lines().count(),
            revision,
            text,
        }
    }

    /// The tags.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.text.lines()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// `sha256:<hex>` of the tags in order, each followed by a line feed.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// The first ten.
    pub fn latest(&self) -> Vec<String> {
        self.iter().take(MAX_LATEST_TAGS).map(str::to_owned).collect()
    }

    /// All of them as they are stored.
    pub fn text(&self) -> &str {
        &self.text
    }
}
