//! A webhook receiver as the notification-controller is one: what `--events-addr` posts arrives here, and is answered with
//! 200 or with the faults that are queued.

use bytes::Bytes;
use http::{Method, Response};
use serde_json::Value;

use crate::fault_registry::{Fault, FaultRegistry, Route};

const PATH: &str = "/";

/// The receiver. It ends when it is dropped.
pub struct Receiver(FaultRegistry);

/// What one post tells, without its object and times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// `info` or `error`.
    pub severity: String,
    /// Why.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Receiver {
    /// Starts on a free loopback port.
    pub async fn start() -> Self {
        let server = FaultRegistry::start(None).await;
        server.page(PATH, |_| Response::new(Bytes::new()));
        Self(server)
    }

    /// The flag that leads here.
    pub fn flag(&self) -> String {
        format!("--events-addr={}{PATH}", self.0.origin())
    }

    /// What becomes of the next post about the object `name`. The issuer tells of its keys meanwhile.
    pub fn fail(&self, name: &str, fault: Fault) {
        self.0.once(Route::Body(format!("\"name\":\"{name}\"")), fault);
    }

    /// The bodies that arrived so far about the object `name`, in order, also those that were answered with a fault.
    pub fn bodies(&self, name: &str) -> Vec<Value> {
        let requests = self.0.requests();
        let posts = requests.iter().filter(|request| request.method == Method::POST);
        posts
            .filter_map(|post| serde_json::from_slice::<Value>(&post.body).ok())
            .filter(|body| body.pointer("/involvedObject/name").and_then(Value::as_str) == Some(name))
            .collect()
    }

    /// The same in short.
    pub fn posts(&self, name: &str) -> Vec<Post> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let bodies = self.bodies(name);
        let posts = bodies.iter().map(|body| Post {
            severity: text(&body["severity"]),
            reason: text(&body["reason"]),
            message: text(&body["message"]),
        });
        posts.collect()
    }
}
