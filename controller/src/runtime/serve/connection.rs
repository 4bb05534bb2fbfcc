//! One connection: hyper drives HTTP/1, this module watches that something happens.
//!
//! hyper's own header timeout also runs while a kept-alive connection is idle and it has none for stalled reads and
//! writes. So the I/O object and the service note what they see in an [`Activity`], and the future that drives the
//! connection compares it with the limits, with one timer per connection that is only ever moved when it fires or has
//! to fire sooner.

use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{BoxError, HttpService, Limits, ResponseBody, table::Place};

/// Buffer per connection and direction; also the largest request header. Real clients send under 8 KiB.
const BUFFER: usize = 32 * 1024;

/// Header fields of one request; hyper answers 431 above.
const MAX_HEADERS: usize = 64;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// By the peer, by an error of the peer, or by the stop signal.
    Done,
    HeaderTimeout,
    ProgressTimeout,
    IdleTimeout,
    HandshakeTimeout,
    HandshakeFailed,
    /// To make place for another.
    Evicted,
}

impl Closed {
    /// The label of the limit that was hit; `None` for an ordinary end.
    pub(super) const fn limit(self) -> Option<&'static str> {
        match self {
            Self::Done | Self::IdleTimeout => None,
            Self::HeaderTimeout => Some("header_timeout"),
            Self::ProgressTimeout => Some("no_progress"),
            Self::HandshakeTimeout => Some("handshake_timeout"),
            Self::HandshakeFailed => Some("handshake_failed"),
            Self::Evicted => Some("evicted"),
        }
    }
}

pub(super) async fn serve_connection<I, S>(io: I, service: S, place: &Place, stop: CancellationToken) -> Closed
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: HttpService,
{
    let activity = &place.activity;
    let io = TokioIo::new(WatchedIo {
        io,
        activity: Arc::clone(activity),
    });
    let service = WatchedService {
        service,
        activity: Arc::clone(activity),
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_buf_size(BUFFER)
        .serve_connection(io, service);

    let mut connection = pin!(connection);
    let mut timer = pin!(sleep_until(activity.deadline().0));
    let mut stopped = pin!(stop.cancelled());
    let mut evicted = pin!(place.evict.cancelled());
    let (mut stopping, mut evicting) = (false, false);
    poll_fn(|cx| {
        if !stopping && stopped.as_mut().poll(cx).is_ready() {
            stopping = true;
            if !activity.touched() {
                return Poll::Ready(Closed::Done);
            }
            connection.as_mut().graceful_shutdown();
        }
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Closed::Done);
        }
        // After the connection was looked at: a request that has arrived meanwhile is answered.
        if !evicting && evicted.as_mut().poll(cx).is_ready() {
            evicting = true;
            if activity.idle_since().is_some() {
                return Poll::Ready(Closed::Evicted);
            }
            connection.as_mut().graceful_shutdown();
        }
        loop {
            let (deadline, closed) = activity.deadline();
            if timer.deadline() > deadline {
                timer.as_mut().reset(deadline);
            }
            ready!(timer.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(closed);
            }
            timer.as_mut().reset(deadline);
        }
    })
    .await
}

/// Waiting for, or reading, a request header since [`Activity::since`].
const HEADER: u8 = 0;
/// A request is being answered.
const BUSY: u8 = 1;
/// The answer was given out; the next request has not begun.
const IDLE: u8 = 2;

/// What a connection did last. Times are nanoseconds since `start`.
pub(super) struct Activity {
    limits: Limits,
    start: Instant,
    phase: AtomicU8,
    since: AtomicU64,
    progress: AtomicU64,
    touched: AtomicBool,
    write_blocked: AtomicBool,
}

impl Activity {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            start: Instant::now(),
            phase: AtomicU8::new(HEADER),
            since: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            touched: AtomicBool::new(false),
            write_blocked: AtomicBool::new(false),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn read(&self) {
        let now = self.now();
        self.touched.store(true, Ordering::Relaxed);
        self.progress.store(now, Ordering::Relaxed);
        if self.phase.load(Ordering::Relaxed) == IDLE {
            self.since.store(now, Ordering::Relaxed);
            self.phase.store(HEADER, Ordering::Relaxed);
        }
    }

    fn wrote(&self, blocked: bool) {
        self.write_blocked.store(blocked, Ordering::Relaxed);
        if !blocked {
            self.progress.store(self.now(), Ordering::Relaxed);
        }
    }

    fn enter(&self, phase: u8) {
        self.progress.store(self.now(), Ordering::Relaxed);
        self.phase.store(phase, Ordering::Relaxed);
    }

    /// Counts the time for the header from now: the handshake has its own.
    pub(super) fn restart(&self) {
        let now = self.now();
        self.since.store(now, Ordering::Relaxed);
        self.progress.store(now, Ordering::Relaxed);
    }

    /// Since when it has waited for a request (or its end of header); `None` while one is being answered.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        if self.write_blocked.load(Ordering::Relaxed) {
            return None;
        }
        let since = match self.phase.load(Ordering::Relaxed) {
            HEADER => &self.since,
            IDLE => &self.progress,
            _ => return None,
        };
        Some(self.start + Duration::from_nanos(since.load(Ordering::Relaxed)))
    }

    fn touched(&self) -> bool {
        self.touched.load(Ordering::Relaxed)
    }

    /// When the connection is to be closed if nothing happens before, and what that would mean.
    fn deadline(&self) -> (Instant, Closed) {
        let blocked = self.write_blocked.load(Ordering::Relaxed);
        let (from, limit, closed) = match self.phase.load(Ordering::Relaxed) {
            HEADER if !blocked => (&self.since, self.limits.header_timeout, Closed::HeaderTimeout),
            IDLE if !blocked => (&self.progress, self.limits.idle_timeout, Closed::IdleTimeout),
            _ => (&self.progress, self.limits.progress_timeout, Closed::ProgressTimeout),
        };
        (
            self.start + Duration::from_nanos(from.load(Ordering::Relaxed)) + limit,
            closed,
        )
    }
}

struct WatchedIo<I> {
    io: I,
    activity: Arc<Activity>,
}

impl<I: AsyncRead + Unpin> AsyncRead for WatchedIo<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        if buf.filled().len() > before {
            self.activity.read();
        }
        Poll::Ready(result)
    }
}

impl<I: AsyncWrite + Unpin> WatchedIo<I> {
    fn note<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.activity.wrote(result.is_pending());
        result
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for WatchedIo<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.note(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

struct WatchedService<S> {
    service: S,
    activity: Arc<Activity>,
}

impl<S: HttpService> Service<Request<Incoming>> for WatchedService<S> {
    type Response = Response<WatchedBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.activity.enter(BUSY);
        let response = self.service.call(request);
        let activity = Arc::clone(&self.activity);
        Box::pin(async move {
            let response = response.await.map_err(Into::into)?;
            Ok(response.map(|body| WatchedBody { body, activity }))
        })
    }
}

/// The response's body; dropping it marks the request as answered.
struct WatchedBody {
    body: ResponseBody,
    activity: Arc<Activity>,
}

impl Body for WatchedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        self.activity.enter(IDLE);
    }
}
