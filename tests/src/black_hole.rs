//! A server that takes every connection and never says a word. On every address of this machine, so that it can stand for
//! thousands of hosts.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::{net::TcpListener, task::JoinHandle};

/// The server. Its connections break when it is dropped.
#[derive(Debug)]
pub struct BlackHole {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl BlackHole {
    /// Listens on a free port.
    pub async fn new() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            let mut connections = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.push(connection);
            }
        });
        Ok(Self { address, accepting })
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
