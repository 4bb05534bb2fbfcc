//! Fuzz targets for what stands in a layer: the tar stream and the ignore rules. What is unpacked must keep within its
//! caps, name nothing outside its root, and be archived the same way again; rules are held to what their grammar says of
//! every list.

use bolero::{Driver, check, generator::ValueGenerator};
use tar::EntryType;

use super::{
    Limits, Patterns, Verdict,
    testing::{Layer, extract_with, gunzip, gzip},
};
use crate::fuzzing::{BRIEFLY, Edited, ROUNDS, assert_fit_for_a_condition, below, pick};

const LIMITS: Limits = Limits {
    max_entries: 20,
    max_depth: 5,
    max_path: 64,
    max_extension_bytes: 512,
    max_unpacked: 64 * 1024,
    max_ratio: 200,
    ratio_free: 32 * 1024,
    spool_memory: 1024,
};

const NAMES: [&[u8]; 9] = [
    b"a",
    b"a/b",
    b"a/b/c.yaml",
    b"./d/",
    b".",
    b"b//c",
    b".sourceignore",
    b"a/.sourceignore",
    b"b.jpg",
];

const BAD_NAMES: [&[u8]; 9] = [
    b"/etc/passwd",
    b"../x",
    b"a/../../x",
    b"a\\b",
    b"",
    b"\xff",
    b"very/deep/in/the/tree/indeed",
    b"nul\0name",
    b"0123456789012345678901234567890123456789012345678901234567890123456789",
];

const KINDS: [EntryType; 3] = [EntryType::Regular, EntryType::Directory, EntryType::Symlink];

const ODD_KINDS: [EntryType; 6] = [
    EntryType::Link,
    EntryType::Continuous,
    EntryType::GNULongName,
    EntryType::XHeader,
    EntryType::XGlobalHeader,
    EntryType::GNUSparse,
];

const BODIES: [&[u8]; 8] = [
    b"",
    b"x",
    b"*.jpg\n!/a\n",
    b"11 path=a\n",
    b"12 path=../x\n",
    b"9 size=7\n99 path=",
    &[b'l'; 100],
    &[0; 4096],
];

/// A stream of entries with names, kinds and bodies that do not always go together, then a few bytes of it changed; some
/// headers have their checksums mended, so that the change is looked at.
struct Streams;

impl ValueGenerator for Streams {
    type Output = Vec<u8>;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<Vec<u8>> {
        let mut layer = Layer::new();
        for _ in 0..below(driver, 24)? {
            let name = seldom(driver, &BAD_NAMES, &NAMES)?;
            let kind = seldom(driver, &ODD_KINDS, &KINDS)?;
            let body = match kind {
                EntryType::Directory | EntryType::Symlink => b"",
                _ => pick(driver, &BODIES)?,
            };
            layer = layer.entry(name, kind, (0..0o10000).generate(driver)?, body);
        }
        let mut bytes = layer.bytes;
        if driver.produce::<bool>()? {
            bytes.extend([0; 1024]);
        }
        for _ in 0..below(driver, 4)? {
            let at = below(driver, bytes.len() + 1)?;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = driver.produce::<u8>()?;
            }
            mend_checksum(&mut bytes, at);
        }
        if below(driver, 8)? == 0 {
            bytes.truncate(below(driver, bytes.len() + 1)?);
        }
        let mut layer = gzip(&bytes);
        if below(driver, 16)? == 0 {
            let at = below(driver, layer.len())?;
            layer[at] = driver.produce::<u8>()?;
        }
        Some(layer)
    }
}

/// One of `odd` in one of sixteen cases, else one of `plain`.
fn seldom<D: Driver, T: Copy>(driver: &mut D, odd: &[T], plain: &[T]) -> Option<T> {
    let from = if below(driver, 16)? == 0 { odd } else { plain };
    pick(driver, from)
}

