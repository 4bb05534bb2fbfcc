//! The server on real ports of this machine.

use super::*;
use crate::runtime::serve::{ListenAddress, Server, full};

#[tokio::test]
async fn a_real_port_serves_and_frees_its_address() {
    let server = Server::bind(&ListenAddress::loopback(), options(4)).unwrap();
    let address = server.local_addr();
    let stop = CancellationToken::new();
    let running = tokio::spawn(server.run(
        service_fn(|_request: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(full("hello"))) }),
        stop.clone(),
    ));
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let error = Server::bind(&ListenAddress::from(address), options(4)).unwrap_err();
    assert!(error.to_string().starts_with("cannot listen on 127.0.0.1:"), "{error}");
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    stop.cancel();
    running.await.unwrap().unwrap();
    Server::bind(&ListenAddress::from(address), options(4)).unwrap();
}

#[tokio::test]
async fn a_closed_port_that_another_process_takes_ends_the_server_with_its_address() {
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
    let (sender, source) = tokio::sync::watch::channel(None);
    let closed = Server::bind(&ListenAddress::loopback(), options(4).tls(source)).unwrap();
    let address = closed.local_addr();
    let _other = std::net::TcpListener::bind(address).unwrap();
    let running = tokio::spawn(closed.run(hello(), CancellationToken::new()));
    sender.send(Some(Arc::new(config))).unwrap();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {address} for test"));
}
