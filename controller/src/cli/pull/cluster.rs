//! An API server made of manifests: answers GETs of Secrets and service accounts, and refuses everything else. It lets the
//! steps of a pass run unchanged where there is no cluster.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use tower_service::Service;

use super::manifests::Manifests;

/// The service under a Kubernetes client.
#[derive(Clone)]
pub(super) struct FileCluster(Arc<Manifests>);

impl FileCluster {
    /// Answers from `manifests`.
    pub(super) fn new(manifests: Manifests) -> Self {
        Self(Arc::new(manifests))
    }

    fn answer(&self, method: &Method, path: &str) -> (StatusCode, Value) {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let refused = |message: String| failure(StatusCode::NOT_FOUND, "NotFound", &message);
        match (method, parts.as_slice()) {
            (
                &Method::GET,
                [
                    "api",
                    "v1",
                    "namespaces",
                    namespace,
                    plural @ ("secrets" | "serviceaccounts"),
                    name,
                ],
            ) => {
                let kind = if *plural == "secrets" {
                    "Secret"
                } else {
                    "ServiceAccount"
                };
                match self.0.get(kind, namespace, name) {
                    Some(object) => (StatusCode::OK, object.clone()),
                    None => refused(format!("{kind} {namespace}/{name} is not in the file")),
                }
            }
            (_, [.., "serviceaccounts", _, "token"]) => {
                refused("a ServiceAccount token needs a cluster, which this command works without".to_owned())
            }
            _ => refused(format!("{method} {path}: there is no cluster")),
        }
    }
}

fn failure(code: StatusCode, reason: &str, message: &str) -> (StatusCode, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message,
        "code": code.as_u16()});
    (code, status)
}

impl<B> Service<Request<B>> for FileCluster {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (code, body) = self.answer(request.method(), request.uri().path());
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = code;
        ready(Ok(response))
    }
}
