//! OCI distribution client: pulls manifests and blobs with exactly the credential of one object.
//!
//! Reads registries over HTTP(S); writes nothing but to the sink it is given. Connections that carry no identity are shared,
//! those made with a client certificate belong to one object and credential generation. Fails with [`RegistryError`], whose
//! texts are fit for a condition. [`RegistryClient`] is process-wide; a pass opens a [`Session`].

mod address;
mod authorise;
mod blob;
mod body;
mod challenge;
mod circuit;
mod config;
mod error;
mod failure;
#[cfg(test)]
mod fuzz;
mod glob;
mod hash;
mod ledger;
mod link;
mod lru;
mod manifest;
mod observe;
mod permits;
mod pool;
mod proxy;
mod request;
mod resolver;
mod session;
mod tags;
mod tls;
mod token;
mod url;

use std::sync::Arc;

pub use self::{
    address::{AddressDenied, AddressPolicy},
    config::{RegistryConfig, RetryPolicy},
    error::{Failure, InvalidContent, RegistryError},
    glob::{HostGlob, HostGlobError},
    manifest::{Descriptor, ResolvedManifest},
    observe::{NoObserver, Observer, Outcome, Presentation},
    proxy::{ProxyError, ProxySettings},
    resolver::{Lookup, SystemLookup},
    session::{Session, SessionSpec, WaitListener},
    tags::{TagPage, TagScan},
    tls::{CaBundle, CaBundleError},
    url::{Origin, RepositoryUrl, Scope, UrlError},
};
use crate::credential::CredentialSource;

/// The process-wide client: pools, permits and what was learned about registries. Cheap to clone.
#[derive(Clone)]
pub struct RegistryClient {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<RegistryConfig>,
    pools: pool::Pools,
    permits: Arc<permits::Permits>,
    circuits: circuit::Circuits,
    ledger: ledger::Ledger,
}

impl RegistryClient {
    /// A client with these settings. Reads nothing yet: system roots are loaded by the first https request.
    pub fn new(config: RegistryConfig) -> Self {
        let config = Arc::new(config);
        Self {
            shared: Arc::new(Shared {
                pools: pool::Pools::new(Arc::clone(&config)),
                permits: permits::Permits::new(config.concurrency),
                circuits: circuit::Circuits::default(),
                ledger: ledger::Ledger::default(),
                config,
            }),
        }
    }

    /// Opens a session for one pass of one object. Does no I/O.
    pub fn session(&self, spec: SessionSpec, source: Arc<dyn CredentialSource>) -> Session {
        Session::new(Arc::clone(&self.shared), spec, source)
    }

    /// How many CA sets, and how many pools of connections, are kept now.
    pub fn kept(&self) -> (usize, usize) {
        self.shared.pools.kept()
    }

    /// Drops everything that belongs to an object that is gone: its certificate's connections, its exchanged tokens.
    pub fn forget(&self, object_uid: &Arc<str>) {
        self.shared.pools.forget(object_uid);
        self.shared.ledger.forget(object_uid);
    }
}
