//! Response bodies made of texts and parts of a file, read in chunks as the client takes them, so that a large artifact
//! or a slow client costs one chunk of memory.

use std::{collections::VecDeque, fs::File, io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use futures::stream::try_unfold;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::range::Range;
use crate::runtime::serve::{BoxError, ResponseBody};

/// Bytes read at a time.
const CHUNK: u64 = 128 * 1024;

/// One piece of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Text(Bytes),
    File(Range),
}

impl Part {
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File(range) => range.length,
        }
    }
}

/// The parts one after the other. A file that ends early breaks the body off, so that the client notices.
pub(super) fn parts(file: File, parts: Vec<Part>) -> ResponseBody {
    let source = (Arc::new(file), VecDeque::from(parts));
    let chunks = try_unfold(source, |(file, mut parts)| async move {
        let chunk = match parts.pop_front() {
            None => return Ok(None),
            Some(Part::Text(text)) => text,
            Some(Part::File(range)) => {
                let length = range.length.min(CHUNK);
                if length < range.length {
                    parts.push_front(Part::File(Range {
                        start: range.start + length,
                        length: range.length - length,
                    }));
                }
                let file = Arc::clone(&file);
                tokio::task::spawn_blocking(move || read_at(&file, range.start, length)).await??
            }
        };
        Ok::<_, BoxError>(Some((Frame::data(chunk), (file, parts))))
    });
    StreamBody::new(chunks).boxed()
}

fn read_at(file: &File, start: u64, length: u64) -> io::Result<Bytes> {
    let mut chunk = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut chunk, start)?;
    Ok(Bytes::from(chunk))
}
