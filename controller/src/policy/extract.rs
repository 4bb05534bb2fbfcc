//! `filterTags`: a pattern that a tag has to match, and a template for the text that is ranked in its place. The template
//! is Go's (`regexp.Expand`), which differs from the one of Rust's `regex` in what a malformed or zero-led name means.

use mintmark_api::image_policy::TagFilterSpec;

use super::PolicyError;
use crate::semver::{TagFilter, TagMatch};

/// Longest template, in bytes.
const MAX_TEMPLATE: usize = 1024;

/// A filter of tags that may take a part out of them.
#[derive(Debug, Clone)]
pub(super) struct Extraction {
    pattern: TagFilter,
    /// Empty where the tag itself is ranked.
    template: Vec<Piece>,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A group by its position.
    Position(usize),
    /// A group by its name.
    Name(String),
}

impl Extraction {
    pub(super) fn new(spec: &TagFilterSpec) -> Result<Self, PolicyError> {
        let pattern = spec.pattern.as_deref().unwrap_or_default();
        let template = spec.extract.as_deref().unwrap_or_default();
        if template.len() > MAX_TEMPLATE {
            return Err(PolicyError::Extract { limit: MAX_TEMPLATE });
        }
        let invalid = |error| PolicyError::Pattern {
            pattern: pattern.to_owned(),
            error,
        };
        Ok(Self {
            pattern: TagFilter::new(pattern).map_err(invalid)?,
            template: pieces(template),
        })
    }

    /// Whether the tag is considered; then `text` is what is ranked.
    pub(super) fn extract(&self, tag: &str, text: &mut String) -> bool {
        text.clear();
        if self.template.is_empty() {
            text.push_str(tag);
            return self.pattern.matches(tag);
        }
        let Some(found) = self.pattern.find(tag) else {
            return false;
        };
        for piece in &self.template {
            text.push_str(expand(piece, &found));
        }
        true
    }
}

/// A group that there is not, or that took no part in the match, is empty.
fn expand<'a>(piece: &'a Piece, found: &TagMatch<'a>) -> &'a str {
    match piece {
        Piece::Text(text) => text,
        Piece::Position(position) => found.position(*position),
        Piece::Name(name) => found.name(name),
    }
}

/// Reads a template: `$name`, `${name}`, `$1`, `${1}`, and `$$` for a `$`. A `$` that begins none of these stays.
fn pieces(template: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            text.push('$');
            rest = after;
        } else if let Some((reference, after)) = reference(after) {
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(reference);
            rest = after;
        } else {
            text.push('$');
            rest = after;
        }
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    pieces
}

/// The reference after a `$`, and what follows it.
fn reference(text: &str) -> Option<(Piece, &str)> {
    let braced = text.strip_prefix('{');
    let text = braced.unwrap_or(text);
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(end).filter(|(name, _)| !name.is_empty())?;
    let rest = if braced.is_some() {
        rest.strip_prefix('}')?
    } else {
        rest
    };
    Some((named(name), rest))
}

/// A number without leading zero is a position; it has at most eight digits in Go.
fn named(name: &str) -> Piece {
    let is_position =
        name.bytes().all(|byte| byte.is_ascii_digit()) && name.len() <= 8 && (name == "0" || !name.starts_with('0'));
    match name.parse() {
        Ok(position) if is_position => Piece::Position(position),
        _ => Piece::Name(name.to_owned()),
    }
}
