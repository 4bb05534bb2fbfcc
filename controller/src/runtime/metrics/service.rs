//! The `/metrics` endpoint: `OpenMetrics` text, which Prometheus takes by its content type.

use std::{convert::Infallible, pin::Pin};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::service::Service;

use super::Metrics;
use crate::runtime::serve::{ResponseBody, empty, full, method_not_allowed, text};

/// `OpenMetrics` 1.0, section "Content type".
const CONTENT_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

impl<B> Service<Request<B>> for Metrics {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        let metrics = self.clone();
        let (head, _body) = request.into_parts();
        Box::pin(async move {
            Ok(match (&head.method, head.uri.path()) {
                (&Method::GET, "/metrics") => metrics.exposition().await,
                (&Method::HEAD, "/metrics") => metrics.exposition().await.map(|_| empty()),
                (&Method::GET | &Method::HEAD, _) => text(StatusCode::NOT_FOUND, "not found\n"),
                _ => method_not_allowed(),
            })
        })
    }
}

impl Metrics {
    /// Encodes on a blocking thread: 5,000 objects are megabytes of text.
    async fn exposition(self) -> Response<ResponseBody> {
        let encoded = tokio::task::spawn_blocking(move || self.encode()).await;
        let Ok(Ok(encoded)) = encoded else {
            return text(StatusCode::INTERNAL_SERVER_ERROR, "cannot encode metrics\n");
        };
        let mut response = text(StatusCode::OK, "");
        *response.body_mut() = full(encoded);
        response.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
        response
    }
}
