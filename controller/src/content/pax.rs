//! The records of a PAX extended header (POSIX.1-2024 pax, "pax Extended Header"): `<length> <key>=<value>\n`.
//!
//! Only `path` matters here. Records that would make another reader see different contents than we do, `size` and the
//! sparse ones, are refused rather than ignored.

use super::error::ContentError;

/// What a local extended header says about the next entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PaxRecords {
    /// Overrides the header's path.
    pub(super) path: Option<Vec<u8>>,
    /// Overrides the header's size.
    pub(super) size: Option<u64>,
}

fn malformed(what: &str) -> ContentError {
    ContentError::Malformed(format!("PAX header: {what}"))
}

/// Parses all records; the last of several with one key counts.
pub(super) fn parse(mut data: &[u8]) -> Result<PaxRecords, ContentError> {
    let mut records = PaxRecords::default();
    while !data.is_empty() {
        let (record, rest) = split_record(data)?;
        data = rest;
        let equals = record
            .iter()
            .position(|byte| *byte == b'=')
            .ok_or_else(|| malformed("record without '='"))?;
        let (key, value) = record.split_at(equals);
        let value = value.get(1..).unwrap_or_default();
        if key == b"path" {
            // An empty value withdraws the record, as POSIX has it.
            records.path = Some(value).filter(|value| !value.is_empty()).map(<[u8]>::to_vec);
        } else if key == b"size" {
            let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            records.size = Some(size.ok_or_else(|| malformed("size is not a number"))?);
        } else if key.starts_with(b"GNU.sparse.") {
            return Err(malformed("sparse files are not supported"));
        }
    }
    Ok(records)
}

/// `<key>=<value>` of the first record, and what follows it.
fn split_record(data: &[u8]) -> Result<(&[u8], &[u8]), ContentError> {
    let space = data
        .iter()
        .position(|byte| *byte == b' ')
        .ok_or_else(|| malformed("record without a length"))?;
    let (digits, _) = data.split_at(space);
    let length: usize = std::str::from_utf8(digits)
        .ok()
        .filter(|digits| !digits.is_empty() && digits.len() <= 7 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| malformed("record length is not a number"))?;
    let (record, rest) = data
        .split_at_checked(length)
        .ok_or_else(|| malformed("record runs past the header"))?;
    let body = record
        .get(space + 1..)
        .ok_or_else(|| malformed("record shorter than its length"))?;
    let body = body
        .strip_suffix(b"\n")
        .ok_or_else(|| malformed("record without a line feed"))?;
    Ok((body, rest))
}

/// One record with the length that counts itself.
pub(super) fn record(key: &str, value: &str) -> String {
    let body = key.len() + value.len() + 3;
    let mut length = body + body.to_string().len();
    if body + length.to_string().len() != length {
        length = body + length.to_string().len();
    }
    format!("{length} {key}={value}\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[test]
    fn path_and_size_are_read_and_the_rest_skipped() {
        let data = b"20 mtime=1700000000\n12 path=a\nb\n9 size=7\n";
        let records = parse(data).unwrap();
        assert_eq!(
            records,
            PaxRecords {
                path: Some(b"a\nb".to_vec()),
                size: Some(7)
            }
        );
    }

    #[rstest]
    #[case::no_length(b"path=x\n")]
    #[case::too_long(b"99 path=x\n")]
    #[case::too_short(b"2 path=x\n")]
    #[case::no_line_feed(b"8 path=x")]
    #[case::no_equals(b"7 path\n")]
    #[case::signed(b"+9 path=x\n")]
    #[case::huge(b"99999999999999999999 path=x\n")]
    #[case::bad_size(b"10 size=-1\n")]
    #[case::sparse(b"22 GNU.sparse.major=1\n")]
    fn malformed_records_are_refused(#[case] data: &[u8]) {
        assert!(
            matches!(parse(data), Err(ContentError::Malformed(_))),
            "{:?}",
            parse(data)
        );
    }

    proptest! {
        #[test]
        fn parser_never_panics(data in proptest::collection::vec(any::<u8>(), 0..80)) {
            drop(parse(&data));
        }

        #[test]
        fn what_is_written_is_read(value in "[a-z/\n=]{1,1200}") {
            let text = record("path", &value);
            prop_assert_eq!(parse(text.as_bytes()).unwrap().path, Some(value.into_bytes()));
        }
    }
}
