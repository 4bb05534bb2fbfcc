//! The few pieces of DER that the libraries leave to us: wrapping keys, an ECDSA signature, and exchanging one field of a
//! certificate. Reading returns `None` for anything that is not definite-length DER; writing cannot fail.

use zeroize::Zeroizing;

pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OID: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
/// `[0]`, constructed.
pub(crate) const CONTEXT_0: u8 = 0xa0;
/// `[1]`, constructed.
pub(crate) const CONTEXT_1: u8 = 0xa1;

/// One element: its tag, its content, and the whole encoding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) raw: &'a [u8],
}

/// Reads the elements of a constructed value one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// The bytes not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next element, whatever its tag.
    pub(crate) fn next(&mut self) -> Option<Element<'a>> {
        let (&tag, after_tag) = self.0.split_first()?;
        let (&first, after_first) = after_tag.split_first()?;
        let (length, header) = match first {
            0..=0x7f => (usize::from(first), 2),
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let bytes = after_first.get(..count)?;
                (
                    bytes
                        .iter()
                        .fold(0usize, |length, byte| (length << 8) | usize::from(*byte)),
                    2 + count,
                )
            }
            _ => return None,
        };
        let (raw, rest) = self.0.split_at_checked(header.checked_add(length)?)?;
        self.0 = rest;
        Some(Element {
            tag,
            content: raw.get(header..)?,
            raw,
        })
    }

    /// The next element's content, if it has this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .filter(|element| element.tag == tag)
            .map(|element| element.content)
    }
}

/// The content of `input`, if it is exactly one element with this tag.
pub(crate) fn single(input: &[u8], tag: u8) -> Option<&[u8]> {
    let mut reader = Reader::new(input);
    let content = reader.expect(tag)?;
    reader.rest().is_empty().then_some(content)
}

/// Writes one element around the given parts, in a buffer that is wiped on drop and never grows.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Zeroizing::new(Vec::with_capacity(length + 6));
    out.push(tag);
    if length < 0x80 {
        out.push(u8::try_from(length).unwrap_or(0x7f));
    } else {
        let bytes = length.to_be_bytes();
        let skip = bytes.iter().take_while(|byte| **byte == 0).count();
        let significant = bytes.get(skip..).unwrap_or_default();
        out.push(0x80 | u8::try_from(significant.len()).unwrap_or_default());
        out.extend_from_slice(significant);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// Writes an unsigned big-endian number as INTEGER.
pub(crate) fn unsigned(number: &[u8]) -> Zeroizing<Vec<u8>> {
    let skip = number.iter().take_while(|byte| **byte == 0).count();
    match number.get(skip..).unwrap_or_default() {
        [] => element(INTEGER, &[&[0]]),
        digits @ [0x80..=0xff, ..] => element(INTEGER, &[&[0], digits]),
        digits => element(INTEGER, &[digits]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unsigned_numbers_are_minimal_and_positive() {
        assert_eq!(unsigned(&[]).as_slice(), [2, 1, 0]);
        assert_eq!(unsigned(&[0, 0, 1]).as_slice(), [2, 1, 1]);
        assert_eq!(unsigned(&[0x80]).as_slice(), [2, 2, 0, 0x80]);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(content in proptest::collection::vec(any::<u8>(), 0..70_000), rest in any::<[u8; 3]>()) {
            let mut encoded = element(OCTET_STRING, &[&content]).to_vec();
            encoded.extend(rest);
            let mut reader = Reader::new(&encoded);
            prop_assert_eq!(reader.expect(OCTET_STRING), Some(content.as_slice()));
            prop_assert_eq!(reader.rest(), rest.as_slice());
        }

        #[test]
        fn arbitrary_bytes_never_panic(input in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&input);
            while reader.next().is_some() {}
        }
    }
}
