//! The accept loop. What is over the limit costs an idle connection its place (see [`Table`]), or waits in the kernel while
//! all are busy. Handshakes run in the connection's own task and never hold up the loop.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{
    HttpService, ServeOptions, TlsSource,
    connection::{Closed, serve_connection},
    table::{Place, Table},
};

/// First and longest pause after an accept error. A second is short enough to go unnoticed once descriptors are free
/// again, and long enough not to burn the processor until then.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A source of connections that can be closed and opened again.
pub(super) trait Port: Send {
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Starts taking connections; does nothing when it already does.
    fn open(&mut self) -> io::Result<()>;

    /// Refuses connections from now on; does nothing when it already does.
    fn close(&mut self);

    /// The next connection. Cancel safe.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Io>> + Send;
}

/// Serves until `stop`; the error is that of a port that another process has taken.
pub(super) async fn accept_loop<P: Port, S: HttpService>(
    port: P,
    options: ServeOptions,
    service: S,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut acceptor = Acceptor {
        port,
        table: Table::new(options.limits),
        waiting: None,
        tls: options.tls.clone(),
        name: options.name,
        failures: 0,
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = acceptor.next() => {
                connections.spawn(accepted?.serve(options.clone(), service.clone(), stop.clone()));
            }
        }
    }
    acceptor.port.close();
    drop(acceptor);
    let finished = timeout(options.grace, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
    if finished.is_err() {
        tracing::info!(
            server = options.name,
            connections = connections.len(),
            "closing connections after the grace"
        );
        connections.shutdown().await;
    }
    Ok(())
}

struct Acceptor<P: Port> {
    port: P,
    table: Table,
    /// A connection that has no place yet.
    waiting: Option<(P::Io, Option<TlsAcceptor>)>,
    tls: Option<TlsSource>,
    name: &'static str,
    failures: u32,
}

struct Accepted<I> {
    io: I,
    tls: Option<TlsAcceptor>,
    place: Place,
}

impl<P: Port> Acceptor<P> {
    /// Waits for a connection and for a place for it. Cancel safe.
    async fn next(&mut self) -> io::Result<Accepted<P::Io>> {
        loop {
            if self.waiting.is_none() {
                self.waiting = Some(self.accept().await?);
            }
            let place = self.table.place().await;
            if let Some((io, tls)) = self.waiting.take() {
                return Ok(Accepted { io, tls, place });
            }
        }
    }

    /// Waits for a TLS configuration where one is needed, and for a connection. Cancel safe.
    async fn accept(&mut self) -> io::Result<(P::Io, Option<TlsAcceptor>)> {
        loop {
            let tls = match &mut self.tls {
                None => None,
                Some(source) => {
                    let config = source.borrow_and_update().clone();
                    if config.is_none() {
                        self.port.close();
                        changed(Some(source)).await;
                        continue;
                    }
                    config.map(TlsAcceptor::from)
                }
            };
            let accepted = if let Err(error) = self.port.open() {
                Err(error)
            } else {
                tokio::select! {
                    accepted = self.port.accept() => accepted,
                    () = changed(self.tls.as_mut()) => continue,
                }
            };
            match accepted {
                Ok(io) => {
                    self.failures = 0;
                    return Ok((io, tls));
                }
                // Somebody else listens where this port was kept closed: it will not get better by itself.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Err(error),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => self.pause(&error).await,
            }
        }
    }

    async fn pause(&mut self, error: &io::Error) {
        self.failures = self.failures.saturating_add(1);
        // Lines at 1, 2, 4, 8 … failures: a lasting shortage does not fill the log.
        if self.failures.is_power_of_two() {
            tracing::error!(server = self.name, %error, failures = self.failures, "cannot accept connections");
        }
        let factor = 1_u32.checked_shl(self.failures.saturating_sub(1)).unwrap_or(u32::MAX);
        sleep(PAUSE.0.saturating_mul(factor).min(PAUSE.1)).await;
    }
}

/// Resolves when the TLS configuration moved; never without a source, or after its sender has gone (the last
/// configuration stays).
async fn changed(source: Option<&mut TlsSource>) {
    let gone = match source {
        Some(source) => source.changed().await.is_err(),
        None => true,
    };
    if gone {
        std::future::pending::<()>().await;
    }
}

/// Errors that `accept(2)` reports for the one connection that was to be accepted; the next may be taken at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

impl<I: AsyncRead + AsyncWrite + Unpin + Send + 'static> Accepted<I> {
    async fn serve<S: HttpService>(self, options: ServeOptions, service: S, stop: CancellationToken) {
        let Self { io, tls, place } = self;
        let _open = options
            .metrics
            .as_ref()
            .map(|metrics| metrics.connection_opened(options.name));
        let closed = match tls {
            None => serve_connection(io, service, &place, stop).await,
            Some(tls) => {
                let handshake = timeout(options.limits.handshake_timeout, tls.accept(io));
                let accepted = tokio::select! {
                    accepted = handshake => accepted,
                    () = stop.cancelled() => return,
                    () = place.evict.cancelled() => return,
                };
                place.activity.restart();
                match accepted {
                    Ok(Ok(io)) => serve_connection(io, service, &place, stop).await,
                    Ok(Err(_)) => Closed::HandshakeFailed,
                    Err(_) => Closed::HandshakeTimeout,
                }
            }
        };
        if let (Some(metrics), Some(reason)) = (&options.metrics, closed.limit()) {
            metrics.connection_cut(options.name, reason);
        }
        drop(place);
    }
}
