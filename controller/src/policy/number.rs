//! Numbers as Go's `strconv.ParseFloat` reads them, but for hexadecimal ones and those that are not finite.

/// The number a text stands for: a decimal with optional sign, point and exponent, and `_` between digits.
pub(super) fn number(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    // Neither `inf` nor `nan`, which both languages know.
    if !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let value = if text.contains('_') {
        without_separators(text)?.parse()
    } else {
        text.parse()
    };
    value.ok().filter(|value: &f64| value.is_finite())
}

/// Go allows an underscore between two digits, and nowhere else.
fn without_separators(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let is_digit = |index: Option<usize>| index.and_then(|index| bytes.get(index)).is_some_and(u8::is_ascii_digit);
    let separates = |(index, _)| is_digit(usize::checked_sub(index, 1)) && is_digit(index.checked_add(1));
    text.match_indices('_').all(separates).then(|| text.replace('_', ""))
}
