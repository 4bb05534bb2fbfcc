//! What can be made to go wrong, and where.

use http::Method;

use super::Recorded;

/// Which requests a fault is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Any request.
    Any,
    /// HEAD of a manifest.
    ManifestHead,
    /// GET of a manifest.
    ManifestGet,
    /// GET of a blob.
    Blob,
    /// GET of a page of a tag list.
    Tags,
    /// Any request whose path is exactly this.
    Path(String),
    /// Any request whose body contains this text.
    Body(String),
}

/// What happens instead of the right answer, or to it.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This answer instead.
    Answer {
        /// Status code.
        status: u16,
        /// Headers.
        headers: Vec<(&'static str, String)>,
        /// Body.
        body: String,
    },
    /// The connection is closed without an answer.
    Reset,
    /// No answer ever, on a connection that stays open.
    Hang,
    /// Only the first bytes of the body arrive, then the connection is cut.
    Truncate(usize),
    /// Only the first bytes of the body arrive, then nothing more, without end.
    Stall(usize),
    /// The body's last byte is another one.
    Corrupt,
    /// The body is followed by these many more bytes, and `Content-Length` says so.
    Lengthen(usize),
    /// The body lacks its last bytes, and `Content-Length` says so.
    Shorten(usize),
    /// Another `Content-Type`, or none.
    ContentType(Option<&'static str>),
    /// Without `Docker-Content-Digest`.
    NoDigest,
    /// `Range` is ignored: 200 and everything.
    IgnoreRange,
    /// 206 with another range than asked for.
    WrongRange,
    /// The body comes in chunks, without `Content-Length`.
    Chunked,
}

impl Fault {
    /// An answer with a status and nothing else.
    pub fn status(status: u16) -> Self {
        Self::Answer {
            status,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// An answer with a status and `Retry-After`.
    pub fn retry_after(status: u16, value: impl Into<String>) -> Self {
        Self::Answer {
            status,
            headers: vec![("retry-after", value.into())],
            body: String::new(),
        }
    }

    /// A redirect.
    pub fn redirect(location: impl Into<String>) -> Self {
        Self::Answer {
            status: 307,
            headers: vec![("location", location.into())],
            body: String::new(),
        }
    }

    /// A web page with status 200.
    pub fn html() -> Self {
        Self::Answer {
            status: 200,
            headers: vec![("content-type", "text/html; charset=utf-8".to_owned())],
            body: "<html><body>please log in</body></html>".to_owned(),
        }
    }
}

pub(super) struct Script {
    pub(super) route: Route,
    pub(super) fault: Fault,
    /// Requests it is still for; none means all.
    pub(super) left: Option<usize>,
}

impl Script {
    pub(super) fn matches(&self, request: &Recorded) -> bool {
        let path = request.path();
        self.left != Some(0)
            && match &self.route {
                Route::Any => true,
                Route::ManifestHead => request.method == Method::HEAD && path.contains("/manifests/"),
                Route::ManifestGet => request.method == Method::GET && path.contains("/manifests/"),
                Route::Blob => request.method == Method::GET && path.contains("/blobs/"),
                Route::Tags => request.method == Method::GET && path.ends_with("/tags/list"),
                Route::Path(wanted) => path == wanted,
                Route::Body(text) => String::from_utf8_lossy(&request.body).contains(text),
            }
    }
}
