//! Listen addresses as Flux's flags write them, and the TCP port behind one.
//!
//! A port is reserved (bound, not listening: the kernel refuses connections) or listening. Binding may fail at start
//! only; reopening later is retried by the accept loop.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as StdListener, ToSocketAddrs},
    str::FromStr,
};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::accept::Port;

/// The kernel's queue of connections not accepted yet.
const BACKLOG: u32 = 1024;

/// `host:port`, or `:port` for all addresses of the machine; port 0 lets the kernel choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    host: Option<String>,
    port: u16,
}

/// Why a string is no [`ListenAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no listen address: want ':port', 'host:port' or '[ipv6]:port'")]
pub struct ListenAddressError(String);

impl ListenAddress {
    /// A free port on 127.0.0.1.
    pub fn loopback() -> Self {
        Self::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// The host part: `None` means all addresses.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The port part.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The addresses to try, best first. `:port` prefers the IPv6 wildcard, which takes IPv4 too, and falls back to the
    /// IPv4 one on machines without IPv6.
    fn candidates(&self) -> io::Result<Vec<SocketAddr>> {
        match &self.host {
            None => Ok(vec![
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, self.port)),
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.port)),
            ]),
            Some(host) => Ok((host.as_str(), self.port).to_socket_addrs()?.collect()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ListenAddressError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(refuse)?;
        let port = port.parse().map_err(|_| refuse())?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(v6) => Some(v6.parse::<Ipv6Addr>().map_err(|_| refuse())?.to_string()),
            None if host.is_empty() => None,
            None if host.contains([':', '[', ']', '/', ' ']) => return Err(refuse()),
            None => Some(host.to_owned()),
        };
        Ok(Self { host, port })
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: Some(address.ip().to_string()),
            port: address.port(),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.as_deref() {
            None => write!(f, ":{}", self.port),
            Some(host) if host.contains(':') => write!(f, "[{host}]:{}", self.port),
            Some(host) => write!(f, "{host}:{}", self.port),
        }
    }
}

/// A TCP port of which connections are taken or refused.
#[derive(Debug)]
pub(super) struct TcpPort {
    address: SocketAddr,
    state: State,
}

#[derive(Debug)]
enum State {
    Reserved(TcpSocket),
    /// Listening, not yet known to a runtime: connections wait in the kernel.
    Waiting(StdListener),
    Listening(TcpListener),
    /// Neither: reserving it again failed.
    Lost,
}

impl TcpPort {
    /// Listens at once: connections wait until they are accepted.
    pub(super) fn listen(address: &ListenAddress) -> io::Result<Self> {
        Self::first(address, |candidate| {
            let listener = StdListener::bind(candidate)?;
            listener.set_nonblocking(true)?;
            Ok((listener.local_addr()?, State::Waiting(listener)))
        })
    }

    /// Refuses connections until it is opened.
    pub(super) fn reserve(address: &ListenAddress) -> io::Result<Self> {
        Self::first(address, |candidate| {
            let socket = bind(candidate)?;
            Ok((socket.local_addr()?, State::Reserved(socket)))
        })
    }

    fn first(
        address: &ListenAddress,
        take: impl Fn(SocketAddr) -> io::Result<(SocketAddr, State)>,
    ) -> io::Result<Self> {
        let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no address");
        for candidate in address.candidates()? {
            match take(candidate) {
                Ok((address, state)) => return Ok(Self { address, state }),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart must not wait for connections of the process before it.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

impl Port for TcpPort {
    type Io = TcpStream;

    fn open(&mut self) -> io::Result<()> {
        self.state = match std::mem::replace(&mut self.state, State::Lost) {
            listening @ State::Listening(_) => listening,
            State::Waiting(listener) => State::Listening(TcpListener::from_std(listener)?),
            State::Reserved(socket) => State::Listening(socket.listen(BACKLOG)?),
            State::Lost => State::Listening(bind(self.address)?.listen(BACKLOG)?),
        };
        Ok(())
    }

    fn close(&mut self) {
        if !matches!(self.state, State::Reserved(_)) {
            self.state = State::Lost;
            if let Ok(socket) = bind(self.address) {
                self.state = State::Reserved(socket);
            }
        }
    }

    async fn accept(&mut self) -> io::Result<TcpStream> {
        let State::Listening(listener) = &self.state else {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "the port is closed"));
        };
        let (stream, _peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_forms_are_parsed_and_printed_back() {
        for text in [":9090", "0.0.0.0:80", "localhost:0", "[::1]:8080", "example.com:65535"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn bad_forms_are_refused_with_what_is_wanted() {
        for text in [
            "",
            "9090",
            ":",
            ":http",
            "host:70000",
            "::1:80",
            "http://x:80",
            "[::1:80",
            "a b:80",
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err().to_string();
            assert!(error.contains("want ':port'"), "{text}: {error}");
        }
    }

    #[tokio::test]
    async fn a_reserved_port_refuses_and_an_open_one_accepts() {
        let mut port = TcpPort::reserve(&ListenAddress::loopback()).unwrap();
        let address = port.address();
        assert_ne!(address.port(), 0);
        let refused = |error: io::Error| assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        refused(TcpStream::connect(address).await.unwrap_err());

        port.open().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), port.accept());
        drop((client.unwrap(), accepted.unwrap()));

        port.close();
        refused(TcpStream::connect(address).await.unwrap_err());
        port.open().unwrap();
        TcpStream::connect(address).await.unwrap();
    }

    #[tokio::test]
    async fn connections_to_a_listening_port_wait_until_they_are_accepted() {
        let mut port = TcpPort::listen(&ListenAddress::loopback()).unwrap();
        let client = TcpStream::connect(port.address()).await.unwrap();
        port.open().unwrap();
        let accepted = port.accept().await.unwrap();
        assert_eq!(accepted.peer_addr().unwrap(), client.local_addr().unwrap());
    }
}
