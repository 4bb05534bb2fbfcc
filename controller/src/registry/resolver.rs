//! Name resolution with the address rules built in.
//!
//! The connector dials exactly what this resolver returns, so a name cannot change its address between check and use.
//! Reads the operating system's resolver through [`Lookup`]; fails with [`AddressDenied`] when nothing allowed is left.

use std::{io, net::SocketAddr, sync::Arc};

use futures::{FutureExt as _, future::BoxFuture};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::{AddressDenied, AddressPolicy, Reach};

/// Turns a host name into addresses.
pub trait Lookup: Send + Sync {
    /// All addresses of `name`, their ports without meaning.
    fn lookup<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>>;
}

/// The operating system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }.boxed()
    }
}

/// A [`Lookup`] that keeps allowed addresses only.
pub(super) struct FilteringResolver {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) policy: Arc<AddressPolicy>,
    pub(super) reach: Reach,
}

impl Resolve for FilteringResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, policy, reach) = (Arc::clone(&self.lookup), Arc::clone(&self.policy), self.reach);
        async move {
            let mut denied: Option<AddressDenied> = None;
            let mut addresses = lookup.lookup(name.as_str()).await?;
            addresses.retain(|address| match policy.check(address.ip(), reach) {
                Ok(()) => true,
                Err(reason) => {
                    denied = Some(reason);
                    false
                }
            });
            match denied {
                Some(reason) if addresses.is_empty() => Err(reason.into()),
                _ => Ok(Box::new(addresses.into_iter()) as Addrs),
            }
        }
        .boxed()
    }
}
