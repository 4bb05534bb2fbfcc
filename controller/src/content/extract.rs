//! Reads a layer's gzip'd tar into a [`Tree`]. Headers are taken raw from the tar parser, and extension headers are
//! read here, because the parser would put a long name of any size into memory.
//!
//! Regular files and directories are kept. Symlinks are dropped. Everything else is an error. Of two entries with one
//! path the later counts; a path that is both file and directory is an error, as it is for untar. What follows the end
//! of the archive is not read.

use std::{
    cell::Cell,
    io::{BufRead, BufReader, Cursor, Read},
    path::Path,
};

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

use super::{
    error::{Cap, ContentError, from_read, shown},
    limits::Limits,
    meter::{Metered, Taken},
    path::elements,
    pax::{self, PaxRecords},
    tree::{FileNode, Tree},
};

/// Extracts `layer` under `limits`. Contents larger than the spool's memory go to an unlinked file in `spool_dir`.
///
/// Several gzip members in a row are one stream. An empty archive is valid and yields an empty tree.
pub fn extract(layer: impl Read, limits: &Limits, spool_dir: &Path) -> Result<Tree, ContentError> {
    let taken = Cell::new(0);
    let compressed = Taken {
        inner: require_gzip(layer)?,
        count: &taken,
    };
    let unpacked = Metered::new(MultiGzDecoder::new(compressed), &taken, limits);
    let mut archive = Archive::new(unpacked);
    let mut extraction = Extraction::new(limits, spool_dir);
    for entry in archive.entries().map_err(|error| from_read(&error))?.raw(true) {
        extraction.entry(entry.map_err(|error| from_read(&error))?)?;
    }
    extraction.finish()
}

/// Checks the magic number (RFC 1952 §2.3.1) and hands the stream on from its first byte.
fn require_gzip(layer: impl Read) -> Result<impl BufRead, ContentError> {
    let mut layer = BufReader::with_capacity(COPY_BUFFER, layer);
    let mut magic = Vec::with_capacity(2);
    layer
        .by_ref()
        .take(2)
        .read_to_end(&mut magic)
        .map_err(|error| from_read(&error))?;
    if magic != [0x1f, 0x8b] {
        return Err(ContentError::NotGzip);
    }
    Ok(Cursor::new(magic).chain(layer))
}

const COPY_BUFFER: usize = 32 * 1024;

struct Extraction<'a> {
    limits: &'a Limits,
    tree: Tree,
    headers: u32,
    extension_bytes: u64,
    spooled: u64,
    buffer: Vec<u8>,
    /// Extension headers that describe the next entry.
    long_name: Option<Vec<u8>>,
    pax: Option<PaxRecords>,
}

impl<'a> Extraction<'a> {
    fn new(limits: &'a Limits, spool_dir: &Path) -> Self {
        Self {
            limits,
            tree: Tree::new(limits, spool_dir),
            headers: 0,
            extension_bytes: 0,
            spooled: 0,
            buffer: vec![0; COPY_BUFFER],
            long_name: None,
            pax: None,
        }
    }

    fn entry<R: Read>(&mut self, mut entry: Entry<'_, R>) -> Result<(), ContentError> {
        self.headers = self.headers.saturating_add(1);
        if self.headers > self.limits.max_entries {
            return Err(ContentError::TooLarge(Cap::Entries(self.limits.max_entries)));
        }
        match entry.header().entry_type() {
            EntryType::GNULongName => {
                let name = self.extension(&mut entry)?;
                set_once(&mut self.long_name, without_terminator(name))
            }
            EntryType::XHeader => {
                let records = pax::parse(&self.extension(&mut entry)?)?;
                set_once(&mut self.pax, records)
            }
            // The target of a link is never used; a global header speaks of no entry in particular.
            EntryType::GNULongLink | EntryType::XGlobalHeader => self.extension(&mut entry).map(drop),
            kind => self.member(kind, entry),
        }
    }

