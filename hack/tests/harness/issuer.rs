use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use mintmark_hack::registry::{Issuer, Keys, RegistryOptions, RegistryServer};
use reqwest::StatusCode;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

/// An issuer as small as OIDC discovery allows, over plain HTTP, whose published keys can be changed.
struct TestIssuer {
    url: String,
    published: Arc<Mutex<Vec<Value>>>,
}

struct Key {
    id: &'static str,
    pair: EcdsaKeyPair,
}

impl Key {
    fn new(id: &'static str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        Self { id, pair }
    }

    fn jwk(&self) -> Value {
        // An uncompressed point: 4, then x and y of 32 bytes each.
        let (x, y) = self.pair.public_key().as_ref().strip_prefix(&[4]).unwrap().split_at(32);
        let (x, y) = (BASE64URL.encode(x), BASE64URL.encode(y));
        json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.id, "x": x, "y": y })
    }

    /// A token for `audience` that lives so many seconds from now.
    fn token(&self, issuer: &str, audience: &str, life: i64) -> String {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
        let header = json!({ "alg": "ES256", "kid": self.id, "typ": "JWT" });
        let claims = json!({ "iss": issuer, "sub": "somebody", "aud": audience, "iat": now, "exp": now + life });
        let signed = format!(
            "{}.{}",
            BASE64URL.encode(header.to_string()),
            BASE64URL.encode(claims.to_string())
        );
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64URL.encode(signature))
    }
}

impl TestIssuer {
    fn start(keys: &[&Key]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self {
            url: url.clone(),
            published: Arc::default(),
        };
        issuer.publish(keys);
        let published = Arc::clone(&issuer.published);
        // Ends with the process.
        thread::spawn(move || serve(&listener, &url, &published));
        issuer
    }

    fn publish(&self, keys: &[&Key]) {
        *self.published.lock().unwrap() = keys.iter().map(|key| key.jwk()).collect();
    }

    fn registry(&self, keys: Keys) -> RegistryServer {
        let issuers = vec![Issuer {
            keys,
            ..Issuer::new(&self.url, &["registry", "registry.example"])
        }];
        RegistryServer::start(RegistryOptions {
            issuers,
            ..RegistryOptions::default()
        })
        .unwrap()
    }
}

fn serve(listener: &TcpListener, url: &str, published: &Mutex<Vec<Value>>) {
    for stream in listener.incoming().flatten() {
        answer(stream, url, published);
    }
}

fn answer(mut stream: TcpStream, url: &str, published: &Mutex<Vec<Value>>) {
    let lines: Vec<_> = BufReader::new(&stream)
        .lines()
        .map_while(Result::ok)
        .take_while(|it| !it.is_empty())
        .collect();
    let path = lines
        .first()
        .and_then(|line| line.split(' ').nth(1))
        .unwrap_or_default()
        .to_owned();
    let body = match path.as_str() {
        "/.well-known/openid-configuration" => json!({
            "issuer": url, "jwks_uri": format!("{url}/keys"), "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"], "id_token_signing_alg_values_supported": ["ES256"],
        }),
        _ => json!({ "keys": *published.lock().unwrap() }),
    }
    .to_string();
    let length = body.len();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n");
    // A client that is gone needs no answer.
    let _ = stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes());
}

/// What the registry's base answers to a token.
async fn base(registry: &RegistryServer, token: &str) -> StatusCode {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    http.get(format!("{}/v2/", registry.origin()))
        .bearer_auth(token)
        .send()
        .await
        .unwrap()
        .status()
}

fn last_reason(registry: &RegistryServer) -> String {
    registry.access_log().unwrap().pop().unwrap().reason
}

#[tokio::test]
async fn tokens_are_verified_as_go_oidc_does() {
    let (key, another) = (Key::new("one"), Key::new("one"));
    let issuer = TestIssuer::start(&[&key]);
    let registry = issuer.registry(Keys::OnUnknown);
    assert_eq!(
        base(&registry, &key.token(&issuer.url, "registry", 60)).await,
        StatusCode::OK
    );
    assert_eq!(
        base(&registry, &key.token(&issuer.url, "registry.example", 60)).await,
        StatusCode::OK
    );

    for (token, reason) in [
        (key.token(&issuer.url, "elsewhere", 60), "none of ours"),
        (key.token(&issuer.url, "registry", -1), "expired"),
        (key.token("http://127.0.0.1:1", "registry", 60), "not trusted here"),
        (another.token(&issuer.url, "registry", 60), "failed to verify"),
    ] {
        assert_eq!(base(&registry, &token).await, StatusCode::UNAUTHORIZED, "{reason}");
        assert!(
            last_reason(&registry).contains(reason),
            "{reason}: {}",
            last_reason(&registry)
        );
    }
}

#[tokio::test]
async fn an_unknown_key_is_fetched_at_once_or_not_until_the_next_poll() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = TestIssuer::start(&[&old]);
    let eager = issuer.registry(Keys::OnUnknown);
    let polling = issuer.registry(Keys::Poll(3600));
    let (old_token, new_token) = (
        old.token(&issuer.url, "registry", 60),
        new.token(&issuer.url, "registry", 60),
    );
    for registry in [&eager, &polling] {
        assert_eq!(base(registry, &old_token).await, StatusCode::OK);
        assert_eq!(base(registry, &new_token).await, StatusCode::UNAUTHORIZED);
    }
    issuer.publish(&[&new]);
    assert_eq!(base(&eager, &new_token).await, StatusCode::OK);
    assert_eq!(base(&polling, &new_token).await, StatusCode::UNAUTHORIZED);
    // A poll without age limit in between: the removed key is trusted until then.
    assert_eq!(base(&polling, &old_token).await, StatusCode::OK);
}

#[tokio::test]
async fn given_keys_are_enough_for_an_issuer_that_nobody_reaches() {
    let (key, another) = (Key::new("one"), Key::new("one"));
    let url = "https://kubernetes.default.svc.cluster.local";
    let keys = json!({ "keys": [key.jwk()] });
    let registry = RegistryServer::start(RegistryOptions {
        issuers: vec![Issuer::new(url, &["registry"]).with_key_set(keys.to_string())],
        ..RegistryOptions::default()
    })
    .unwrap();
    let answer = async |token: String| base(&registry, &token).await;
    assert_eq!(answer(key.token(url, "registry", 60)).await, StatusCode::OK);
    assert_eq!(
        answer(another.token(url, "registry", 60)).await,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(answer(key.token(url, "elsewhere", 60)).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_issuer_may_come_up_after_the_registry() {
    let key = Key::new("one");
    let port = mintmark_hack::process::free_port().unwrap();
    let url = format!("http://127.0.0.1:{port}");
    let issuers = vec![Issuer::new(&url, &["registry"])];
    let registry = RegistryServer::start(RegistryOptions {
        issuers,
        ..RegistryOptions::default()
    })
    .unwrap();
    let token = key.token(&url, "registry", 60);
    assert_eq!(base(&registry, &token).await, StatusCode::UNAUTHORIZED);
    assert!(
        last_reason(&registry).contains("connection refused"),
        "{}",
        last_reason(&registry)
    );

    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let published = Mutex::new(vec![key.jwk()]);
    thread::spawn(move || serve(&listener, &url, &published));
    assert_eq!(base(&registry, &token).await, StatusCode::OK);
}
