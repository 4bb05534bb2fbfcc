//! Hyphen ranges: `1.2 - 2` means `>= 1.2, <= 2`. The rewriting is textual and comes before anything else is read, which
//! Masterminds' users can notice (`> 0 1 - 2` is refused, `1||2 - 3` is `>= 1||2, <= 3`), so it is done in the same way.

use std::borrow::Cow;

use super::{
    constraint::is_numeral,
    scan::{self, SPACE},
};

/// `text` with every hyphen range as two comparisons.
pub(super) fn rewritten(text: &str) -> Cow<'_, str> {
    let mut result = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some((low, high, after)) = range(rest) {
            result.extend([">= ", low, ", <= ", high, " "]);
            rest = after;
        } else {
            result.push(first);
            rest = rest.strip_prefix(first).unwrap_or_default();
        }
    }
    result.into()
}

/// A hyphen range at the beginning of `text`, with the white space around it.
fn range(text: &str) -> Option<(&str, &str, &str)> {
    let (low, rest) = scan::parts(text.trim_start_matches(SPACE), is_numeral)?;
    let rest = space(space(rest)?.strip_prefix('-')?)?;
    let (high, rest) = scan::parts(rest, is_numeral)?;
    Some((low.whole, high.whole, rest.trim_start_matches(SPACE)))
}

/// What follows white space that has to be there.
fn space(text: &str) -> Option<&str> {
    text.starts_with(SPACE).then(|| text.trim_start_matches(SPACE))
}
