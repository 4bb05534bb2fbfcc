//! A proxy in front of a real HTTP server that falls ill on order: it delays, refuses, cuts streams, and counts what clients
//! ask meanwhile. It speaks plain HTTP to its clients, on loopback.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::{
    HeaderMap, HeaderName, Method, Request, Response, StatusCode,
    header::{CONNECTION, HOST, TRANSFER_ENCODING},
};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};

type Body = UnsyncBoxBody<Bytes, io::Error>;
type Rule = Arc<dyn Fn(&Asked) -> Act + Send + Sync>;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Path and query.
    pub target: String,
}

impl Asked {
    /// Whether it is a Kubernetes watch.
    pub fn is_watch(&self) -> bool {
        self.target.contains("watch=true")
    }
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Act {
    /// It is handed on.
    Pass,
    /// It is handed on after this time.
    Delay(Duration),
    /// It gets this answer: status, headers, body.
    Answer(StatusCode, Vec<(HeaderName, String)>, String),
}

impl Act {
    /// An answer of this status alone, with `Retry-After` in seconds where given.
    pub fn refuse(status: StatusCode, retry_after: Option<u64>) -> Self {
        let headers = retry_after.map(|seconds| (http::header::RETRY_AFTER, seconds.to_string()));
        Self::Answer(status, headers.into_iter().collect(), String::new())
    }
}

/// The proxy. It ends when this is dropped.
#[derive(Debug)]
pub struct HttpFront {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

struct State {
    origin: String,
    client: reqwest::Client,
    rule: Mutex<Rule>,
    asked: Mutex<Vec<Asked>>,
    cuts: watch::Sender<()>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl HttpFront {
    /// Listens on a free port and hands everything on to `origin`, whose certificate is of `ca` if it has one.
    pub async fn new(origin: &str, ca: Option<&str>) -> Result<Self> {
        let mut client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none());
        if let Some(ca) = ca {
            client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(ca.as_bytes())?);
        }
        let state = Arc::new(State {
            origin: origin.to_owned(),
            client: client.build()?,
            rule: Mutex::new(Arc::new(|_| Act::Pass)),
            asked: Mutex::default(),
            cuts: watch::Sender::new(()),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(accept(listener, state.clone()));
        Ok(Self {
            address,
            state,
            accepting,
        })
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Decides from now on what becomes of each request.
    pub fn act(&self, rule: impl Fn(&Asked) -> Act + Send + Sync + 'static) {
        *lock(&self.state.rule) = Arc::new(rule);
    }

    /// Hands everything on again.
    pub fn heal(&self) {
        self.act(|_| Act::Pass);
    }

    /// Cuts every answer that is under way, as a network does.
    pub fn cut(&self) {
        self.state.cuts.send_replace(());
    }

    /// What was asked since the last call.
    pub fn take_asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *lock(&self.state.asked))
    }
}

impl Drop for HttpFront {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { return };
                let state = state.clone();
                connections.spawn(async move {
                    let service = service_fn(|request| {
                        let state = state.clone();
                        async move { Ok::<_, Infallible>(answer(request, &state).await) }
                    });
                    // Cut on purpose, or by a client that has enough.
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn answer(request: Request<Incoming>, state: &State) -> Response<Body> {
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let asked = Asked {
        method: request.method().clone(),
        target: target.to_owned(),
    };
    lock(&state.asked).push(asked.clone());
    let rule = lock(&state.rule).clone();
    match rule(&asked) {
        Act::Pass => {}
        Act::Delay(delay) => tokio::time::sleep(delay).await,
        Act::Answer(status, headers, body) => {
            let mut answer = Response::new(whole(body.into()));
            *answer.status_mut() = status;
            answer.headers_mut().extend(
                headers
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value.parse().ok()?))),
            );
            return answer;
        }
    }
    hand_on(request, &asked, state).await.unwrap_or_else(|error| {
        let mut answer = Response::new(whole(error.to_string().into()));
        *answer.status_mut() = StatusCode::BAD_GATEWAY;
        answer
    })
}

async fn hand_on(request: Request<Incoming>, asked: &Asked, state: &State) -> Result<Response<Body>> {
    let mut cuts = state.cuts.subscribe();
    let (parts, body) = request.into_parts();
    let answer = state
        .client
        .request(parts.method, format!("{}{}", state.origin, asked.target))
        .headers(end_to_end(parts.headers))
        .body(body.collect().await?.to_bytes())
        .send()
        .await?;
    let mut response = Response::new(());
    *response.status_mut() = answer.status();
    *response.headers_mut() = end_to_end(answer.headers().clone());
    let cut = futures::stream::once(async move {
        // The sender goes with the proxy, which ends the connection too.
        drop(cuts.changed().await);
        Err(io::ErrorKind::ConnectionReset.into())
    });
    let body = answer.bytes_stream().map_err(io::Error::other);
    // The body's end ends it; a cut ends it with an error.
    let body = body.map(Some).chain(futures::stream::once(async { None }));
    let body = futures::stream::select(body, cut.map(Some)).take_while(|item| std::future::ready(item.is_some()));
    let frames = body.filter_map(std::future::ready).map_ok(Frame::data);
    Ok(response.map(|()| Body::new(StreamBody::new(frames))))
}

/// Without what concerns one connection only.
fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in [HOST, CONNECTION, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
