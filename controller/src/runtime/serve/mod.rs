//! The bounded HTTP/1 server under every port of the process: artifacts, issuer documents, metrics, probes.
//!
//! It owns its accept loop because no framework bounds connections, header time, handshake time and stalled peers
//! together. Each limit costs the offending connection only. An accept error (no file descriptors left) backs off; it
//! neither spins nor ends the server.

mod accept;
mod connection;
mod listen;
mod respond;
mod table;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use hyper::{body::Incoming, service::Service};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{accept::accept_loop, listen::TcpPort};
pub use self::{
    listen::{ListenAddress, ListenAddressError},
    respond::{empty, full, method_not_allowed, text},
};
use crate::runtime::metrics::Metrics;

/// The error type of services and bodies.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every response.
pub type ResponseBody = BoxBody<Bytes, BoxError>;

/// What [`Server::run`] serves: a hyper service that is cloned once per connection. Implemented for every type that
/// fits the bounds.
pub trait HttpService:
    Service<Request<Incoming>, Response = Response<ResponseBody>, Error: Into<BoxError>, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<T> HttpService for T where
    T: Service<Request<Incoming>, Response = Response<ResponseBody>, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The TLS configuration of a port as it changes: `None` inside keeps the port closed (connections are refused), never
/// plain.
pub type TlsSource = watch::Receiver<Option<Arc<rustls::ServerConfig>>>;

/// What one connection, and all of them together, may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Open connections, handshakes included; a further one takes the place of the longest idle one, or waits.
    pub max_connections: usize,
    /// From accept, or from the first byte after an idle phase, to the end of the request header.
    pub header_timeout: Duration,
    /// The TLS handshake as a whole.
    pub handshake_timeout: Duration,
    /// The longest time in which neither a byte is read nor one is written while a request is being answered.
    pub progress_timeout: Duration,
    /// How long a kept-alive connection may wait for its next request.
    pub idle_timeout: Duration,
}

impl Limits {
    /// Header and handshake 5 s, 30 s without progress, 30 s idle.
    pub const fn new(max_connections: usize) -> Self {
        Self {
            max_connections,
            header_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
            progress_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
        }
    }
}

/// How a port is served.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// For logs and the label `server` of the metrics.
    pub name: &'static str,
    /// See [`Limits`].
    pub limits: Limits,
    /// After the stop signal: how long open requests may take to finish.
    pub grace: Duration,
    /// `Some` serves TLS only.
    pub tls: Option<TlsSource>,
    /// Where connections are counted.
    pub metrics: Option<Metrics>,
}

impl ServeOptions {
    /// Plain HTTP, 5 s of grace, no metrics.
    pub const fn new(name: &'static str, max_connections: usize) -> Self {
        Self {
            name,
            limits: Limits::new(max_connections),
            grace: Duration::from_secs(5),
            tls: None,
            metrics: None,
        }
    }

    /// With connections counted in `metrics`.
    #[must_use]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Serves TLS with whatever configuration `tls` holds, and nothing while it holds none.
    #[must_use]
    pub fn tls(mut self, tls: TlsSource) -> Self {
        self.tls = Some(tls);
        self
    }

    /// With another grace.
    #[must_use]
    pub const fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

/// Why a port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is in use, not local, or not permitted.
    #[error("cannot listen on {address} for {name}")]
    Bind {
        /// [`ServeOptions::name`].
        name: &'static str,
        /// The address asked for.
        address: ListenAddress,
        /// What the system says.
        source: std::io::Error,
    },
    /// The server's own thread could not be started, or ended without a result.
    #[error("the thread of {name} failed")]
    Thread {
        /// [`ServeOptions::name`].
        name: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
}

/// A port that is not served yet.
#[derive(Debug)]
pub struct Server {
    port: TcpPort,
    options: ServeOptions,
}

impl Server {
    /// Binds `address`. Connections wait until [`Server::run`]; with TLS they are refused until there is a configuration.
    /// Needs no runtime.
    pub fn bind(address: &ListenAddress, options: ServeOptions) -> Result<Self, ServeError> {
        let bound = if options.tls.is_some() {
            TcpPort::reserve(address)
        } else {
            TcpPort::listen(address)
        };
        match bound {
            Ok(port) => Ok(Self { port, options }),
            Err(source) => Err(ServeError::Bind {
                name: options.name,
                address: address.clone(),
                source,
            }),
        }
    }

    /// [`ServeOptions::name`].
    pub const fn name(&self) -> &'static str {
        self.options.name
    }

    /// The bound address: the real port where port 0 was asked for.
    pub const fn local_addr(&self) -> SocketAddr {
        self.port.address()
    }

    /// Serves until `stop`, then lets open requests finish within the grace. Ends before that only when a port that was
    /// closed cannot be opened because another process listens there by now.
    pub async fn run<S: HttpService>(self, service: S, stop: CancellationToken) -> Result<(), ServeError> {
        let (name, address) = (self.options.name, self.port.address());
        let bind = |source| ServeError::Bind {
            name,
            address: address.into(),
            source,
        };
        accept_loop(self.port, self.options, service, stop).await.map_err(bind)
    }
}