/// Sets the checksum of the block around `at` (POSIX.1-1988 §10.1.1: bytes 148 to 155, themselves counted as spaces).
fn mend_checksum(bytes: &mut [u8], at: usize) {
    let start = at / 512 * 512;
    let Some(block) = bytes.get_mut(start..start + 512) else {
        return;
    };
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

#[test]
fn tar() {
    check!()
        .with_test_time(BRIEFLY)
        .with_iterations(ROUNDS)
        .with_generator(Streams)
        .for_each(|layer| {
            let mut tree = match extract_with(layer, &LIMITS) {
                Ok(tree) => tree,
                Err(error) => return assert_fit_for_a_condition(&error.to_string()),
            };
            let patterns = tree.patterns(None).expect("little text");
            for patterns in [Patterns::none(), patterns] {
                let mut archive = Vec::new();
                let summary = tree.write_archive(&patterns, &mut archive).expect("in memory");
                let listed = is_safe(&archive);
                assert_eq!(listed as u64, summary.directories + summary.files);
                is_archived_again_alike(&archive);
            }
        });
}

/// Looked at with the tar crate alone: every name stays within the root, once and in order. Returns how many there are.
fn is_safe(archive: &[u8]) -> usize {
    let tar = gunzip(archive);
    assert!(tar.len() as u64 <= 2 * LIMITS.max_unpacked);
    let mut reader = ::tar::Archive::new(tar.as_slice());
    let mut names = Vec::new();
    for entry in reader.entries().expect("an archive") {
        let entry = entry.expect("an entry");
        let name = String::from_utf8(entry.path_bytes().into_owned()).expect("UTF-8");
        let header = entry.header();
        let allowed: &[u32] = match header.entry_type() {
            EntryType::Directory => &[0o750],
            EntryType::Regular => &[0o600, 0o700],
            other => panic!("{other:?}"),
        };
        assert!(allowed.contains(&header.mode().expect("a mode")));
        assert_eq!(
            (header.uid().ok(), header.gid().ok(), header.mtime().ok()),
            (Some(0), Some(0), Some(0))
        );
        if name != "." {
            let elements: Vec<String> = name.split('/').map(str::to_owned).collect();
            assert!(
                elements.len() <= LIMITS.max_depth && name.len() <= LIMITS.max_path,
                "{name}"
            );
            let is_plain =
                |element: &String| !["", ".", ".."].contains(&element.as_str()) && !element.contains(['\\', '\0']);
            assert!(elements.iter().all(is_plain), "{name}");
            names.push(elements);
        }
    }
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    assert!(names.len() <= LIMITS.max_entries as usize);
    names.len() + 1
}

/// An archive of ours is a layer; it comes out as it went in.
fn is_archived_again_alike(archive: &[u8]) {
    let limits = Limits {
        max_entries: LIMITS.max_entries + 1,
        max_unpacked: 4 * LIMITS.max_unpacked,
        ..Limits::default()
    };
    let mut again = Vec::new();
    extract_with(archive, &limits)
        .expect("our own archive")
        .write_archive(&Patterns::none(), &mut again)
        .expect("in memory");
    assert!(again == archive, "not the same bytes");
}

const RULES: Edited = Edited {
    documents: &[
        "# comment\n\n*.jpg\n!/keep.jpg\n/deploy/\ndocs/**/draft?.md\n",
        "/*\n!/deploy\n!/deploy/**\n",
        "**/node_modules/\nfoo\\ \n[a-z]*.[ch]\n\\!bang\n\\#hash\r\n",
        "a/**/b\na**b\n**\n/\n!\n",
    ],
    words: &[
        "*", "**", "?", "[", "]", "[!a]", "[a-", "\\", "/", "!", "#", " ", "\\ ", "\r\n", "\n", "**/", "/**", "é", "\0",
    ],
};

const PATHS: [&[&str]; 8] = [
    &["keep.jpg"],
    &["deploy", "app.yaml"],
    &["docs", "a", "b", "draft1.md"],
    &["node_modules", "x"],
    &["foo "],
    &["a", "b"],
    &["#hash"],
    &["deploy"],
];

#[test]
fn ignore() {
    check!()
        .with_test_time(BRIEFLY)
        .with_iterations(ROUNDS)
        .with_generator((RULES, RULES, 0..PATHS.len(), bolero::generator::produce::<bool>()))
        .for_each(|(first, second, path, is_directory)| {
            let (first, second) = (String::from_utf8_lossy(first), String::from_utf8_lossy(second));
            let (path, is_directory) = (PATHS[*path], *is_directory);
            let of = |text: &str, domain: &[&str]| {
                let mut patterns = Patterns::none();
                patterns.add(text, domain);
                patterns
            };
            let verdict = |text: &str| {
                let mut steps = 0;
                let verdict = of(text, &[]).verdict_within(path, is_directory, &mut steps);
                let bound = (text.len() as u64 + 1) * (path.join("/").len() as u64 + 2);
                assert!(steps <= bound, "{steps} steps for {text:?}");
                verdict
            };
            // The last rule that matches decides, so the later text does if it says anything.
            let both = verdict(&format!("{first}\n{second}"));
            match verdict(&second) {
                Verdict::Unmentioned => assert_eq!(both, verdict(&first)),
                later => assert_eq!(both, later),
            }
            assert_eq!(verdict(&format!("{first}\n# {}\n\n", "a comment")), verdict(&first));
            // Rules of a directory say nothing of what is beside it, and within it what they would say at the root.
            let within: Vec<&str> = ["dir"].into_iter().chain(path.iter().copied()).collect();
            let scoped = of(&first, &["dir"]);
            assert_eq!(scoped.verdict(path, is_directory), Verdict::Unmentioned);
            assert_eq!(scoped.verdict(&within, is_directory), verdict(&first));
        });
}
