//! One hostile layer per rule of extraction, built by hand.

use std::io::Read;

use proptest::prelude::*;
use rstest::rstest;
use tar::EntryType;

use super::super::{
    Cap, ContentError, Limits, Patterns,
    testing::{Layer, archive, extract_with, gzip, listing},
};

fn refuse(layer: &[u8], limits: &Limits) -> ContentError {
    extract_with(layer, limits).expect_err("layer must be refused")
}

fn refuse_default(layer: &[u8]) -> ContentError {
    refuse(layer, &Limits::default())
}

fn contents(layer: &[u8]) -> Vec<String> {
    listing(&archive(layer, &Patterns::none()))
}

#[test]
fn not_gzip() {
    let tar = Layer::new().file("a", b"x").bytes;
    assert!(matches!(refuse_default(&tar), ContentError::NotGzip));
    assert!(matches!(refuse_default(b""), ContentError::NotGzip));
    assert!(matches!(refuse_default(b"\x1f"), ContentError::NotGzip));
}

#[test]
fn truncated_gzip_and_truncated_tar() {
    let layer = Layer::new().file("a", &[7; 5000]).gzip();
    for cut in [2, 10, 20, layer.len() - 20] {
        assert!(
            matches!(refuse_default(&layer[..cut]), ContentError::Malformed(_)),
            "{cut}"
        );
    }
    let tar = Layer::new().file("a", &[7; 5000]).bytes;
    for cut in [100, 600, 5000] {
        assert!(
            matches!(refuse_default(&gzip(&tar[..cut])), ContentError::Malformed(_)),
            "{cut}"
        );
    }
}

#[test]
fn damaged_header_checksum() {
    let mut tar = Layer::new().file("a", b"x").bytes;
    tar[0] = b'b';
    assert!(matches!(refuse_default(&gzip(&tar)), ContentError::Malformed(_)));
}

#[test]
fn empty_archive_and_missing_end_blocks_are_fine() {
    assert_eq!(contents(&gzip(b"")), [". d 750 0"]);
    assert_eq!(
        contents(&gzip(&Layer::new().file("a", b"x").bytes)),
        [". d 750 0", "a - 600 1"]
    );
}

#[test]
fn gzip_members_in_a_row_are_one_stream() {
    let tar = Layer::new().file("a", &[1; 3000]).file("b", b"y").bytes;
    let (head, tail) = tar.split_at(700);
    let layer = [gzip(head), gzip(b""), gzip(tail)].concat();
    assert_eq!(contents(&layer), [". d 750 0", "a - 600 3000", "b - 600 1"]);
}

#[rstest]
#[case::absolute(b"/etc/passwd")]
#[case::traversal(b"../../etc/passwd")]
#[case::inner_traversal(b"a/../../b")]
#[case::backslash(b"a\\b")]
#[case::empty(b"")]
fn unsafe_names(#[case] name: &[u8]) {
    for kind in [EntryType::Regular, EntryType::Directory, EntryType::Symlink] {
        let layer = Layer::new().entry(name, kind, 0o644, b"").gzip();
        assert!(
            matches!(refuse_default(&layer), ContentError::UnsafePath { .. }),
            "{kind:?}"
        );
    }
}

#[test]
fn unsafe_names_in_extension_headers() {
    let long = Layer::new()
        .entry(b"L", EntryType::GNULongName, 0, b"../x\0")
        .file("x", b"")
        .gzip();
    assert!(matches!(refuse_default(&long), ContentError::UnsafePath { .. }));
    let nul = Layer::new()
        .entry(b"L", EntryType::GNULongName, 0, b"a\0b\0")
        .file("x", b"")
        .gzip();
    assert!(refuse_default(&nul).to_string().contains("NUL"));
    let pax = Layer::new()
        .entry(b"x", EntryType::XHeader, 0, b"15 path=/etc/x\n")
        .file("x", b"");
    assert!(refuse_default(&pax.gzip()).to_string().contains("absolute"));
}

#[rstest]
#[case::hard_link(EntryType::Link, "hard link")]
#[case::char_device(EntryType::Char, "device")]
#[case::block_device(EntryType::Block, "device")]
#[case::fifo(EntryType::Fifo, "fifo")]
#[case::gnu_sparse(EntryType::GNUSparse, "sparse file")]
#[case::unknown(EntryType::new(b'Z'), "entry of unknown type")]
fn unsupported_entries(#[case] kind: EntryType, #[case] name: &str) {
    let layer = Layer::new().entry(b"dir/x", kind, 0o644, b"").gzip();
    let message = refuse_default(&layer).to_string();
    assert_eq!(
        message,
        format!("tar entry 'dir/x' is a {name}, which is not supported")
    );
}

