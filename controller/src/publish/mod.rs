//! Serves what verifiers need to trust our credentials: discovery, keys and bundle, from memory, on a thread and runtime
//! of its own, so that neither reconciling nor an API server that is away delays them. A registry asks on the pull path.
//!
//! The documents come through a watch channel; before the first ones, and never after, the answer is 503.

mod config_map;
mod documents;
mod input;
mod service;
mod state;
#[cfg(test)]
mod tests;
mod tls;

use std::{io, net::SocketAddr, sync::Arc, thread};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use self::{
    config_map::ConfigMapCopy,
    documents::{DocumentError, PublishedDocuments},
    service::PublishService,
    state::{FollowError, STATE_SECRET, StateFollower},
    tls::{TlsFollower, TlsSecretError},
};
use crate::runtime::serve::{ServeError, Server};

/// Open connections, no limit per peer: a registry is one peer.
pub const MAX_CONNECTIONS: usize = 1_024;

/// The name of the server in logs and metrics.
pub const SERVER: &str = "issuer";

/// Where the current documents come from.
pub type DocumentSource = watch::Receiver<Option<Arc<PublishedDocuments>>>;

/// The running thread.
#[derive(Debug)]
pub struct PublishThread {
    name: &'static str,
    address: SocketAddr,
    ended: oneshot::Receiver<Result<(), ServeError>>,
}

/// Serves `documents` on the port of `server` until `stop`, on a thread of its own. Fails when the thread cannot be
/// started.
pub fn spawn_thread(
    server: Server,
    documents: DocumentSource,
    stop: CancellationToken,
) -> Result<PublishThread, ServeError> {
    let (name, address) = (SERVER, server.local_addr());
    let failed = |source| ServeError::Thread { name, source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let (sender, ended) = oneshot::channel();
    let work = move || {
        let outcome = runtime.block_on(server.run(PublishService::new(documents), stop));
        // Nobody may be waiting any more.
        let _ = sender.send(outcome);
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(failed)?;
    Ok(PublishThread { name, address, ended })
}

impl PublishThread {
    /// The bound address.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Resolves when the thread has ended; an error when it did not end in order (the port is taken, a panic).
    pub async fn ended(self) -> Result<(), ServeError> {
        let name = self.name;
        let panicked = |_| ServeError::Thread {
            name,
            source: io::Error::other("it panicked"),
        };
        self.ended.await.map_err(panicked)?
    }
}
