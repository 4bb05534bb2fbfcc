//! The words that versions and constraints are made of: numerals, dots, identifiers, white space. Everything matched is
//! ASCII and as long as possible.

/// What Go's `\s` is; Unicode's other spaces are no white space here.
pub(super) const SPACE: [char; 5] = ['\t', '\n', '\x0c', '\r', ' '];

/// `[v]major[.minor[.patch]][-pre][+metadata]`, nothing of it judged yet.
pub(super) struct Parts<'a> {
    /// All of it.
    pub(super) whole: &'a str,
    pub(super) major: &'a str,
    pub(super) minor: Option<&'a str>,
    pub(super) patch: Option<&'a str>,
    /// Without its dash; empty when absent.
    pub(super) pre: &'a str,
}

/// The parts at the beginning of `text`, and what follows them. `numeral` says what major, minor and patch consist of.
pub(super) fn parts(text: &str, numeral: fn(u8) -> bool) -> Option<(Parts<'_>, &str)> {
    let numerals = |text| run(text, numeral);
    let (major, rest) = numerals(text.strip_prefix('v').unwrap_or(text))?;
    let (minor, rest) = optional(rest, '.', numerals);
    let (patch, rest) = minor.map_or((None, rest), |_| optional(rest, '.', numerals));
    let (pre, rest) = optional(rest, '-', identifiers);
    let (_, rest) = optional(rest, '+', identifiers);
    let whole = text.strip_suffix(rest).unwrap_or(text);
    let pre = pre.unwrap_or_default();
    Some((
        Parts {
            whole,
            major,
            minor,
            patch,
            pre,
        },
        rest,
    ))
}

/// What `word` finds after `mark`; nothing, and nothing consumed, when either is not there.
fn optional<'a>(
    text: &'a str,
    mark: char,
    word: impl Fn(&'a str) -> Option<(&'a str, &'a str)>,
) -> (Option<&'a str>, &'a str) {
    match text.strip_prefix(mark).and_then(word) {
        Some((found, rest)) => (Some(found), rest),
        None => (None, text),
    }
}

/// One identifier or more, with a dot between them.
fn identifiers(text: &str) -> Option<(&str, &str)> {
    let identifier = |text| run(text, |byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let (_, mut rest) = identifier(text)?;
    while let (Some(_), after) = optional(rest, '.', identifier) {
        rest = after;
    }
    Some((text.strip_suffix(rest)?, rest))
}

/// One byte or more of an ASCII class.
fn run(text: &str, class: impl Fn(u8) -> bool) -> Option<(&str, &str)> {
    let length = text.bytes().take_while(|byte| class(*byte)).count();
    text.split_at_checked(length).filter(|(found, _)| !found.is_empty())
}