#[test]
fn symlinks_are_dropped_and_cannot_redirect_what_follows() {
    let layer = Layer::new()
        .entry(b"link", EntryType::Symlink, 0o777, b"")
        .file("link/inside", b"x")
        .entry(b"last", EntryType::Symlink, 0o777, b"")
        .gzip();
    assert_eq!(contents(&layer), [". d 750 0", "link d 750 0", "link/inside - 600 1"]);
}

#[test]
fn contents_where_none_belong() {
    for kind in [EntryType::Directory, EntryType::Symlink] {
        let layer = Layer::new().entry(b"x", kind, 0o755, b"body").gzip();
        assert!(matches!(refuse_default(&layer), ContentError::Malformed(_)), "{kind:?}");
    }
}

#[test]
fn two_sizes_for_one_entry() {
    let layer = Layer::new()
        .entry(b"x", EntryType::XHeader, 0, b"11 size=99\n")
        .file("a", b"x")
        .gzip();
    assert!(refuse_default(&layer).to_string().contains("two sizes"));
    let agreeing = Layer::new()
        .entry(b"x", EntryType::XHeader, 0, b"10 size=1\n")
        .file("a", b"x")
        .gzip();
    assert_eq!(contents(&agreeing), [". d 750 0", "a - 600 1"]);
}

#[test]
fn extension_headers_name_the_next_entry_only() {
    let long = "d/".repeat(60) + "file";
    let layer = Layer::new()
        .entry(b"././@LongLink", EntryType::GNULongLink, 0, b"target\0")
        .entry(
            b"././@LongLink",
            EntryType::GNULongName,
            0,
            format!("{long}\0").as_bytes(),
        )
        .file("short", b"1")
        .entry(b"g", EntryType::XGlobalHeader, 0, b"16 path=global/\n")
        .file("second", b"22")
        .gzip();
    let names = contents(&layer);
    assert!(names.contains(&format!("{long} - 600 1")), "{names:?}");
    assert!(names.contains(&"second - 600 2".to_owned()), "{names:?}");
}

#[test]
fn dangling_and_doubled_extension_headers() {
    let dangling = Layer::new().entry(b"L", EntryType::GNULongName, 0, b"a\0").gzip();
    assert!(matches!(refuse_default(&dangling), ContentError::Malformed(_)));
    let doubled = Layer::new()
        .entry(b"L", EntryType::GNULongName, 0, b"a\0")
        .entry(b"L", EntryType::GNULongName, 0, b"b\0")
        .file("x", b"");
    assert!(matches!(refuse_default(&doubled.gzip()), ContentError::Malformed(_)));
}

#[test]
fn later_entry_wins_and_conflicts_are_errors() {
    let layer = Layer::new()
        .file("a", b"first")
        .entry(b"./a", EntryType::Regular, 0o755, b"2nd")
        .gzip();
    assert_eq!(contents(&layer), [". d 750 0", "a - 700 3"]);
    let conflict = Layer::new().file("a", b"x").file("a/b", b"y").gzip();
    assert!(matches!(refuse_default(&conflict), ContentError::Conflict { .. }));
    let reverse = Layer::new().file("a/b", b"y").file("a", b"x").gzip();
    assert!(matches!(refuse_default(&reverse), ContentError::Conflict { .. }));
    let root = Layer::new().file(".", b"x").gzip();
    assert!(matches!(refuse_default(&root), ContentError::Conflict { .. }));
}

#[test]
fn directories_from_before_posix() {
    let mut layer = Layer::new().directory("old/");
    let (flag, checksum) = (156, 148..156);
    layer.bytes[flag] = 0;
    layer.bytes[checksum.clone()].fill(b' ');
    let sum: u32 = layer.bytes.iter().map(|byte| u32::from(*byte)).sum();
    layer.bytes[checksum].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let layer = layer.gzip();
    assert_eq!(contents(&layer), [". d 750 0", "old d 750 0"]);
}

#[test]
fn too_many_entries() {
    let limits = Limits {
        max_entries: 10,
        ..Limits::default()
    };
    let layer = |count: usize| {
        (0..count)
            .fold(Layer::new(), |layer, n| layer.file(&format!("f{n}"), b""))
            .gzip()
    };
    assert!(extract_with(&layer(10), &limits).is_ok());
    assert!(matches!(
        refuse(&layer(11), &limits),
        ContentError::TooLarge(Cap::Entries(10))
    ));
    // The same file over and over leaves the tree small; the headers count.
    let same = (0..11).fold(Layer::new(), |layer, _| layer.file("f", b"")).gzip();
    assert!(matches!(
        refuse(&same, &limits),
        ContentError::TooLarge(Cap::Entries(10))
    ));
}

#[test]
fn implied_directories_count_as_entries() {
    let limits = Limits {
        max_entries: 100,
        ..Limits::default()
    };
    let layer = (0..3).fold(Layer::new(), |layer, n| {
        layer.file(&format!("{n}/{}f", "d/".repeat(40)), b"")
    });
    assert!(matches!(
        refuse(&layer.gzip(), &limits),
        ContentError::TooLarge(Cap::Entries(100))
    ));
}