    /// The body of an extension header, counted before it is read.
    fn extension<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<Vec<u8>, ContentError> {
        let cap = self.limits.max_extension_bytes;
        self.extension_bytes = self.extension_bytes.saturating_add(entry.size());
        if self.extension_bytes > cap {
            return Err(ContentError::TooLarge(Cap::ExtensionHeaders(cap)));
        }
        let mut body = Vec::new();
        entry.read_to_end(&mut body).map_err(|error| from_read(&error))?;
        if body.len() as u64 != entry.size() {
            return Err(ContentError::Malformed(
                "unexpected end of an extension header".to_owned(),
            ));
        }
        Ok(body)
    }

    fn member<R: Read>(&mut self, kind: EntryType, mut entry: Entry<'_, R>) -> Result<(), ContentError> {
        let pax = self.pax.take().unwrap_or_default();
        let raw = self
            .long_name
            .take()
            .or(pax.path)
            .unwrap_or_else(|| entry.path_bytes().into_owned());
        let path = elements(&raw, self.limits)?;
        if pax.size.is_some_and(|size| size != entry.size()) {
            return Err(ContentError::Malformed(format!(
                "tar entry '{}' has two sizes",
                shown(&raw)
            )));
        }
        match kind {
            EntryType::Regular | EntryType::Continuous if !is_old_directory(&entry, &raw) => {
                let file = self.contents(&mut entry, &raw)?;
                self.tree.nodes.file(&path, file)?;
            }
            EntryType::Regular | EntryType::Continuous | EntryType::Directory => {
                require_no_contents(&entry, &raw)?;
                self.tree.nodes.directory(&path)?;
            }
            EntryType::Symlink => require_no_contents(&entry, &raw)?,
            other => {
                return Err(ContentError::UnsupportedEntry {
                    path: shown(&raw),
                    kind: describe(other),
                });
            }
        }
        self.tree.check_count(self.limits)
    }

    /// Appends a file's contents to the spool.
    fn contents<R: Read>(&mut self, entry: &mut Entry<'_, R>, raw: &[u8]) -> Result<FileNode, ContentError> {
        // Some writers leave the field blank.
        let mode = entry.header().mode().unwrap_or_default();
        let file = FileNode {
            offset: self.spooled,
            size: entry.size(),
            executable: mode & 0o111 != 0,
        };
        let mut copied: u64 = 0;
        loop {
            let read = entry.read(&mut self.buffer).map_err(|error| from_read(&error))?;
            let Some(bytes) = self.buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
                break;
            };
            self.tree.spool(bytes)?;
            copied = copied.saturating_add(read as u64);
        }
        if copied != file.size {
            return Err(ContentError::Malformed(format!(
                "unexpected end of tar entry '{}'",
                shown(raw)
            )));
        }
        self.spooled = self.spooled.saturating_add(copied);
        Ok(file)
    }

    fn finish(self) -> Result<Tree, ContentError> {
        if self.long_name.is_some() || self.pax.is_some() {
            return Err(ContentError::Malformed("extension header without an entry".to_owned()));
        }
        Ok(self.tree)
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T) -> Result<(), ContentError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ContentError::Malformed(
            "two extension headers of one kind for one entry".to_owned(),
        )),
    }
}

/// GNU tar ends a long name with one NUL.
fn without_terminator(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
}

/// Before POSIX, a directory was a regular file (flag NUL) whose name ends with a slash.
fn is_old_directory<R: Read>(entry: &Entry<'_, R>, raw: &[u8]) -> bool {
    entry.header().as_old().linkflag == [0] && raw.last() == Some(&b'/')
}

/// Readers disagree on whether such an entry has a body, and so on where the next header stands.
fn require_no_contents<R: Read>(entry: &Entry<'_, R>, raw: &[u8]) -> Result<(), ContentError> {
    if entry.size() == 0 {
        return Ok(());
    }
    Err(ContentError::Malformed(format!(
        "tar entry '{}' is no file but has contents",
        shown(raw)
    )))
}

fn describe(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Link => "hard link",
        EntryType::Char | EntryType::Block => "device",
        EntryType::Fifo => "fifo",
        EntryType::GNUSparse => "sparse file",
        _ => "entry of unknown type",
    }
}

#[cfg(test)]
#[path = "extract_tests.rs"]
mod tests;
