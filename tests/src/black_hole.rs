//! A server that takes every connection and never says a word. On every address of this machine, so that it can stand for
//! thousands of hosts.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::env::DEADLINE;

/// The server. Its connections break when it is dropped.
#[derive(Debug)]
pub struct BlackHole {
    address: SocketAddr,
    taken: watch::Receiver<usize>,
    accepting: JoinHandle<()>,
}

impl BlackHole {
    /// Listens on a free port.
    pub async fn new() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        let address = listener.local_addr()?;
        let (count, taken) = watch::channel(0);
        let accepting = tokio::spawn(async move {
            let mut connections = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.push(connection);
                count.send_replace(connections.len());
            }
        });
        Ok(Self {
            address,
            taken,
            accepting,
        })
    }

    /// Waits until it has taken so many connections.
    pub async fn until(&self, connections: usize) -> Result<()> {
        let mut taken = self.taken.clone();
        let seen = tokio::time::timeout(DEADLINE, taken.wait_for(|taken| *taken >= connections)).await;
        seen.context("too few connections")??;
        Ok(())
    }

    /// The host with this number: `127.<a>.<b>.<c>:<port>`.
    pub fn host(&self, number: usize) -> String {
        let [_, a, b, c] = u32::try_from(number)
            .unwrap_or_default()
            .saturating_add(1)
            .to_be_bytes();
        format!("127.{a}.{b}.{c}:{}", self.address.port())
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