#[test]
fn too_deep_and_too_long() {
    let deep = format!("{}\0", "d/".repeat(65));
    let layer = Layer::new()
        .entry(b"L", EntryType::GNULongName, 0, deep.as_bytes())
        .file("x", b"")
        .gzip();
    assert!(matches!(
        refuse_default(&layer),
        ContentError::LongPath { unit: "levels", .. }
    ));
    let long = vec![b'n'; 4097];
    let layer = Layer::new()
        .entry(b"L", EntryType::GNULongName, 0, &long)
        .file("x", b"")
        .gzip();
    assert!(matches!(
        refuse_default(&layer),
        ContentError::LongPath { unit: "bytes", .. }
    ));
}

#[test]
fn long_name_bomb_is_refused_unread() {
    // 600 KB of gzip claim one long name of 600 MB; the body is never asked for.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(600 << 20);
    header.set_cksum();
    assert!(matches!(
        refuse_default(&gzip(header.as_bytes())),
        ContentError::TooLarge(Cap::ExtensionHeaders(1_048_576))
    ));
}

#[rstest]
#[case::gnu_long_name(EntryType::GNULongName)]
#[case::gnu_long_link(EntryType::GNULongLink)]
#[case::pax(EntryType::XHeader)]
#[case::pax_global(EntryType::XGlobalHeader)]
fn extension_headers_are_counted_together(#[case] kind: EntryType) {
    let limits = Limits {
        max_extension_bytes: 1000,
        ..Limits::default()
    };
    let body = match kind {
        EntryType::XHeader | EntryType::XGlobalHeader => format!("500 comment={}\n", "c".repeat(487)).into_bytes(),
        _ => vec![b'n'; 500],
    };
    let layer = |count: usize| {
        (0..count)
            .fold(Layer::new(), |layer, n| {
                layer.entry(b"x", kind, 0, &body).file(&format!("f{n}"), b"")
            })
            .gzip()
    };
    assert!(extract_with(&layer(2), &limits).is_ok());
    assert!(matches!(
        refuse(&layer(3), &limits),
        ContentError::TooLarge(Cap::ExtensionHeaders(1000))
    ));
}

#[test]
fn unpacked_size_counts_headers_and_padding() {
    let limits = Limits {
        max_unpacked: 64 * 1024,
        ..Limits::default()
    };
    assert!(extract_with(&Layer::new().file("a", &vec![1; 60_000]).gzip(), &limits).is_ok());
    let over = Layer::new().file("a", &vec![1; 66_000]).gzip();
    assert!(matches!(
        refuse(&over, &limits),
        ContentError::TooLarge(Cap::Unpacked(65_536))
    ));
    let headers = (0..200)
        .fold(Layer::new(), |layer, n| layer.directory(&format!("d{n}")))
        .gzip();
    assert!(matches!(
        refuse(&headers, &limits),
        ContentError::TooLarge(Cap::Unpacked(65_536))
    ));
}

#[test]
fn gzip_bomb() {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[0] = b'a';
    header.set_size(64 << 20);
    header.set_cksum();
    let zeros = std::io::repeat(0).take(64 << 20);
    let mut layer = Vec::new();
    let tar = std::io::Cursor::new(header.as_bytes().to_vec()).chain(zeros);
    flate2::read::GzEncoder::new(tar, flate2::Compression::best())
        .read_to_end(&mut layer)
        .unwrap();
    assert!(layer.len() < 100_000);
    assert!(matches!(
        refuse_default(&layer),
        ContentError::TooLarge(Cap::Ratio(200))
    ));
}

#[test]
fn contents_beyond_memory_are_the_same() {
    let layer = Layer::new().file("b", &[2; 9000]).file("a", &[1; 9000]).gzip();
    let spooled = Limits {
        spool_memory: 1000,
        ..Limits::default()
    };
    let mut tree = extract_with(&layer, &spooled).unwrap();
    assert!(tree.contents.is_rolled());
    let mut out = Vec::new();
    tree.write_archive(&Patterns::none(), &mut out).unwrap();
    assert_eq!(out, archive(&layer, &Patterns::none()));
}

proptest! {
    #[test]
    fn garbage_is_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        drop(extract_with(&gzip(&bytes), &Limits::default()));
        drop(extract_with(&[&[0x1f, 0x8b], bytes.as_slice()].concat(), &Limits::default()));
    }

    #[test]
    fn flipped_bytes_are_never_a_panic(at in 0usize..3000, value: u8) {
        let mut tar = Layer::new().directory("d").file("d/a", b"x").file("d/b", &[3; 700]).bytes;
        let at = at % tar.len();
        tar[at] = value;
        drop(extract_with(&gzip(&tar), &Limits::default()));
    }
}
