use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    BoxError, HttpService, ResponseBody, ServeOptions,
    accept::{Port, accept_loop},
    text,
};
use crate::runtime::metrics::Metrics;

mod full;
mod ports;
mod tls;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

/// A port that hands out what the test sends it.
struct ScriptedPort {
    connections: mpsc::UnboundedReceiver<io::Result<DuplexStream>>,
    open: Arc<AtomicBool>,
}

impl Port for ScriptedPort {
    type Io = DuplexStream;

    fn open(&mut self) -> io::Result<()> {
        self.open.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn close(&mut self) {
        self.open.store(false, Ordering::Relaxed);
    }

    async fn accept(&mut self) -> io::Result<DuplexStream> {
        match self.connections.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }
}

/// A server over in-memory connections. Time is paused, so waiting costs nothing and durations are exact.
struct Fixture {
    sender: mpsc::UnboundedSender<io::Result<DuplexStream>>,
    open: Arc<AtomicBool>,
    stop: CancellationToken,
    server: JoinHandle<io::Result<()>>,
}

impl Fixture {
    fn start<S: HttpService>(options: ServeOptions, service: S) -> Self {
        let (sender, connections) = mpsc::unbounded_channel();
        let open = Arc::new(AtomicBool::new(false));
        let port = ScriptedPort {
            connections,
            open: Arc::clone(&open),
        };
        let stop = CancellationToken::new();
        let server = tokio::spawn(accept_loop(port, options, service, stop.clone()));
        Self {
            sender,
            open,
            stop,
            server,
        }
    }

