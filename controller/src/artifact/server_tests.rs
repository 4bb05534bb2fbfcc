//! The server over real HTTP/1.1 connections in memory.

use std::{io::Write, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use rstest::rstest;

use super::{
    super::{Binding, Draft, ObjectKey, Record, StorageConfig},
    *,
};

/// The server fits the accept loop of the process.
const _: fn() = || {
    fn fits<S: crate::runtime::serve::HttpService>() {}
    fits::<ArtifactServer>();
};

struct Fixture {
    _directory: tempfile::TempDir,
    storage: Storage,
    record: Arc<Record>,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn fixture_with(bytes: &[u8]) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let config = StorageConfig {
        min_free_percent: 0,
        ..StorageConfig::new(directory.path().join("data"))
    };
    let storage = Storage::open(config).unwrap();
    let key = ObjectKey::new("ns", "app").unwrap();
    storage.begin_pass(&key, "uid", Timestamp::now()).unwrap();
    let mut staged = storage.stage(&key).unwrap();
    staged.write_all(bytes).unwrap();
    let binding = Binding {
        uid: "uid".to_owned(),
        ..Binding::default()
    };
    let draft = Draft {
        binding,
        revision: format!("sha256:{}", "a".repeat(64)),
        ..Draft::default()
    };
    let record = staged.commit(draft, Timestamp::now()).unwrap();
    Fixture {
        _directory: directory,
        storage,
        record,
    }
}

fn fixture() -> Fixture {
    fixture_with(b"0123456789")
}

impl Fixture {
    /// Sends one request over a connection of its own.
    async fn send(&self, method: Method, path: &str, headers: &[(header::HeaderName, &str)]) -> Reply {
        let (client, server) = tokio::io::duplex(16 * 1024);
        let service = ArtifactServer::new(self.storage.clone());
        let serving =
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
            .await
            .unwrap();
        let driving = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "storage");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        let response = sender
            .send_request(request.body(Empty::<Bytes>::new()).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        drop(sender);
        driving.await.unwrap().unwrap();
        serving.await.unwrap().unwrap();
        Reply {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    async fn get(&self, headers: &[(header::HeaderName, &str)]) -> Reply {
        self.send(Method::GET, &self.path(), headers).await
    }

    fn path(&self) -> String {
        format!("/{}", self.record.path)
    }

    fn etag(&self) -> String {
        format!("\"{}\"", self.record.file.digest)
    }
}

#[tokio::test]
async fn get_sends_the_file_with_its_validators() {
    let fixture = fixture();
    let reply = fixture.get(&[]).await;
    assert_eq!(
        (reply.status, reply.body.as_slice()),
        (StatusCode::OK, b"0123456789".as_slice())
    );
    assert_eq!(reply.header(header::CONTENT_LENGTH), "10");
    assert_eq!(reply.header(header::CONTENT_TYPE), "application/gzip");
    assert_eq!(reply.header(header::CONTENT_ENCODING), "", "clients must not unpack it");
    assert_eq!(reply.header(header::ACCEPT_RANGES), "bytes");
    assert_eq!(reply.header(header::ETAG), fixture.etag());
    assert!(httpdate::parse_http_date(reply.header(header::LAST_MODIFIED)).is_ok());
}

#[tokio::test]
async fn head_sends_the_headers_of_get_only() {
    let fixture = fixture();
    let get = fixture.get(&[]).await;
    let head = fixture.send(Method::HEAD, &fixture.path(), &[]).await;
    assert!(head.body.is_empty());
    for name in [
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::ETAG,
        header::LAST_MODIFIED,
    ] {
        assert_eq!(head.header(name.clone()), get.header(name));
    }
    let ranged = fixture
        .send(Method::HEAD, &fixture.path(), &[(header::RANGE, "bytes=0-1")])
        .await;
    assert_eq!(
        (ranged.status, ranged.header(header::CONTENT_LENGTH)),
        (StatusCode::OK, "10")
    );
}

#[tokio::test]
async fn latest_encoded_paths_and_queries_are_found() {
    let fixture = fixture();
    let encoded = fixture.path().replace(':', "%3A");
    for path in [
        "/ocirepository/ns/app/latest.tar.gz",
        &encoded,
        &format!("{}?x=1", fixture.path()),
    ] {
        assert_eq!(
            fixture.send(Method::GET, path, &[]).await.status,
            StatusCode::OK,
            "{path}"
        );
    }
}

#[tokio::test]
async fn large_files_are_streamed_whole() {
    let bytes: Vec<u8> = (0..700_001u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let fixture = fixture_with(&bytes);
    assert_eq!(fixture.get(&[]).await.body, bytes);
    let tail = fixture.get(&[(header::RANGE, "bytes=100000-")]).await;
    assert_eq!(tail.body, bytes[100_000..]);
}

#[tokio::test]
async fn root_answers_probes_without_a_listing() {
    let fixture = fixture();
    let reply = fixture.send(Method::GET, "/", &[]).await;
    assert_eq!(
        (reply.status, reply.body.as_slice()),
        (StatusCode::OK, b"ok\n".as_slice())
    );
    assert_eq!(fixture.send(Method::HEAD, "/", &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn every_miss_looks_the_same() {
    let fixture = fixture();
    let mut seen = Vec::new();
    for path in [
        "/ocirepository/ns/app/",
        "/ocirepository/ns/app",
        "/ocirepository/ns/app/.record.json",
        "/ocirepository/ns/app/%2e%2e/app/latest.tar.gz",
        "/ocirepository/ns/missing/latest.tar.gz",
        "/ocirepository/other/app/latest.tar.gz",
        "/ocirepository/",
        "/.staging/",
        "/%zz",
        "/%ff",
        "/favicon.ico",
        &fixture.path().replace("sha256", "sha512"),
    ] {
        let mut reply = fixture.send(Method::GET, path, &[]).await;
        assert_eq!(reply.status, StatusCode::NOT_FOUND, "{path}");
        reply.headers.remove(header::DATE);
        seen.push((reply.headers, reply.body));
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[rstest]
#[case(Method::POST)]
#[case(Method::PUT)]
#[case(Method::DELETE)]
#[case(Method::OPTIONS)]
#[tokio::test]
async fn other_methods_are_refused_everywhere(#[case] method: Method) {
    let fixture = fixture();
    for path in ["/", "/missing", &fixture.path()] {
        let reply = fixture.send(method.clone(), path, &[]).await;
        assert_eq!(
            (reply.status, reply.header(header::ALLOW)),
            (StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD")
        );
    }
}

#[rstest]
#[case("bytes=2-4", "234", "bytes 2-4/10")]
#[case("bytes=7-", "789", "bytes 7-9/10")]
#[case("bytes=-2", "89", "bytes 8-9/10")]
#[tokio::test]
async fn single_ranges(#[case] range: &str, #[case] body: &str, #[case] content_range: &str) {
    let reply = fixture().get(&[(header::RANGE, range)]).await;
    assert_eq!(reply.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(reply.header(header::CONTENT_RANGE), content_range);
    assert_eq!(reply.header(header::CONTENT_LENGTH), body.len().to_string());
    assert_eq!(reply.body, body.as_bytes());
}

#[tokio::test]
async fn several_ranges_are_multipart() {
    let fixture = fixture();
    let reply = fixture.get(&[(header::RANGE, "bytes=0-1,8-")]).await;
    assert_eq!(reply.status, StatusCode::PARTIAL_CONTENT);
    let content_type = reply.header(header::CONTENT_TYPE);
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    assert!(boundary.len() <= 70, "RFC 2046 §5.1.1");
    let part = |range, body| {
        format!("\r\n--{boundary}\r\nContent-Type: application/gzip\r\nContent-Range: bytes {range}/10\r\n\r\n{body}")
    };
    let expected = format!("{}{}\r\n--{boundary}--\r\n", part("0-1", "01"), part("8-9", "89"));
    assert_eq!(String::from_utf8(reply.body.clone()).unwrap(), expected);
    assert_eq!(reply.header(header::CONTENT_LENGTH), expected.len().to_string());
}

#[tokio::test]
async fn too_many_or_malformed_ranges_get_the_whole_file() {
    let fixture = fixture();
    for range in ["bytes=0-0,1-1,2-2,3-3,4-4", "bytes=x", "lines=1-2"] {
        let reply = fixture.get(&[(header::RANGE, range)]).await;
        assert_eq!((reply.status, reply.body.len()), (StatusCode::OK, 10), "{range}");
    }
}

#[tokio::test]
async fn unsatisfiable_range() {
    let reply = fixture().get(&[(header::RANGE, "bytes=10-")]).await;
    assert_eq!(reply.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(reply.header(header::CONTENT_RANGE), "bytes */10");
    assert!(reply.body.is_empty());
}

#[tokio::test]
async fn conditions_spare_or_refuse_the_body() {
    let fixture = fixture();
    let unchanged = fixture.get(&[(header::IF_NONE_MATCH, &fixture.etag())]).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (StatusCode::NOT_MODIFIED, 0));
    assert_eq!(unchanged.header(header::ETAG), fixture.etag());
    let first = fixture.get(&[]).await;
    let since = fixture
        .get(&[(header::IF_MODIFIED_SINCE, first.header(header::LAST_MODIFIED))])
        .await;
    assert_eq!(since.status, StatusCode::NOT_MODIFIED);
    let failed = fixture.get(&[(header::IF_MATCH, "\"other\"")]).await;
    assert_eq!(failed.status, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn if_range_sends_the_part_only_of_the_same_version() {
    let fixture = fixture();
    let same = fixture
        .get(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, &fixture.etag())])
        .await;
    assert_eq!(same.status, StatusCode::PARTIAL_CONTENT);
    let other = fixture
        .get(&[(header::RANGE, "bytes=0-1"), (header::IF_RANGE, "\"other\"")])
        .await;
    assert_eq!((other.status, other.body.len()), (StatusCode::OK, 10));
}

#[tokio::test]
async fn removed_artifact_is_gone_at_once() {
    let fixture = fixture();
    fixture
        .storage
        .remove(&ObjectKey::new("ns", "app").unwrap(), "uid")
        .unwrap();
    assert_eq!(fixture.get(&[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn empty_file_is_sent() {
    let fixture = fixture_with(b"");
    let reply = fixture.get(&[]).await;
    assert_eq!(
        (reply.status, reply.header(header::CONTENT_LENGTH)),
        (StatusCode::OK, "0")
    );
}
