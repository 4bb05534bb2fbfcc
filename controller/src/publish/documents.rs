//! The documents in the form in which they are sent: body and headers rendered once per change, not per request.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use http::HeaderValue;
use mintmark_issuer::Documents;

/// Why a document cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The media type or the entity tag is no header value.
    #[error("the {what} of {path} is not a header value")]
    Header {
        /// `media type` or `entity tag`.
        what: &'static str,
        /// Where the document is served.
        path: String,
    },
    /// An entity tag must be quoted and strong (RFC 9110 §8.8.3).
    #[error("the entity tag of {0} is not a quoted string")]
    Tag(String),
}

/// Everything that is served at one time.
#[derive(Debug, Clone)]
pub struct PublishedDocuments {
    by_path: HashMap<String, Document>,
    pub(super) cache_control: HeaderValue,
}

#[derive(Debug, Clone)]
pub(super) struct Document {
    pub(super) body: Bytes,
    pub(super) length: HeaderValue,
    pub(super) media_type: HeaderValue,
    /// With its quotes.
    pub(super) tag: HeaderValue,
}

impl PublishedDocuments {
    /// No documents; `max_age` goes into `Cache-Control` in whole seconds.
    pub fn new(max_age: Duration) -> Self {
        let value = format!("max-age={}", max_age.as_secs());
        let cache_control = HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static("no-cache"));
        Self {
            by_path: HashMap::new(),
            cache_control,
        }
    }

    /// The documents of the key ring, each at its path.
    pub fn from_issuer(documents: &Documents) -> Result<Self, DocumentError> {
        let mut published = Self::new(documents.max_age());
        for (path, document) in documents.served() {
            published.insert(&path, document.body.clone(), document.media_type, &document.etag)?;
        }
        Ok(published)
    }

    /// Serves `body` at `path` (absolute, as in the request line). `tag` is the entity tag with its quotes.
    pub fn insert(
        &mut self,
        path: &str,
        body: impl Into<Bytes>,
        media_type: &str,
        tag: &str,
    ) -> Result<(), DocumentError> {
        let header = |what, value: &str| {
            HeaderValue::from_str(value).map_err(|_| DocumentError::Header {
                what,
                path: path.to_owned(),
            })
        };
        if tag.len() < 2 || !tag.starts_with('"') || !tag.ends_with('"') {
            return Err(DocumentError::Tag(path.to_owned()));
        }
        let body = body.into();
        let document = Document {
            length: HeaderValue::from(body.len()),
            media_type: header("media type", media_type)?,
            tag: header("entity tag", tag)?,
            body,
        };
        self.by_path.insert(path.to_owned(), document);
        Ok(())
    }

    pub(super) fn get(&self, path: &str) -> Option<&Document> {
        self.by_path.get(path)
    }

    /// The paths that are served, in no order.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.by_path.keys().map(String::as_str)
    }
}