    fn connect(&self) -> DuplexStream {
        let (client, server) = duplex(1024);
        self.sender.send(Ok(server)).unwrap();
        client
    }
}

fn options(max_connections: usize) -> ServeOptions {
    ServeOptions::new("test", max_connections)
}

fn hello() -> impl HttpService {
    service_fn(|_request: Request<Incoming>| async { Ok::<_, Infallible>(text(StatusCode::OK, "hello")) })
}

/// A service that tells when a request has begun, and answers it when told to.
fn gated() -> (Arc<Notify>, Arc<Notify>, impl HttpService) {
    let (begun, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (on_begin, on_finish) = (Arc::clone(&begun), Arc::clone(&finish));
    let service = service_fn(move |_request: Request<Incoming>| {
        let (begun, finish) = (Arc::clone(&on_begin), Arc::clone(&on_finish));
        async move {
            begun.notify_one();
            finish.notified().await;
            Ok::<_, Infallible>(text(StatusCode::OK, "hello"))
        }
    });
    (begun, finish, service)
}

/// Sends one request on a kept-alive connection and reads its answer up to the body `hello`.
async fn ask(client: &mut DuplexStream) -> io::Result<String> {
    client.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"hello") {
        if client.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8(answer).unwrap())
}

/// Reads until the server closes; the seconds that took.
async fn closed_after(client: &mut DuplexStream) -> u64 {
    let start = Instant::now();
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest).await;
    start.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn requests_are_answered_on_a_kept_alive_connection() {
    let fixture = Fixture::start(options(2), hello());
    let mut client = fixture.connect();
    for _ in 0..3 {
        assert!(ask(&mut client).await.unwrap().starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_is_closed_after_5_seconds() {
    let fixture = Fixture::start(options(2), hello());
    assert_eq!(closed_after(&mut fixture.connect()).await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_header_that_trickles_in_is_closed_after_5_seconds() {
    let fixture = Fixture::start(options(2), hello());
    let mut client = fixture.connect();
    let start = Instant::now();
    for byte in REQUEST {
        if client.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(start.elapsed() <= Duration::from_secs(7), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_second_header_that_stops_halfway_is_closed_after_5_seconds() {
    let fixture = Fixture::start(options(2), hello());
    let mut client = fixture.connect();
    ask(&mut client).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    client.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    assert_eq!(closed_after(&mut client).await, 5);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_after_30_seconds() {
    let fixture = Fixture::start(options(2), hello());
    let mut client = fixture.connect();
    ask(&mut client).await.unwrap();
    assert_eq!(closed_after(&mut client).await, 30);
}

/// A body of 100 pieces of 1,000 bytes.
fn long_body() -> ResponseBody {
    let piece = || Ok::<_, BoxError>(http_body::Frame::data(Bytes::from(vec![b'x'; 1_000])));
    let frames = futures::stream::iter((0..100).map(move |_| piece()));
    BodyExt::boxed(StreamBody::new(frames))
}

fn long_answer() -> impl HttpService {
    service_fn(|_request: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(long_body())) })
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stalls_is_closed_after_30_seconds() {
    let metrics = Metrics::default();
    let fixture = Fixture::start(options(1).metrics(metrics.clone()), long_answer());
    let mut stalled = fixture.connect();
    stalled.write_all(REQUEST).await.unwrap();
    let mut next = fixture.connect();
    let start = Instant::now();
    next.write_all(REQUEST).await.unwrap();
    next.read_u8().await.unwrap();
    assert_eq!(start.elapsed().as_secs(), 30, "the only place is free again");
    let text = metrics.encode().unwrap();
    assert!(
        text.contains(r#"connections_cut_total{server="test",reason="no_progress"} 1"#),
        "{text}"
    );
    assert!(
        text.contains(r#"mintmark_server_connections{server="test"} 1.0"#),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_that_goes_on_is_served_to_the_end() {
    let fixture = Fixture::start(options(2), long_answer());
    let mut client = fixture.connect();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut total = 0;
    let mut piece = [0; 1024];
    loop {
        tokio::time::sleep(Duration::from_secs(20)).await;
        match client.read(&mut piece).await.unwrap() {
            0 => break,
            read => total += read,
        }
    }
    assert!(total > 100_000, "{total}");
}

#[tokio::test(start_paused = true)]
async fn half_open_connections_do_not_delay_others() {
    let fixture = Fixture::start(options(64), hello());
    let half_open: Vec<_> = (0..50).map(|_| fixture.connect()).collect();
    let start = Instant::now();
    ask(&mut fixture.connect()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    drop(half_open);
}

#[tokio::test(start_paused = true)]
async fn stop_closes_idle_connections_and_lets_requests_finish() {
    let (begun, finish, slow) = gated();
    let fixture = Fixture::start(options(4), slow);
    let untouched = fixture.connect();
    let mut client = fixture.connect();
    let asking = tokio::spawn(async move { ask(&mut client).await });
    begun.notified().await;
    fixture.stop.cancel();
    finish.notify_one();
    assert!(asking.await.unwrap().unwrap().contains("connection: close"));
    let start = Instant::now();
    fixture.server.await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(!fixture.open.load(Ordering::Relaxed));
    drop(untouched);
}

#[tokio::test(start_paused = true)]
async fn the_grace_ends_requests_that_do_not_finish() {
    let begun = Arc::new(Notify::new());
    let on_begin = Arc::clone(&begun);
    let never = service_fn(move |_request: Request<Incoming>| {
        on_begin.notify_one();
        std::future::pending::<Result<Response<ResponseBody>, Infallible>>()
    });
    let fixture = Fixture::start(options(4).grace(Duration::from_secs(3)), never);
    let mut client = fixture.connect();
    client.write_all(REQUEST).await.unwrap();
    begun.notified().await;
    let start = Instant::now();
    fixture.stop.cancel();
    fixture.server.await.unwrap().unwrap();
    assert_eq!(start.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn accept_errors_back_off_and_pass() {
    let fixture = Fixture::start(options(4), hello());
    for _ in 0..10 {
        fixture.sender.send(Err(io::Error::from_raw_os_error(24))).unwrap();
    }
    let start = Instant::now();
    ask(&mut fixture.connect()).await.unwrap();
    // 10 + 20 + … + 640 ms, then a second each.
    assert_eq!(start.elapsed(), Duration::from_millis(1_270 + 3_000));
}

#[tokio::test(start_paused = true)]
async fn an_aborted_connection_costs_the_next_one_nothing() {
    let fixture = Fixture::start(options(4), hello());
    fixture
        .sender
        .send(Err(io::ErrorKind::ConnectionAborted.into()))
        .unwrap();
    let start = Instant::now();
    ask(&mut fixture.connect()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_header_of_megabytes_is_refused() {
    let fixture = Fixture::start(options(4), hello());
    let mut client = fixture.connect();
    let _ = client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nx: ").await;
    let mut sent = 0;
    while sent < 1_000_000 && client.write_all(&[b'y'; 512]).await.is_ok() {
        sent += 512;
    }
    assert!(sent < 100_000, "{sent}");
}
