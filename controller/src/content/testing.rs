//! Builds layers for tests byte by byte, so that they can hold what no tar library would write.

use std::io::{Read, Write};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use tar::{EntryType, Header};

use super::{ContentError, Limits, Patterns, Tree, extract, ustar};

/// A tar stream under construction.
#[derive(Default)]
pub(crate) struct Layer {
    pub(crate) bytes: Vec<u8>,
}

impl Layer {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Any entry, its name taken literally (at most 100 bytes).
    pub(crate) fn entry(mut self, name: &[u8], kind: EntryType, mode: u32, body: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(body.len() as u64);
        header.set_mtime(1_700_000_000);
        header.set_uid(1000);
        header.set_gid(1000);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(body);
        ustar::write_padding(&mut self.bytes, body.len() as u64).unwrap();
        self
    }

    pub(crate) fn file(self, name: &str, body: &[u8]) -> Self {
        self.entry(name.as_bytes(), EntryType::Regular, 0o644, body)
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.entry(name.as_bytes(), EntryType::Directory, 0o755, b"")
    }

    /// The gzip'd layer with its end-of-archive blocks.
    pub(crate) fn gzip(mut self) -> Vec<u8> {
        ustar::write_end(&mut self.bytes).unwrap();
        gzip(&self.bytes)
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

pub(crate) fn extract_with(layer: &[u8], limits: &Limits) -> Result<Tree, ContentError> {
    extract(layer, limits, &std::env::temp_dir())
}

/// Extracts and archives again.
pub(crate) fn archive(layer: &[u8], patterns: &Patterns) -> Vec<u8> {
    let mut out = Vec::new();
    extract_with(layer, &Limits::default())
        .unwrap()
        .write_archive(patterns, &mut out)
        .unwrap();
    out
}

/// `name kind mode size` of each entry, as the tar crate reads it.
pub(crate) fn listing(archive: &[u8]) -> Vec<String> {
    let tar = gunzip(archive);
    let mut reader = tar::Archive::new(tar.as_slice());
    let entries = reader.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let header = entry.header();
        let kind = if header.entry_type().is_dir() { 'd' } else { '-' };
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        format!("{name} {kind} {:o} {}", header.mode().unwrap(), entry.size())
    });
    entries.collect()
}
