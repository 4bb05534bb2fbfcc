//! The `Range` header (RFC 9110 §14.1–14.2): which bytes of a file a request asks for. Pure.

/// Ranges that one request may ask for. More is answered with the whole file, as §14.2 allows.
const MAX_RANGES: usize = 4;

/// Part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// First byte.
    pub(super) start: u64,
    /// Bytes, at least one.
    pub(super) length: u64,
}

impl Range {
    /// The value of `Content-Range` (§14.4).
    pub(super) fn content_range(self, size: u64) -> String {
        format!("bytes {}-{}/{size}", self.start, self.start + self.length - 1)
    }
}

/// What a `Range` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ranges {
    /// Nothing that is understood: answer with the whole file.
    Whole,
    /// These, in the order asked for.
    Some(Vec<Range>),
    /// None of them begins within the file: 416.
    Unsatisfiable,
}

/// Reads a header value against a file of `size` bytes. Malformed values and other units are ignored (§14.2).
pub(super) fn parse(value: &str, size: u64) -> Ranges {
    let Some((unit, set)) = value.split_once('=') else {
        return Ranges::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Ranges::Whole;
    }
    let specs: Vec<&str> = set
        .split(',')
        .map(|spec| spec.trim_matches([' ', '\t']))
        .filter(|spec| !spec.is_empty())
        .take(MAX_RANGES + 1)
        .collect();
    if specs.is_empty() || specs.len() > MAX_RANGES {
        return Ranges::Whole;
    }
    let Ok(ranges) = specs
        .into_iter()
        .map(|spec| parse_one(spec, size))
        .collect::<Result<Vec<_>, _>>()
    else {
        return Ranges::Whole;
    };
    let ranges: Vec<Range> = ranges.into_iter().flatten().collect();
    let total = ranges
        .iter()
        .fold(0, |total: u64, range| total.saturating_add(range.length));
    match ranges.len() {
        0 => Ranges::Unsatisfiable,
        // Overlapping ranges must not cost more than the file.
        2.. if total > size => Ranges::Whole,
        _ => Ranges::Some(ranges),
    }
}

/// One range does not follow the grammar of §14.1.1.
struct Malformed;

/// Nothing when well-formed but beyond the file.
fn parse_one(spec: &str, size: u64) -> Result<Option<Range>, Malformed> {
    let (first, last) = spec.split_once('-').ok_or(Malformed)?;
    if first.is_empty() {
        let suffix = number(last)?.min(size);
        return Ok((suffix > 0).then(|| Range {
            start: size - suffix,
            length: suffix,
        }));
    }
    let start = number(first)?;
    let end = if last.is_empty() { u64::MAX } else { number(last)? };
    if end < start {
        return Err(Malformed);
    }
    Ok((start < size).then(|| Range {
        start,
        length: end.min(size - 1) - start + 1,
    }))
}

/// Digits only; what does not fit is as good as the largest number.
fn number(text: &str) -> Result<u64, Malformed> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number {
        Ok(text.parse().unwrap_or(u64::MAX))
    } else {
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::first("bytes=0-0", &[(0, 1)])]
    #[case::middle("bytes=2-4", &[(2, 3)])]
    #[case::open("bytes=7-", &[(7, 3)])]
    #[case::beyond_end("bytes=7-99", &[(7, 3)])]
    #[case::suffix("bytes=-3", &[(7, 3)])]
    #[case::long_suffix("bytes=-99", &[(0, 10)])]
    #[case::several("bytes=0-1, 4-5,-1", &[(0, 2), (4, 2), (9, 1)])]
    #[case::unit_in_capitals("Bytes=0-1", &[(0, 2)])]
    #[case::one_beyond("bytes=0-1,20-30", &[(0, 2)])]
    #[case::empty_elements("bytes=,0-1,,", &[(0, 2)])]
    #[case::huge("bytes=0-99999999999999999999999", &[(0, 10)])]
    fn ranges(#[case] value: &str, #[case] expected: &[(u64, u64)]) {
        let expected = expected
            .iter()
            .map(|(start, length)| Range {
                start: *start,
                length: *length,
            })
            .collect();
        assert_eq!(parse(value, 10), Ranges::Some(expected));
    }

    #[rstest]
    #[case::other_unit("lines=0-1")]
    #[case::no_unit("0-1")]
    #[case::no_dash("bytes=5")]
    #[case::reversed("bytes=5-2")]
    #[case::signed("bytes=+1-2")]
    #[case::text("bytes=a-b")]
    #[case::nothing("bytes=")]
    #[case::only_dash("bytes=-")]
    #[case::one_malformed("bytes=0-1,x")]
    #[case::five("bytes=0-0,1-1,2-2,3-3,4-4")]
    #[case::more_than_the_file("bytes=0-8,1-9")]
    fn ignored(#[case] value: &str) {
        assert_eq!(parse(value, 10), Ranges::Whole);
    }

    #[rstest]
    #[case("bytes=10-", 10)]
    #[case("bytes=-0", 10)]
    #[case("bytes=0-", 0)]
    #[case("bytes=-5", 0)]
    fn unsatisfiable(#[case] value: &str, #[case] size: u64) {
        assert_eq!(parse(value, size), Ranges::Unsatisfiable);
    }

    #[test]
    fn content_range_names_first_last_and_size() {
        assert_eq!(Range { start: 2, length: 3 }.content_range(10), "bytes 2-4/10");
    }

    proptest! {
        #[test]
        fn ranges_stay_within_the_file(value in "bytes=[0-9,-]{0,24}", size in 0u64..200) {
            if let Ranges::Some(ranges) = parse(&value, size) {
                prop_assert!(ranges.len() <= MAX_RANGES);
                prop_assert!(ranges.iter().all(|range| range.length > 0 && range.start + range.length <= size));
                prop_assert!(ranges.iter().map(|range| range.length).sum::<u64>() <= size);
            }
        }
    }
}
