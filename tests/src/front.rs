//! A TCP listener in front of a server that restarts or moves, as a Service of Kubernetes stands in front of pods: clients
//! keep one address. While it holds, new connections wait; those that exist end with the server that they lead to.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// The listener. It ends when this is dropped, or with the tokio runtime of its test.
#[derive(Debug)]
pub struct Front {
    address: SocketAddr,
    target: watch::Sender<Option<SocketAddr>>,
    accepting: JoinHandle<()>,
}

impl Front {
    /// Listens on a free loopback port and leads to `target`.
    pub async fn new(target: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (target, watched) = watch::channel(Some(target.parse()?));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(lead(client, watched.clone()));
            }
        });
        Ok(Self {
            address,
            target,
            accepting,
        })
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets new connections wait.
    pub fn hold(&self) {
        self.target.send_replace(None);
    }

    /// Leads new connections, and those that wait, to `target`.
    pub fn lead_to(&self, target: &str) -> Result<()> {
        self.target.send_replace(Some(target.parse()?));
        Ok(())
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// One connection. Whatever goes wrong ends it, which is what a client sees of a server that is away.
async fn lead(mut client: TcpStream, mut target: watch::Receiver<Option<SocketAddr>>) {
    let Ok(Some(target)) = target.wait_for(Option::is_some).await.map(|target| *target) else {
        return;
    };
    if let Ok(mut server) = TcpStream::connect(target).await {
        drop(copy_bidirectional(&mut client, &mut server).await);
    }
}
