//! An OCI registry that misbehaves on order and remembers everything that reached it.
//!
//! It serves in-memory repositories over HTTP or TLS on a loopback port. [`Fault`]s are queued per route; every request is
//! recorded with its headers, client certificate, connection and TLS resumption, so that a test can assert what was *not*
//! sent. Each instance is independent; it stops when it is dropped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "test support: a broken fixture has to stop the test that uses it"
)]

mod content;
mod fault;
mod pki;
mod record;
mod serve;

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use tokio::{net::TcpListener, sync::watch, task::AbortHandle};

pub use self::{
    content::{Artifact, Entry, FLUX_CONFIG, FLUX_LAYER, INDEX, MANIFEST, Repositories, layer, sha256},
    fault::{Fault, Route},
    pki::{Authority, ClientCertificate, Leaf},
    record::{Connection, Recorded},
    serve::ClientAuth,
};

/// How long [`FaultRegistry::until`] waits.
const PATIENCE: Duration = Duration::from_mins(1);

/// Decides whether a request may see the content.
pub type Gate = Arc<dyn Fn(&Recorded) -> Verdict + Send + Sync>;
/// Answers requests for one path outside `/v2/`, such as a token endpoint.
pub type Page = Arc<dyn Fn(&Recorded) -> Response<Bytes> + Send + Sync>;

/// What a [`Gate`] says.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// Content, or 404.
    Allow,
    /// 403.
    Deny,
    /// 401 with these `WWW-Authenticate` lines.
    Challenge(Vec<String>),
}

/// TLS of a [`FaultRegistry`].
pub struct Tls {
    /// The server's certificate and key.
    pub leaf: Leaf,
    /// What it wants of clients.
    pub client_auth: ClientAuth,
    /// Whether only TLS 1.2 is spoken.
    pub tls12_only: bool,
}

/// A running registry.
pub struct FaultRegistry {
    address: SocketAddr,
    https: bool,
    state: Arc<State>,
    task: AbortHandle,
}

struct State {
    repositories: Mutex<Repositories>,
    faults: Mutex<Vec<fault::Script>>,
    records: Mutex<record::Records>,
    gate: Mutex<Gate>,
    pages: Mutex<HashMap<String, Page>>,
    changes: watch::Sender<()>,
}

impl FaultRegistry {
    /// Starts on a free port of 127.0.0.1, over plain HTTP without `tls`. Everything is allowed until [`Self::set_gate`].
    pub async fn start(tls: Option<Tls>) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), tls).await
    }

    /// The same on another address of this machine.
    pub async fn start_at(address: IpAddr, tls: Option<Tls>) -> Self {
        Self::start_on((address, 0).into(), tls).await
    }

    /// The same on a known port, where another one was before.
    pub async fn start_on(address: SocketAddr, tls: Option<Tls>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            repositories: Mutex::default(),
            faults: Mutex::default(),
            records: Mutex::default(),
            gate: Mutex::new(Arc::new(|_| Verdict::Allow)),
            pages: Mutex::default(),
            changes: watch::Sender::new(()),
        });
        let https = tls.is_some();
        let acceptor = tls.map(|tls| serve::acceptor(&tls));
        let task = tokio::spawn(serve::accept(listener, acceptor, Arc::clone(&state))).abort_handle();
        Self {
            address,
            https,
            state,
            task,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `<address>:<port>`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// `<name>:<port>`, for clients that resolve `name` to loopback.
    pub fn host_as(&self, name: &str) -> String {
        format!("{name}:{}", self.address.port())
    }

    /// `http(s)://<address>:<port>`.
    pub fn origin(&self) -> String {
        self.origin_as(&self.address.ip().to_string())
    }

    /// `oci://<address>:<port>/<repository>`.
    pub fn url(&self, repository: &str) -> String {
        format!("oci://{}/{repository}", self.host())
    }

    /// `http(s)://<name>:<port>`.
    pub fn origin_as(&self, name: &str) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{name}:{}", self.address.port())
    }

    /// Stores an artifact under a tag of a repository.
    pub fn push(&self, repository: &str, tag: &str, artifact: &Artifact) {
        self.state.repositories.lock().unwrap().push(repository, tag, artifact);
    }

    /// Direct access to what is stored.
    pub fn with_content<T>(&self, change: impl FnOnce(&mut Repositories) -> T) -> T {
        change(&mut self.state.repositories.lock().unwrap())
    }

    /// Queues a fault for the next matching request. Faults for a route apply in the order they were queued.
    pub fn once(&self, route: Route, fault: Fault) {
        self.times(1, route, fault);
    }

    /// Queues a fault for the next `count` matching requests.
    pub fn times(&self, count: usize, route: Route, fault: Fault) {
        self.state.faults.lock().unwrap().push(fault::Script {
            route,
            fault,
            left: Some(count),
        });
    }

    /// A fault for all matching requests from now on.
    pub fn always(&self, route: Route, fault: Fault) {
        self.state.faults.lock().unwrap().push(fault::Script {
            route,
            fault,
            left: None,
        });
    }

    /// Forgets all faults.
    pub fn heal(&self) {
        self.state.faults.lock().unwrap().clear();
    }

    /// Decides from now on who may see content.
    pub fn set_gate(&self, gate: impl Fn(&Recorded) -> Verdict + Send + Sync + 'static) {
        *self.state.gate.lock().unwrap() = Arc::new(gate);
    }

    /// Answers requests for `path` (without query), bypassing the gate.
    pub fn page(&self, path: &str, page: impl Fn(&Recorded) -> Response<Bytes> + Send + Sync + 'static) {
        self.state.pages.lock().unwrap().insert(path.to_owned(), Arc::new(page));
    }

    /// All requests so far, in order of arrival.
    pub fn requests(&self) -> Vec<Recorded> {
        self.state.records.lock().unwrap().requests.clone()
    }

    /// Waits until the requests so far are as wanted.
    pub async fn until(&self, what: &str, wanted: impl Fn(&[Recorded]) -> bool) {
        self.until_changed(what, || wanted(&self.requests())).await;
    }

    /// Waits until the ids of the open connections are as wanted.
    pub async fn until_open(&self, what: &str, wanted: impl Fn(&HashSet<usize>) -> bool) {
        self.until_changed(what, || wanted(&self.state.records.lock().unwrap().open))
            .await;
    }

    async fn until_changed(&self, what: &str, wanted: impl Fn() -> bool) {
        let mut changes = self.state.changes.subscribe();
        let waiting = async {
            while !wanted() {
                changes.changed().await.unwrap();
            }
        };
        let seen = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(seen.is_ok(), "not seen: {what}; seen: {:#?}", self.log());
    }

    /// `<method> <path and query>` of all requests so far.
    pub fn log(&self) -> Vec<String> {
        self.requests()
            .iter()
            .map(|request| format!("{} {}", request.method, request.target))
            .collect()
    }

    /// All completed handshakes (or accepted connections without TLS) so far.
    pub fn connections(&self) -> Vec<Connection> {
        self.state.records.lock().unwrap().connections.clone()
    }

    /// TCP connections so far, whatever became of them.
    pub fn accepted(&self) -> usize {
        self.state.records.lock().unwrap().accepted
    }

    /// Forgets what was recorded.
    pub fn clear_records(&self) {
        self.state.records.lock().unwrap().clear();
    }
}

impl Drop for FaultRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}
