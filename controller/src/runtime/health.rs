//! `/healthz` and `/readyz`: the process is live as long as it answers (a task that ends ends the process), and ready when
//! every named gate is open.
//!
//! A gate begins closed with the reason `starting`. Reasons are shown to whoever can reach the port: they name states,
//! never secret values. Plain text by default, JSON for `Accept: application/json`.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::service::Service;
use serde::Serialize;

use super::serve::{ResponseBody, empty, full, method_not_allowed, text};

/// A gate's reason while it is closed, `None` while open.
type Gates = BTreeMap<Cow<'static, str>, Option<Cow<'static, str>>>;

/// The gates of the process and the service that shows them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health {
    gates: Arc<Mutex<Gates>>,
}

/// One condition of readiness. Cheap to clone; all clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate {
    name: Cow<'static, str>,
    health: Health,
}

#[derive(Serialize)]
struct Report<'a> {
    ready: bool,
    gates: BTreeMap<&'a str, GateReport<'a>>,
}

#[derive(Serialize)]
struct GateReport<'a> {
    open: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Health {
    /// No gates: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// The gate `name`, closed until [`Gate::open`] if it is new.
    pub fn gate(&self, name: impl Into<Cow<'static, str>>) -> Gate {
        let name = name.into();
        let starting = Some(Cow::Borrowed("starting"));
        self.lock().entry(name.clone()).or_insert(starting);
        Gate {
            name,
            health: self.clone(),
        }
    }

    /// Whether every gate is open.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(Option::is_none)
    }

    fn lock(&self) -> MutexGuard<'_, Gates> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, json: bool) -> Response<ResponseBody> {
        let gates = self.lock().clone();
        let ready = gates.values().all(Option::is_none);
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        if json {
            json_report(status, &gates)
        } else {
            text(status, plain_report(ready, &gates))
        }
    }

    /// Answers one request; the body is ignored.
    pub fn respond<B>(&self, request: &Request<B>) -> Response<ResponseBody> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return method_not_allowed();
        }
        let accept = request
            .headers()
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok());
        let json = accept.is_some_and(|accept| accept.contains("application/json"));
        let mut response = match request.uri().path() {
            "/healthz" | "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" => self.report(json),
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        };
        if request.method() == Method::HEAD {
            *response.body_mut() = empty();
        }
        response
    }
}

impl Gate {
    /// Opens it.
    pub fn open(&self) {
        self.set(None);
    }

    /// Closes it; `reason` says what is being waited for.
    pub fn close(&self, reason: impl Into<Cow<'static, str>>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, state: Option<Cow<'static, str>>) {
        let previous = self.health.lock().insert(self.name.clone(), state.clone());
        if previous.as_ref() != Some(&state) {
            match state {
                None => tracing::info!(gate = &*self.name, "readiness gate opened"),
                Some(reason) => tracing::info!(gate = &*self.name, %reason, "readiness gate closed"),
            }
        }
    }
}

impl<B> Service<Request<B>> for Health {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<B>) -> Self::Future {
        ready(Ok(self.respond(&request)))
    }
}

/// One line per gate, in the form of the API server's own `/readyz`.
fn plain_report(ready: bool, gates: &Gates) -> String {
    use std::fmt::Write as _;
    let mut report = String::new();
    for (name, reason) in gates {
        // Writing to a String does not fail.
        let _ = match reason {
            None => writeln!(report, "[+]{name} ok"),
            Some(reason) => writeln!(report, "[-]{name} {reason}"),
        };
    }
    report.push_str(if ready { "ready\n" } else { "not ready\n" });
    report
}

fn json_report(status: StatusCode, gates: &Gates) -> Response<ResponseBody> {
    let gates = gates.iter().map(|(name, reason)| {
        (
            &**name,
            GateReport {
                open: reason.is_none(),
                reason: reason.as_deref(),
            },
        )
    });
    let report = Report {
        ready: status.is_success(),
        gates: gates.collect(),
    };
    let mut response = text(status, "");
    *response.body_mut() = full(serde_json::to_vec(&report).unwrap_or_default());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn get(health: &Health, path: &str, accept: &str) -> (StatusCode, String) {
        let request = Request::get(path).header(header::ACCEPT, accept).body(()).unwrap();
        let response = health.respond(&request);
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn ready_only_when_every_gate_is_open() {
        let health = Health::new();
        let (stores, crds) = (health.gate("stores"), health.gate("crds"));
        assert_eq!(get(&health, "/readyz", "*/*").await.0, StatusCode::SERVICE_UNAVAILABLE);
        stores.open();
        crds.close("ocirepositories lacks spec.credential");
        let (status, body) = get(&health, "/readyz", "*/*").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            body,
            "[-]crds ocirepositories lacks spec.credential\n[+]stores ok\nnot ready\n"
        );
        crds.open();
        assert_eq!(
            get(&health, "/readyz", "*/*").await,
            (StatusCode::OK, "[+]crds ok\n[+]stores ok\nready\n".into())
        );
        assert!(health.is_ready());
    }

    #[tokio::test]
    async fn an_unready_process_is_live() {
        let health = Health::new();
        health.gate("leading").close("not leading");
        assert_eq!(get(&health, "/healthz", "*/*").await, (StatusCode::OK, "ok\n".into()));
    }

    #[tokio::test]
    async fn json_names_the_reasons() {
        let health = Health::new();
        health.gate("stores");
        let (status, body) = get(&health, "/readyz", "application/json").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            body,
            r#"{"ready":false,"gates":{"stores":{"open":false,"reason":"starting"}}}"#
        );
    }

    #[tokio::test]
    async fn taking_a_gate_twice_keeps_its_state() {
        let health = Health::new();
        health.gate("stores").open();
        health.gate("stores");
        assert!(health.is_ready());
    }

    #[tokio::test]
    async fn other_paths_and_methods() {
        let health = Health::new();
        assert_eq!(get(&health, "/", "*/*").await.0, StatusCode::NOT_FOUND);
        let response = health.respond(&Request::post("/readyz").body(()).unwrap());
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
    }
}
