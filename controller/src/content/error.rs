//! Why a layer's contents were refused. Messages end up in conditions, so an entry's path is shown escaped and cut.

use std::{fmt, io};

/// The cap that a layer ran into; prints as it stands in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cap {
    /// More headers and directories than [`super::Limits::max_entries`].
    Entries(u32),
    /// More extension header bytes than [`super::Limits::max_extension_bytes`].
    ExtensionHeaders(u64),
    /// More decompressed bytes than [`super::Limits::max_unpacked`].
    Unpacked(u64),
    /// A higher compression ratio than [`super::Limits::max_ratio`].
    Ratio(u64),
    /// More bytes of `.sourceignore` files and `spec.ignore` than this.
    IgnoreRules(u64),
    /// Ignore rules that take more steps to apply than this.
    IgnoreSteps(u64),
}

impl fmt::Display for Cap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entries(limit) => write!(f, "more than {limit} entries"),
            Self::ExtensionHeaders(limit) => write!(f, "more than {limit} bytes of extension headers"),
            Self::Unpacked(limit) => write!(f, "more than {limit} bytes when unpacked"),
            Self::Ratio(limit) => write!(f, "compressed by more than {limit} to 1"),
            Self::IgnoreRules(limit) => write!(f, "more than {limit} bytes of ignore rules"),
            Self::IgnoreSteps(limit) => write!(f, "ignore rules that take more than {limit} steps to apply"),
        }
    }
}

/// Why a layer could not be extracted or archived.
///
/// All but [`ContentError::Spool`], [`ContentError::SourceIgnore`] and [`ContentError::Write`] are properties of the layer: the same bytes fail again.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// The first two bytes are not those of gzip (RFC 1952).
    #[error("layer is not gzip compressed")]
    NotGzip,
    /// The compressed stream or the archive in it is torn or malformed.
    #[error("layer is not a valid gzip compressed tar archive: {0}")]
    Malformed(String),
    /// A cap was exceeded.
    #[error("layer has {0}")]
    TooLarge(Cap),
    /// The path is absolute, empty, not UTF-8, or holds `..`, a backslash or NUL.
    #[error("tar entry '{path}' has an unsafe path: {why}")]
    UnsafePath {
        /// Sanitised path.
        path: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// Path longer or deeper than the caps.
    #[error("tar entry '{path}' has a path of more than {limit} {unit}")]
    LongPath {
        /// Sanitised path.
        path: String,
        /// The cap.
        limit: usize,
        /// `bytes` or `levels`.
        unit: &'static str,
    },
    /// A hard link, device, fifo, sparse or unknown entry.
    #[error("tar entry '{path}' is a {kind}, which is not supported")]
    UnsupportedEntry {
        /// Sanitised path.
        path: String,
        /// What it is.
        kind: &'static str,
    },
    /// One path is both a file and a directory.
    #[error("tar entry '{path}' is both a file and a directory")]
    Conflict {
        /// Sanitised path.
        path: String,
    },
    /// The unpacked contents could not be kept.
    #[error("could not keep the unpacked contents: {0}")]
    Spool(#[source] io::Error),
    /// A `.sourceignore` file that was unpacked could not be read again.
    #[error("could not read .sourceignore: {0}")]
    SourceIgnore(#[source] io::Error),
    /// The archive could not be written.
    #[error("could not write the archive: {0}")]
    Write(#[source] io::Error),
}

impl ContentError {
    /// True when the layer itself is at fault, false when this machine is.
    pub fn is_layer_fault(&self) -> bool {
        !matches!(self, Self::Spool(_) | Self::SourceIgnore(_) | Self::Write(_))
    }
}

/// Longest part of a path that a message shows, in characters.
const SHOWN: usize = 128;

/// Longest text of the tar parser that a message shows, in bytes: it quotes names and fields of the layer as they are.
const QUOTED: usize = 512;

/// A path as messages show it: control characters and non-ASCII escaped, cut after 128 characters.
pub(super) fn shown(path: &[u8]) -> String {
    escaped(path, SHOWN)
}

fn escaped(bytes: &[u8], limit: usize) -> String {
    let shown = bytes.iter().take(limit).flat_map(|byte| byte.escape_ascii());
    let mut text: String = shown.map(char::from).collect();
    if bytes.len() > limit {
        text.push_str("...");
    }
    text
}

/// Carries a [`Cap`] through `io::Read` interfaces of the parsers between the meter and the extraction.
#[derive(Debug)]
pub(super) struct CapExceeded(pub(super) Cap);

impl fmt::Display for CapExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "layer has {}", self.0)
    }
}

impl std::error::Error for CapExceeded {}

/// What an I/O error from below the tar parser means.
pub(super) fn from_read(error: &io::Error) -> ContentError {
    if let Some(CapExceeded(cap)) = cap_within(error) {
        return ContentError::TooLarge(*cap);
    }
    ContentError::Malformed(escaped(error.to_string().as_bytes(), QUOTED))
}

/// The tar parser wraps the errors of its reader; the cap may stand at any depth.
fn cap_within(error: &io::Error) -> Option<&CapExceeded> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = error.get_ref().map(|inner| inner as _);
    while let Some(current) = next {
        if let Some(cap) = current.downcast_ref::<CapExceeded>() {
            return Some(cap);
        }
        next = match current.downcast_ref::<io::Error>() {
            Some(io) => io.get_ref().map(|inner| inner as _),
            None => current.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_shown_escaped_and_cut() {
        assert_eq!(shown(b"a\nb\x1b[31m\xff"), "a\\nb\\x1b[31m\\xff");
        assert_eq!(shown(&[b'x'; 500]), format!("{}...", "x".repeat(128)));
    }

    #[test]
    fn cap_is_found_inside_wrapped_errors() {
        let inner = io::Error::other(CapExceeded(Cap::Ratio(200)));
        let wrapped = io::Error::other(io::Error::other(inner));
        assert!(matches!(from_read(&wrapped), ContentError::TooLarge(Cap::Ratio(200))));
        assert!(matches!(from_read(&io::Error::other("x")), ContentError::Malformed(_)));
    }

    #[test]
    fn what_the_parser_quotes_is_escaped() {
        let error = io::Error::other("not a number: 0\u{1e}");
        assert!(matches!(from_read(&error), ContentError::Malformed(text) if text == "not a number: 0\\x1e"));
    }
}
