//! The document server at a fixed offered rate over kept-alive loopback connections, as wrk2 does it: every request has a
//! moment at which it is due, and its latency counts from that moment, so that a server that stalls does not hide the
//! requests that should have been sent meanwhile. Threads that block, because this program itself is a debug build.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::usage::Snapshot;
use crate::{
    cluster::Cluster,
    controller::{self, Controller, Installation, Ports, SIGNING_SECRET},
    pki::TestCa,
};

/// Requests before the measurement, on every connection.
const WARM_UP: usize = 100;

/// The offered load.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Requests per second over all connections.
    pub rate: u32,
    /// Kept-alive connections, one request in flight on each.
    pub connections: u32,
    /// How long.
    pub duration: Duration,
}

/// What the server did with it.
#[derive(Debug, Serialize)]
pub struct DocumentsReport {
    /// Requests per second that were due.
    pub offered_per_second: u32,
    /// Requests per second that were answered.
    pub answered_per_second: f64,
    /// Connections.
    pub connections: u32,
    /// Latency from when a request was due to the end of its answer, by percentile, in milliseconds.
    pub latency_ms: Vec<(&'static str, f64)>,
    /// CPU of the whole controller per request, in microseconds.
    pub cpu_us_per_request: f64,
}

/// Starts a controller, waits for its documents and asks for the JWKS.
pub async fn run(cluster: &Cluster, installation: &Installation, load: Load) -> Result<DocumentsReport> {
    let ca = TestCa::new("bench CA")?;
    controller::signing_secret(cluster, &installation.namespace, ca.key_and_certificate()).await?;
    let ports = Ports::free()?;
    let issuer = format!("--spiffe-issuer={}", ports.issuer_url());
    let secret = format!("--spiffe-secret-name={SIGNING_SECRET}");
    let controller = Controller::start(
        installation,
        ports,
        &["--spiffe-trust-domain=bench.example", &issuer, &secret],
    )?;
    controller.wait_ready().await?;
    let address = ports.issuer_url().replace("http://", "");
    let report = tokio::task::spawn_blocking(move || measure(&address, load)).await??;
    controller.kill()?;
    Ok(report)
}

fn measure(address: &str, load: Load) -> Result<DocumentsReport> {
    let mut connections = Vec::new();
    for _ in 0..load.connections {
        let mut connection = Connection::open(address)?;
        for _ in 0..WARM_UP {
            connection.ask()?;
        }
        connections.push(connection);
    }
    let before = Snapshot::take()?;
    let interval = Duration::from_secs(u64::from(load.connections)) / load.rate;
    let begin = Instant::now() + Duration::from_millis(50);
    let threads: Vec<_> = (0_u32..)
        .zip(connections)
        .map(|(index, connection)| {
            // Spread over the interval, so that the connections do not ask in step.
            let first = begin + interval * index / load.connections;
            thread::spawn(move || connection.at_rate(first, interval, load.duration))
        })
        .collect();
    let mut latencies = Vec::new();
    for thread in threads {
        let measured = thread.join().map_err(|_| anyhow::anyhow!("a connection panicked"))?;
        latencies.extend(measured?);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let used = Snapshot::take()?.controller_cpu_since(&before);
    latencies.sort_unstable();
    let answered = u32::try_from(latencies.len())?;
    Ok(DocumentsReport {
        offered_per_second: load.rate,
        answered_per_second: f64::from(answered) / seconds,
        connections: load.connections,
        latency_ms: percentiles(&latencies),
        cpu_us_per_request: used * 1e6 / f64::from(answered),
    })
}

/// Percentiles of sorted latencies, in milliseconds.
fn percentiles(sorted: &[Duration]) -> Vec<(&'static str, f64)> {
    let at = |per_mille: usize| {
        let index = (sorted.len() * per_mille / 1000).min(sorted.len().saturating_sub(1));
        sorted.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    };
    [("p50", 500), ("p90", 900), ("p99", 990), ("p99.9", 999), ("max", 1000)]
        .map(|(name, per_mille)| (name, at(per_mille)))
        .to_vec()
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
}

impl Connection {
    fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            request: format!("GET /keys HTTP/1.1\r\nHost: {address}\r\n\r\n").into_bytes(),
            buffer: vec![0; 64 * 1024],
        })
    }

    /// Sends one request and reads its answer to the end.
    fn ask(&mut self) -> Result<()> {
        self.stream.write_all(&self.request)?;
        let mut length = 0;
        loop {
            let free = self.buffer.get_mut(length..).context("an answer without an end")?;
            let read = self.stream.read(free)?;
            if read == 0 {
                bail!("the server closed the connection");
            }
            length += read;
            let answer = self.buffer.get(..length).unwrap_or_default();
            if is_complete(answer)? {
                return Ok(());
            }
        }
    }

    /// Asks every `interval`, or as soon as possible when behind; the latencies.
    fn at_rate(mut self, first: Instant, interval: Duration, duration: Duration) -> Result<Vec<Duration>> {
        let (mut due, end) = (first, first + duration);
        let mut latencies = Vec::new();
        while due < end {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            self.ask()?;
            latencies.push(due.elapsed());
            due += interval;
        }
        Ok(latencies)
    }
}

/// Whether the whole answer is there; an error if it is another than 200.
fn is_complete(answer: &[u8]) -> Result<bool> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(false);
    };
    let header = String::from_utf8_lossy(answer.get(..end).unwrap_or_default()).to_ascii_lowercase();
    if !header.starts_with("http/1.1 200 ") {
        bail!("an answer other than 200: {header}");
    }
    let length = header.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.context("no content-length")?.trim().parse()?;
    Ok(answer.len() >= end + 4 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_with_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        for length in 0..answer.len() {
            assert!(!is_complete(&answer[..length]).expect("no error"), "{length}");
        }
        assert!(is_complete(answer).expect("complete"));
        assert!(is_complete(b"HTTP/1.1 503 no\r\n\r\n").is_err());
    }

    #[test]
    fn percentiles_count_from_the_smallest() {
        let sorted: Vec<_> = (1..=1000).map(Duration::from_millis).collect();
        let found = percentiles(&sorted);
        assert_eq!(found[0], ("p50", 501.0));
        assert_eq!(found[2], ("p99", 991.0));
        assert_eq!(found[4], ("max", 1000.0));
        assert!(percentiles(&[])[0].1.abs() < f64::EPSILON);
    }
}
