//! The server itself: accepts, shakes hands, records, answers rightly, then spoils the answer as ordered.

use std::{convert::Infallible, io, sync::Arc, time::Instant};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{
        ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, LINK, RANGE, TRANSFER_ENCODING,
        WWW_AUTHENTICATE,
    },
};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, HandshakeKind, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, UnixTime, pem::PemObject as _},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{Authority, Fault, Recorded, Repositories, State, Tls, Verdict, record::Connection};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What the server wants of TLS clients.
pub enum ClientAuth {
    /// It does not ask.
    None,
    /// It asks, and takes nothing too.
    Optional(Vec<CertificateDer<'static>>),
    /// It asks, and needs one of these CAs.
    Required(Vec<CertificateDer<'static>>),
    /// It asks, and ends every handshake with an alert: `unknown_ca`, or `certificate_revoked`.
    Refuse {
        /// Which alert.
        revoked: bool,
    },
}

impl ClientAuth {
    /// It asks, and needs one of this CA.
    pub fn required(authority: &Authority) -> Self {
        Self::Required(vec![authority.der()])
    }

    /// It asks, and takes one of this CA or nothing.
    pub fn optional(authority: &Authority) -> Self {
        Self::Optional(vec![authority.der()])
    }

    /// It asks, and needs one of these CAs, given as PEM.
    pub fn required_pem(authorities: &[&str]) -> Self {
        Self::Required(certificates(authorities))
    }

    /// It asks, and takes one of these CAs, given as PEM, or nothing.
    pub fn optional_pem(authorities: &[&str]) -> Self {
        Self::Optional(certificates(authorities))
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Arc<dyn ClientCertVerifier> {
        let builder = |authorities: &[CertificateDer<'static>]| {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority.clone()).unwrap();
            }
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        };
        match self {
            Self::None => WebPkiClientVerifier::no_client_auth(),
            Self::Optional(ca) => builder(ca).allow_unauthenticated().build().unwrap(),
            Self::Required(ca) => builder(ca).build().unwrap(),
            Self::Refuse { revoked } => Arc::new(RefuseAll { revoked: *revoked }),
        }
    }
}

fn certificates(pems: &[&str]) -> Vec<CertificateDer<'static>> {
    pems.iter()
        .map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .collect()
}

#[derive(Debug)]
struct RefuseAll {
    revoked: bool,
}

impl ClientCertVerifier for RefuseAll {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let reason = if self.revoked {
            CertificateError::Revoked
        } else {
            CertificateError::UnknownIssuer
        };
        Err(rustls::Error::InvalidCertificate(reason))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_tls12_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

pub(super) fn acceptor(tls: &Tls) -> TlsAcceptor {
    let provider = Arc::new(ring::default_provider());
    let versions: &[_] = if tls.tls12_only {
        &[&rustls::version::TLS12]
    } else {
        rustls::ALL_VERSIONS
    };
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(tls.client_auth.verifier(&provider))
        .with_single_cert(tls.leaf.chain.clone(), tls.leaf.key.clone_key().into())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

pub(super) async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.unwrap();
                state.records.lock().unwrap().accepted += 1;
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
                connections.spawn(async move {
                    let Some(acceptor) = acceptor else {
                        let connection = state.records.lock().unwrap().connect(None, Vec::new());
                        return talk(stream, connection, state).await;
                    };
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
                    let chain = session.peer_certificates().unwrap_or_default();
                    let chain = chain.iter().map(|certificate| certificate.to_vec()).collect();
                    let connection = state.records.lock().unwrap().connect(Some(resumed), chain);
                    talk(stream, connection, state).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, connection: Connection, state: Arc<State>) {
    let id = connection.id;
    let service = service_fn(|request: Request<Incoming>| {
        let (connection, state) = (connection.clone(), Arc::clone(&state));
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            handle(Request::from_parts(parts, body), connection, &state).await
        }
    });
    // Connections are cut on purpose, by clients and by faults.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    state.records.lock().unwrap().open.remove(&id);
    state.changes.send_replace(());
}

async fn handle(request: Request<Bytes>, connection: Connection, state: &State) -> Result<Response<Body>, io::Error> {
    let target = request
        .uri()
        .path_and_query()
        .map_or("/", |target| target.as_str())
        .to_owned();
    let (parts, body) = request.into_parts();
    let recorded = Recorded {
        connection,
        at: Instant::now(),
        method: parts.method,
        target,
        headers: parts.headers,
        body,
    };
    state.records.lock().unwrap().requests.push(recorded.clone());
    state.changes.send_replace(());
    let fault = {
        let mut scripts = state.faults.lock().unwrap();
        scripts
            .iter_mut()
            .find(|script| script.matches(&recorded))
            .map(|script| {
                script.left = script.left.map(|left| left - 1);
                script.fault.clone()
            })
    };
    match &fault {
        Some(Fault::Reset) => return Err(io::ErrorKind::ConnectionReset.into()),
        Some(Fault::Hang) => return std::future::pending().await,
        Some(Fault::Answer { status, headers, body }) => {
            let mut answer = Response::builder().status(*status);
            for (name, value) in headers {
                answer = answer.header(HeaderName::from_static(name), value);
            }
            return Ok(whole(answer.body(Bytes::from(body.clone())).unwrap()));
        }
        _ => {}
    }
    let ignore_range = matches!(fault, Some(Fault::IgnoreRange));
    let answer = right_answer(&recorded, state, ignore_range);
    Ok(match fault {
        None => whole(answer),
        Some(fault) => spoil(answer, &fault),
    })
}

fn right_answer(request: &Recorded, state: &State, ignore_range: bool) -> Response<Bytes> {
    let page = state.pages.lock().unwrap().get(request.path()).cloned();
    if let Some(page) = page {
        return page(request);
    }
    let gate = Arc::clone(&state.gate.lock().unwrap());
    match gate(request) {
        Verdict::Allow => content(request, state, ignore_range),
        Verdict::Deny => plain(StatusCode::FORBIDDEN, r#"{"errors":[{"code":"DENIED"}]}"#),
        Verdict::Challenge(lines) => {
            let mut answer = plain(
                StatusCode::UNAUTHORIZED,
                r#"{"code":"UNAUTHORIZED","message":"m","detail":null}"#,
            );
            for line in lines {
                answer
                    .headers_mut()
                    .append(WWW_AUTHENTICATE, HeaderValue::from_str(&line).unwrap());
            }
            answer
        }
    }
}

fn content(request: &Recorded, state: &State, ignore_range: bool) -> Response<Bytes> {
    let unknown = || plain(StatusCode::NOT_FOUND, r#"{"errors":[{"code":"MANIFEST_UNKNOWN"}]}"#);
    let Some(path) = request.path().strip_prefix("/v2/") else {
        return unknown();
    };
    let repositories = state.repositories.lock().unwrap();
    let (media_type, digest, bytes) = if let Some((repository, reference)) = path.split_once("/manifests/") {
        let Some((digest, media_type, bytes)) = repositories.manifest(repository, reference) else {
            return unknown();
        };
        (media_type, digest, bytes)
    } else if let Some((repository, digest)) = path.split_once("/blobs/") {
        let Some(bytes) = repositories.blob(repository, digest) else {
            return unknown();
        };
        ("application/octet-stream".to_owned(), digest.to_owned(), bytes)
    } else if let Some(repository) = path.strip_suffix("/tags/list") {
        return tags(request, &repositories, repository).unwrap_or_else(unknown);
    } else {
        return if path.is_empty() {
            plain(StatusCode::OK, "{}")
        } else {
            unknown()
        };
    };
    let answer = Response::builder()
        .header(CONTENT_TYPE, media_type)
        .header("docker-content-digest", digest)
        .header(ACCEPT_RANGES, "bytes");
    if request.method == Method::HEAD {
        return answer.header(CONTENT_LENGTH, bytes.len()).body(Bytes::new()).unwrap();
    }
    let from = request.header(RANGE.as_str()).filter(|_| !ignore_range);
    let from = from.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        None => answer.body(bytes).unwrap(),
        Some(from) if from < bytes.len() => answer
            .status(StatusCode::PARTIAL_CONTENT)
            .header(
                CONTENT_RANGE,
                format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
            )
            .body(bytes.slice(from..))
            .unwrap(),
        Some(_) => answer
            .status(StatusCode::RANGE_NOT_SATISFIABLE)
            .body(Bytes::new())
            .unwrap(),
    }
}

/// A page of a tag list, with a relative `Link` to the next one.
fn tags(request: &Recorded, repositories: &Repositories, repository: &str) -> Option<Response<Bytes>> {
    let query = |name: &str| {
        let (_, query) = request.target.split_once('?')?;
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let n = query("n").map_or(usize::MAX, |n| n.parse().unwrap());
    let (tags, more) = repositories.tags(repository, n, query("last").unwrap_or_default())?;
    let mut answer = Response::builder().header(CONTENT_TYPE, "application/json");
    if let Some(last) = tags.last().filter(|_| more) {
        let target = format!("/v2/{repository}/tags/list?n={n}&last={last}");
        answer = answer.header(LINK, format!("<{target}>; rel=\"next\""));
    }
    let document = serde_json::json!({"name": repository, "tags": tags});
    Some(answer.body(document.to_string().into()).unwrap())
}

fn plain(status: StatusCode, body: &'static str) -> Response<Bytes> {
    let answer = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, "application/json");
    answer.body(Bytes::from_static(body.as_bytes())).unwrap()
}

fn whole(answer: Response<Bytes>) -> Response<Body> {
    answer.map(|bytes| {
        Full::new(bytes)
            .map_err(|never: Infallible| match never {})
            .boxed_unsync()
    })
}

fn spoil(answer: Response<Bytes>, fault: &Fault) -> Response<Body> {
    let (mut parts, mut bytes) = answer.into_parts();
    let length = bytes.len();
    match fault {
        Fault::Truncate(sent) | Fault::Stall(sent) => {
            parts.headers.insert(CONTENT_LENGTH, length.into());
            let head = stream::iter([Ok(Frame::data(bytes.slice(..(*sent).min(length))))]);
            let body = if matches!(fault, Fault::Stall(_)) {
                StreamBody::new(head.chain(stream::pending()).boxed())
            } else {
                // Yields once, so that what is buffered leaves before the cut.
                let cut = stream::once(async {
                    tokio::task::yield_now().await;
                    Err(io::ErrorKind::ConnectionReset.into())
                });
                StreamBody::new(head.chain(cut).boxed())
            };
            return Response::from_parts(parts, Body::new(body));
        }
        Fault::Chunked => {
            parts
                .headers
                .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            let body = StreamBody::new(stream::iter([Ok(Frame::data(bytes))]).boxed());
            return Response::from_parts(parts, Body::new(body));
        }
        Fault::Corrupt => {
            let mut changed = bytes.to_vec();
            if let Some(last) = changed.last_mut() {
                *last ^= 1;
            }
            bytes = changed.into();
        }
        Fault::Lengthen(more) => bytes = [bytes.as_ref(), &vec![b' '; *more]].concat().into(),
        Fault::Shorten(less) => bytes = bytes.slice(..length.saturating_sub(*less)),
        Fault::ContentType(None) => {
            parts.headers.remove(CONTENT_TYPE);
        }
        Fault::ContentType(Some(other)) => {
            parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static(other));
        }
        Fault::NoDigest => {
            parts.headers.remove("docker-content-digest");
        }
        Fault::WrongRange => {
            parts
                .headers
                .insert(CONTENT_RANGE, HeaderValue::from_static("bytes 1-2/3"));
        }
        Fault::IgnoreRange | Fault::Reset | Fault::Hang | Fault::Answer { .. } => {}
    }
    whole(Response::from_parts(parts, bytes))
}
