//! The header blocks of the archive we write: USTAR (POSIX.1-2024 pax, "ustar Interchange Format"), preceded by a PAX
//! header with one `path` record where a name is not ASCII or does not fit. Owners, names and times are all zero.

use std::io::{self, Write};

use tar::{EntryType, Header};

use super::pax;

/// Bytes of a block; headers and contents are padded to it.
pub(super) const BLOCK: usize = 512;
const NAME: usize = 100;
const PREFIX: usize = 155;

/// Writes the header or headers of one entry.
pub(super) fn write_header(out: &mut impl Write, path: &str, kind: EntryType, mode: u32, size: u64) -> io::Result<()> {
    if let Some((prefix, name)) = split(path) {
        return out.write_all(header(prefix, name, kind, mode, size)?.as_bytes());
    }
    let record = pax::record("path", path);
    let length = record.len() as u64;
    out.write_all(header("", "PaxHeaders.0/path", EntryType::XHeader, 0, length)?.as_bytes())?;
    out.write_all(record.as_bytes())?;
    write_padding(out, length)?;
    out.write_all(header("", &stand_in(path), kind, mode, size)?.as_bytes())
}

/// Zeros up to the next block after `size` bytes of contents.
pub(super) fn write_padding(out: &mut impl Write, size: u64) -> io::Result<()> {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    let padding = if over == 0 { 0 } else { BLOCK - over };
    out.write_all([0; BLOCK].get(..padding).unwrap_or_default())
}

/// Two zero blocks.
pub(super) fn write_end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

fn header(prefix: &str, name: &str, kind: EntryType, mode: u32, size: u64) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    if let Some(ustar) = header.as_ustar_mut() {
        put(&mut ustar.name, name);
        put(&mut ustar.prefix, prefix);
    }
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_device_major(0)?;
    header.set_device_minor(0)?;
    header.set_cksum();
    Ok(header)
}

fn put(field: &mut [u8], value: &str) {
    for (to, from) in field.iter_mut().zip(value.bytes()) {
        *to = from;
    }
}

/// Prefix and name of a path that USTAR can hold.
fn split(path: &str) -> Option<(&str, &str)> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= NAME {
        return Some(("", path));
    }
    let reach = path.len().min(PREFIX + 1);
    let slash = path.get(..reach)?.rfind('/').filter(|slash| *slash > 0)?;
    let (prefix, name) = (path.get(..slash)?, path.get(slash + 1..)?);
    (!name.is_empty() && name.len() <= NAME).then_some((prefix, name))
}

/// What a reader without PAX would name the entry: ASCII, cut to the field.
fn stand_in(path: &str) -> String {
    path.chars()
        .filter(char::is_ascii)
        .take(NAME)
        .collect::<String>()
        .trim_end_matches('/')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::short("a/b", Some(("", "a/b")))]
    #[case::name_full(&"n".repeat(100), Some(("", "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn")))]
    #[case::name_over(&"n".repeat(101), None)]
    #[case::not_ascii("ä", None)]
    fn short_paths_need_no_prefix(#[case] path: &str, #[case] expected: Option<(&str, &str)>) {
        assert_eq!(split(path), expected);
    }

    #[test]
    fn long_paths_split_at_a_slash() {
        let (prefix, name) = ("p".repeat(155), "n".repeat(100));
        let path = format!("{prefix}/{name}");
        assert_eq!(split(&path), Some((prefix.as_str(), name.as_str())));
        assert_eq!(split(&format!("p{path}")), None);
        assert_eq!(split(&format!("{path}n")), None);
        assert_eq!(split(&format!("/{}", "n".repeat(100))), None);
    }

    #[test]
    fn padding_fills_the_block() {
        for (size, expected) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)] {
            let mut out = Vec::new();
            write_padding(&mut out, size).unwrap();
            assert_eq!(out, vec![0; expected], "{size}");
        }
    }
}
