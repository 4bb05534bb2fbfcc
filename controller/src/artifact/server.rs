//! Serves stored artifacts over HTTP: GET and HEAD of exactly the paths that the storage offers, with ranges
//! (RFC 9110 §14) and conditions (§13). `/` answers 200 for probes; there are no listings, and every miss looks the
//! same. Connections, time limits and shutdown are the business of whatever accepts connections for this service.

use std::{convert::Infallible, time::SystemTime};

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request};
use hyper::service::Service;

use super::{
    body::{self, Part},
    conditional::{Validators, Verdict},
    range::{self, Range, Ranges},
    storage::{ServedFile, Storage},
};
use crate::runtime::serve::{ResponseBody, empty, method_not_allowed, text};

/// The artifact server as a hyper service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ArtifactServer {
    storage: Storage,
}

type Answer = Response<ResponseBody>;

impl ArtifactServer {
    /// Serves what `storage` offers.
    pub fn new(storage: Storage) -> Self {
        Self { storage }
    }

    /// Answers one request; its body, if any, is not looked at.
    pub async fn respond(&self, request: request::Parts) -> Answer {
        if request.method != Method::GET && request.method != Method::HEAD {
            return method_not_allowed();
        }
        let Some(path) = decode(request.uri.path()) else {
            return not_found();
        };
        if path == "/" {
            return text(StatusCode::OK, "ok\n");
        }
        let storage = self.storage.clone();
        let opened = tokio::task::spawn_blocking(move || storage.open_served(path.trim_start_matches('/'))).await;
        match opened {
            Ok(Some(file)) => serve(&request, file),
            Ok(None) => not_found(),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
        }
    }
}

impl<B> Service<Request<B>> for ArtifactServer {
    type Response = Answer;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Answer, Infallible>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let server = self.clone();
        let (parts, _) = request.into_parts();
        Box::pin(async move { Ok(server.respond(parts).await) })
    }
}

fn serve(request: &request::Parts, opened: ServedFile) -> Answer {
    let validators = Validators::new(&opened.digest, SystemTime::from(opened.modified));
    match validators.evaluate(&request.headers) {
        Verdict::NotModified => answer(StatusCode::NOT_MODIFIED, &validators, empty()),
        Verdict::Failed => answer(StatusCode::PRECONDITION_FAILED, &validators, empty()),
        Verdict::Send => match wanted(request, &validators, opened.size) {
            Ranges::Unsatisfiable => {
                let mut refusal = answer(StatusCode::RANGE_NOT_SATISFIABLE, &validators, empty());
                set(&mut refusal, header::CONTENT_RANGE, &format!("bytes */{}", opened.size));
                refusal
            }
            Ranges::Whole => {
                let whole = Range {
                    start: 0,
                    length: opened.size,
                };
                send(
                    request,
                    opened,
                    &validators,
                    StatusCode::OK,
                    CONTENT_TYPE,
                    vec![Part::File(whole)],
                )
            }
            Ranges::Some(ranges) => send_ranges(request, opened, &validators, &ranges),
        },
    }
}

const CONTENT_TYPE: &str = "application/gzip";

/// The ranges to send. Range is defined for GET only (§14.2); two such headers are as good as none.
fn wanted(request: &request::Parts, validators: &Validators, size: u64) -> Ranges {
    let mut values = request.headers.get_all(header::RANGE).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if request.method == Method::GET && validators.allow_range(&request.headers) => {
            range::parse(value.to_str().unwrap_or_default(), size)
        }
        _ => Ranges::Whole,
    }
}

fn send_ranges(request: &request::Parts, opened: ServedFile, validators: &Validators, ranges: &[Range]) -> Answer {
    let size = opened.size;
    if let [only] = ranges {
        let mut partial = send(
            request,
            opened,
            validators,
            StatusCode::PARTIAL_CONTENT,
            CONTENT_TYPE,
            vec![Part::File(*only)],
        );
        set(&mut partial, header::CONTENT_RANGE, &only.content_range(size));
        return partial;
    }
    // A file cannot contain its own digest, so no content is taken for the boundary.
    let boundary: String = opened
        .digest
        .chars()
        .filter(char::is_ascii_hexdigit)
        .rev()
        .take(48)
        .collect();
    let mut parts = Vec::new();
    for range in ranges {
        let head = format!(
            "\r\n--{boundary}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Range: {}\r\n\r\n",
            range.content_range(size)
        );
        parts.push(Part::Text(head.into()));
        parts.push(Part::File(*range));
    }
    parts.push(Part::Text(format!("\r\n--{boundary}--\r\n").into()));
    let content_type = format!("multipart/byteranges; boundary={boundary}");
    send(
        request,
        opened,
        validators,
        StatusCode::PARTIAL_CONTENT,
        &content_type,
        parts,
    )
}

fn send(
    request: &request::Parts,
    opened: ServedFile,
    validators: &Validators,
    status: StatusCode,
    content_type: &str,
    parts: Vec<Part>,
) -> Answer {
    let length: u64 = parts.iter().map(Part::length).sum();
    let is_head = request.method == Method::HEAD;
    let body = if is_head {
        empty()
    } else {
        body::parts(opened.file, parts)
    };
    let mut sent = answer(status, validators, body);
    set(&mut sent, header::CONTENT_TYPE, content_type);
    sent.headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    sent
}

/// An answer about an existing file, with its validators.
fn answer(status: StatusCode, validators: &Validators, body: ResponseBody) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    set(&mut answer, header::ETAG, &validators.etag);
    set(
        &mut answer,
        header::LAST_MODIFIED,
        &httpdate::fmt_http_date(validators.modified),
    );
    let headers: &mut HeaderMap = answer.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// The one answer to everything that is not there, whatever the reason.
fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn set(answer: &mut Answer, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

/// Undoes percent-encoding (RFC 3986 §2.1), once: some clients encode the colon of a file name.
fn decode(path: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(decoded).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
