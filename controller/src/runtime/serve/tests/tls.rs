//! The same server with TLS: the port is open only while there is a certificate, and a new one serves the next connection.

use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::ServerName};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::*;
use crate::runtime::serve::TlsSource;

fn certificate() -> (CertificateDer<'static>, Arc<ServerConfig>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let certificate = made.cert.der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    (certificate, Arc::new(config))
}

/// Whether a client that trusts only `certificate` gets an answer.
async fn accepted_by(certificate: &CertificateDer<'static>, io: DuplexStream) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    match TlsConnector::from(Arc::new(config)).connect(name, io).await {
        Err(_) => false,
        Ok(mut client) => {
            client.write_all(REQUEST).await.unwrap();
            client.read_u8().await.unwrap() == b'H'
        }
    }
}

fn with_tls(tls: TlsSource) -> Fixture {
    Fixture::start(options(4).tls(tls), hello())
}

#[tokio::test(start_paused = true)]
async fn the_port_is_closed_until_there_is_a_certificate_and_again_without_one() {
    let (certificate, config) = certificate();
    let (sender, source) = watch::channel(None);
    let fixture = with_tls(source);
    let early = fixture.connect();
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert!(!fixture.open.load(Ordering::Relaxed));
    sender.send(Some(config)).unwrap();
    assert!(accepted_by(&certificate, early).await);
    assert!(fixture.open.load(Ordering::Relaxed));
    sender.send(None).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!fixture.open.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn a_new_certificate_serves_the_next_connection() {
    let ((first, first_config), (second, second_config)) = (certificate(), certificate());
    let (sender, source) = watch::channel(Some(first_config));
    let fixture = with_tls(source);
    assert!(accepted_by(&first, fixture.connect()).await);
    sender.send(Some(second_config)).unwrap();
    assert!(!accepted_by(&first, fixture.connect()).await);
    assert!(accepted_by(&second, fixture.connect()).await);
    drop(sender);
    assert!(
        accepted_by(&second, fixture.connect()).await,
        "the last one stays when its source ends"
    );
}

#[tokio::test(start_paused = true)]
async fn plain_http_gets_no_answer() {
    let (_sender, source) = watch::channel(Some(certificate().1));
    let fixture = with_tls(source);
    let mut client = fixture.connect();
    client.write_all(REQUEST).await.unwrap();
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_is_closed_after_5_seconds_and_delays_nobody() {
    let (certificate, config) = certificate();
    let (_sender, source) = watch::channel(Some(config));
    let fixture = with_tls(source);
    let mut stalled = fixture.connect();
    let start = Instant::now();
    assert!(accepted_by(&certificate, fixture.connect()).await);
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(closed_after(&mut stalled).await, 5);
}
