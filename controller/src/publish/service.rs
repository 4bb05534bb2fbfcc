//! Answers one request from the current documents (RFC 9110 §9.3.1, §9.3.2, §13.1.2).

use std::{
    convert::Infallible,
    future::{Ready, ready},
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::service::Service;

use super::{DocumentSource, PublishedDocuments, documents::Document};
use crate::runtime::serve::{ResponseBody, empty, full, method_not_allowed, text};

/// Serves the documents of a [`DocumentSource`].
#[derive(Debug, Clone)]
pub struct PublishService {
    documents: DocumentSource,
}

impl PublishService {
    /// Whatever `documents` holds at the time of a request.
    pub const fn new(documents: DocumentSource) -> Self {
        Self { documents }
    }

    /// Answers `request`; its body is ignored.
    pub fn respond<B>(&self, request: &Request<B>) -> Response<ResponseBody> {
        let mut response = self.answer(request);
        // Public keys: scripts of any origin may read them.
        response
            .headers_mut()
            .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        if request.method() == Method::HEAD {
            *response.body_mut() = empty();
        }
        response
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<ResponseBody> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return method_not_allowed();
        }
        let documents = self.documents.borrow().clone();
        let Some(documents) = documents else {
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "not published yet\n");
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        };
        match documents.get(request.uri().path()) {
            None => text(StatusCode::NOT_FOUND, "not found\n"),
            Some(document) => send(&documents, document, request.headers()),
        }
    }
}

fn send(documents: &PublishedDocuments, document: &Document, request: &HeaderMap) -> Response<ResponseBody> {
    let mut response = Response::new(empty());
    let unchanged = is_known(&document.tag, request);
    let headers = response.headers_mut();
    headers.insert(header::ETAG, document.tag.clone());
    headers.insert(header::CACHE_CONTROL, documents.cache_control.clone());
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    headers.insert(header::CONTENT_TYPE, document.media_type.clone());
    headers.insert(header::CONTENT_LENGTH, document.length.clone());
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    *response.body_mut() = full(document.body.clone());
    response
}

/// Whether `If-None-Match` names `tag`, by the weak comparison of RFC 9110 §8.8.3.2.
fn is_known(tag: &HeaderValue, request: &HeaderMap) -> bool {
    let lists = request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).any(|candidate| {
        candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate).as_bytes() == tag.as_bytes()
    })
}

impl<B> Service<Request<B>> for PublishService {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        ready(Ok(self.respond(&request)))
    }
}
