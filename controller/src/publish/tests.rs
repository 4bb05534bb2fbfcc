use std::{sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::runtime::serve::{ListenAddress, ResponseBody, ServeOptions};

/// DER as PEM (RFC 7468).
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line))
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

const DISCOVERY: &str = "/p/.well-known/openid-configuration";

fn documents() -> PublishedDocuments {
    let mut documents = PublishedDocuments::new(Duration::from_secs(50));
    documents.insert(DISCOVERY, "{}", "application/json", "\"d1\"").unwrap();
    documents
        .insert("/p/keys", "{\"keys\":[]}", "application/json", "\"k1\"")
        .unwrap();
    documents
        .insert("/p/spiffe/bundle.pem", "PEM", "application/x-pem-file", "\"b1\"")
        .unwrap();
    documents
}

fn service(documents: Option<PublishedDocuments>) -> (watch::Sender<Option<Arc<PublishedDocuments>>>, PublishService) {
    let (sender, receiver) = watch::channel(documents.map(Arc::new));
    (sender, PublishService::new(receiver))
}

fn ask(service: &PublishService, method: Method, path: &str, known: &[&str]) -> Response<ResponseBody> {
    let mut request = Request::builder().method(method).uri(path);
    for tags in known {
        request = request.header(header::IF_NONE_MATCH, *tags);
    }
    service.respond(&request.body(()).unwrap())
}

fn get(service: &PublishService, path: &str) -> Response<ResponseBody> {
    ask(service, Method::GET, path, &[])
}

async fn body(response: Response<ResponseBody>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn a_document_has_its_headers_and_body() {
    let (_sender, service) = service(Some(documents()));
    let response = get(&service, "/p/keys");
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers();
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(headers[header::ETAG], "\"k1\"");
    assert_eq!(headers[header::CACHE_CONTROL], "max-age=50");
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    assert_eq!(body(response).await, "{\"keys\":[]}");
    assert_eq!(
        get(&service, "/p/spiffe/bundle.pem").headers()[header::CONTENT_TYPE],
        "application/x-pem-file"
    );
    assert_eq!(
        get(&service, "/p/keys?x=1").status(),
        StatusCode::OK,
        "a query does not change the document"
    );
}

#[tokio::test]
async fn a_known_entity_tag_is_answered_304() {
    let (_sender, service) = service(Some(documents()));
    for known in [
        &["\"k1\""][..],
        &["*"],
        &["W/\"k1\""],
        &["\"other\", \"k1\""],
        &["\"other\"", "\"k1\""],
    ] {
        let response = ask(&service, Method::GET, "/p/keys", known);
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{known:?}");
        assert_eq!(response.headers()[header::ETAG], "\"k1\"");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "max-age=50");
        assert_eq!(body(response).await, "");
    }
    for other in [&["\"k2\""][..], &["k1"], &[""], &["\"d1\""]] {
        assert_eq!(
            ask(&service, Method::GET, "/p/keys", other).status(),
            StatusCode::OK,
            "{other:?}"
        );
    }
}

#[tokio::test]
async fn head_has_the_headers_of_get_and_no_body() {
    let (_sender, service) = service(Some(documents()));
    let response = ask(&service, Method::HEAD, "/p/keys", &[]);
    assert_eq!(response.headers(), get(&service, "/p/keys").headers());
    assert_eq!(response.headers()[header::CONTENT_LENGTH], "11");
    assert_eq!(body(response).await, "");
}

#[test]
fn elsewhere_404_and_other_methods_405() {
    let (_sender, service) = service(Some(documents()));
    for path in ["/", "/keys", "/p/keys/", "/p//keys", "/p/KEYS", "/p/%6beys"] {
        let response = get(&service, path);
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let response = ask(&service, method, "/p/keys", &[]);
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
    }
}

#[test]
fn before_the_first_documents_503_and_then_always_the_newest() {
    let (sender, service) = service(None);
    let early = get(&service, "/p/keys");
    assert_eq!(early.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(early.headers()[header::CACHE_CONTROL], "no-store");
    sender.send(Some(Arc::new(documents()))).unwrap();
    assert_eq!(get(&service, "/p/keys").headers()[header::ETAG], "\"k1\"");
    let mut next = documents();
    next.insert("/p/keys", "{}", "application/json", "\"k2\"").unwrap();
    sender.send(Some(Arc::new(next))).unwrap();
    assert_eq!(
        ask(&service, Method::GET, "/p/keys", &["\"k1\""]).headers()[header::ETAG],
        "\"k2\""
    );
    drop(sender);
    assert_eq!(
        get(&service, "/p/keys").status(),
        StatusCode::OK,
        "the last ones stay when their source ends"
    );
}

#[test]
fn what_is_no_header_is_refused() {
    let mut documents = PublishedDocuments::new(Duration::ZERO);
    assert!(matches!(
        documents.insert("/x", "", "a\nb", "\"t\""),
        Err(DocumentError::Header { .. })
    ));
    assert_eq!(
        documents.insert("/x", "", "a/b", "t"),
        Err(DocumentError::Tag("/x".into()))
    );
    assert_eq!(
        documents.insert("/x", "", "a/b", "\""),
        Err(DocumentError::Tag("/x".into()))
    );
    assert_eq!(documents.paths().count(), 0);
}

/// Sends `request` and reads to the end of the connection.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_thread_serves_until_it_is_stopped() {
    let (_sender, receiver) = watch::channel(Some(Arc::new(documents())));
    let stop = CancellationToken::new();
    let options = ServeOptions::new(SERVER, MAX_CONNECTIONS);
    let server = Server::bind(&ListenAddress::loopback(), options).unwrap();
    let thread = spawn_thread(server, receiver, stop.clone()).unwrap();
    let address = thread.local_addr();
    let answer = exchange(address, "GET /p/keys HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n{\"keys\":[]}"), "{answer}");
    let answer = exchange(address, "HEAD /p/keys HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(
        answer.contains("content-length: 11\r\n") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    stop.cancel();
    thread.ended().await.unwrap();
}

#[tokio::test]
async fn documents_are_served_while_the_main_runtime_is_blocked() {
    use std::io::{Read, Write};
    let (_sender, receiver) = watch::channel(Some(Arc::new(documents())));
    let stop = CancellationToken::new();
    let options = ServeOptions::new(SERVER, MAX_CONNECTIONS);
    let server = Server::bind(&ListenAddress::loopback(), options).unwrap();
    let thread = spawn_thread(server, receiver, stop.clone()).unwrap();
    let address = thread.local_addr();
    // This runtime has one thread, and the blocking client keeps it busy for the whole exchange.
    let mut client = std::net::TcpStream::connect(address).unwrap();
    client.write_all(b"GET /p/keys HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    stop.cancel();
    thread.ended().await.unwrap();
}
