//! What reached the registry: connections and requests, complete enough for leak tests.

use std::{collections::HashSet, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, header::AUTHORIZATION};

/// One accepted connection, after its TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Counts from 0.
    pub id: usize,
    /// Whether TLS resumed an earlier session; none without TLS.
    pub resumed: Option<bool>,
    /// DER of the client's leaf certificate.
    pub client_certificate: Option<Vec<u8>>,
    /// DER of everything that the client sent, leaf first.
    pub client_chain: Vec<Vec<u8>>,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The connection it came on.
    pub connection: Connection,
    /// When it arrived.
    pub at: Instant,
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// All its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Recorded {
    /// The path without query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The query, undecoded.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// One header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap_or("(not text)"))
    }

    /// The Authorization header.
    pub fn authorization(&self) -> Option<&str> {
        self.header(AUTHORIZATION.as_str())
    }

    /// The body as a form.
    pub fn form(&self) -> Vec<(String, String)> {
        url::form_urlencoded::parse(&self.body).into_owned().collect()
    }

    /// Whether `text` stands anywhere in the request: line, headers or body.
    pub fn contains(&self, text: &str) -> bool {
        let hit = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(text);
        hit(self.target.as_bytes()) || hit(&self.body) || self.headers.values().any(|value| hit(value.as_bytes()))
    }
}

#[derive(Default)]
pub(super) struct Records {
    pub(super) connections: Vec<Connection>,
    pub(super) requests: Vec<Recorded>,
    pub(super) accepted: usize,
    pub(super) open: HashSet<usize>,
    handshakes: usize,
}

impl Records {
    pub(super) fn connect(&mut self, resumed: Option<bool>, client_chain: Vec<Vec<u8>>) -> Connection {
        let connection = Connection {
            id: self.handshakes,
            resumed,
            client_certificate: client_chain.first().cloned(),
            client_chain,
        };
        self.open.insert(self.handshakes);
        self.handshakes += 1;
        self.connections.push(connection.clone());
        connection
    }

    pub(super) fn clear(&mut self) {
        self.accepted = 0;
        self.connections.clear();
        self.requests.clear();
    }
}
