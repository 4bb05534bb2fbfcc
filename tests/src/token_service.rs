//! A token service as CNCF distribution's "Token Authentication Specification" describes it, and a distribution registry
//! that believes it. Who somebody is and what they may read is for the suite to say.

use std::{collections::HashMap, fs, path::PathBuf, sync::Arc};

use anyhow::{Context, Result, ensure};
use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use http::{Response, StatusCode, header};
use jiff::Timestamp;
use mintmark_hack::{
    digest,
    distribution::Distribution,
    pki::ec_key_pair,
    place::Place,
    registry::{Artifact, CONFIG, MANIFEST_MEDIA_TYPE},
};
use reqwest::{Client, Method};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};

use crate::{
    command::mintmark,
    env::AUDIENCE,
    fault_registry::{ClientAuth, FaultRegistry, Recorded},
    secure::ServerCa,
};

/// Signs what distribution takes for the right to do something.
pub struct TokenSigner {
    key: EcdsaKeyPair,
    kid: String,
    issuer: String,
}

impl TokenSigner {
    /// One with a new key.
    pub fn new(issuer: &str) -> Result<Self> {
        Self::from_pem(&ec_key_pair()?.0, "token-service", issuer)
    }

    /// One with this EC P-256 key (PKCS#8).
    pub fn from_pem(pem: &str, kid: &str, issuer: &str) -> Result<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random);
        Ok(Self {
            key: key.ok().context("a key")?,
            kid: kid.to_owned(),
            issuer: issuer.to_owned(),
        })
    }

    /// The public key as a JSON Web Key Set.
    pub fn key_set(&self) -> String {
        let point = self.key.public_key().as_ref().get(1..).unwrap_or_default();
        let (x, y) = point.split_at(point.len() / 2);
        let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let key = json!({"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid,
            "x": part(x), "y": part(y)});
        json!({"keys": [key]}).to_string()
    }

    /// A token for a minute that grants these actions on a repository.
    pub fn token(&self, subject: &str, repository: &str, actions: &[&str]) -> Result<String> {
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": self.kid});
        let now = Timestamp::now().as_second();
        let claims = json!({"iss": self.issuer, "sub": subject, "aud": AUDIENCE, "iat": now, "nbf": now - 5,
            "exp": now + 60, "access": [{"type": "repository", "name": repository, "actions": actions}]});
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.ok().context("a signature")?;
        Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// What `mintmark trust distribution` prints for a place.
pub fn configuration(place: &Place, more: &[&str]) -> Result<String> {
    let listen = format!("127.0.0.1:{}", place.port);
    let path = |path: PathBuf| path.display().to_string();
    let (storage, certificate, key) = (path(place.storage()), path(place.certificate()), path(place.key()));
    let own = ["trust", "distribution", "--listen", &listen, "--storage", &storage];
    let tls = ["--tls-cert-file", &*certificate, "--tls-key-file", &*key];
    mintmark(&[&own[..], &tls, more].concat())
}

/// A token service over TLS and the registry behind it.
pub struct TokenService {
    server: FaultRegistry,
    signer: Arc<TokenSigner>,
    registry: Distribution,
}

impl TokenService {
    /// Starts both. `who` names the subject of a user name and password, if they are right; `may` says whether somebody, or
    /// nobody, may pull a repository.
    pub async fn start(
        ca: &ServerCa,
        who: impl Fn(&str, &str) -> Option<String> + Send + Sync + 'static,
        may: impl Fn(Option<&str>, &str) -> bool + Send + Sync + 'static,
    ) -> Result<Self> {
        let server = ca.registry(ClientAuth::None).await;
        let signer = Arc::new(TokenSigner::new(&server.origin())?);
        let (realm, issuer, keys) = (format!("{}/token", server.origin()), server.origin(), signer.key_set());
        let registry = Distribution::start(|place| {
            let file = place.folder.join("tokens.json");
            fs::write(&file, &keys)?;
            let file = file.display().to_string();
            let service = ["--audience", AUDIENCE, "--token-realm", &*realm];
            configuration(
                place,
                &[&service[..], &["--token-issuer", &*issuer, "--jwks-file", &*file]].concat(),
            )
        })
        .await?;
        let desk = Arc::clone(&signer);
        server.page("/token", move |request| {
            answer(&desk, request, &who, &may).unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
        });
        Ok(Self {
            server,
            signer,
            registry,
        })
    }

    /// `https://127.0.0.1:<port>` of the token service.
    pub fn origin(&self) -> String {
        self.server.origin()
    }

    /// `127.0.0.1:<port>` of the registry.
    pub fn registry_host(&self) -> String {
        self.registry.origin().replace("https://", "")
    }

    /// `oci://…/<repository>` at the registry.
    pub fn url(&self, repository: &str) -> String {
        format!("oci://{}/{repository}", self.registry_host())
    }

    /// The CA of the registry.
    pub fn registry_ca(&self) -> &str {
        self.registry.ca_pem()
    }

    /// What the token service was asked about a repository.
    pub fn asked_about(&self, repository: &str) -> Vec<Recorded> {
        let scope = format!("repository:{repository}:pull");
        let about = |request: &Recorded| query(request).get("scope") == Some(&scope);
        self.server.requests().into_iter().filter(about).collect()
    }

    /// Puts an artifact into the registry, with a token that says so.
    pub async fn push(&self, repository: &str, tag: &str, artifact: &Artifact) -> Result<()> {
        let token = self.signer.token("pusher", repository, &["pull", "push"])?;
        let root = reqwest::Certificate::from_pem(self.registry.ca_pem().as_bytes())?;
        let http = Client::builder().tls_certs_only([root]).no_proxy().build()?;
        let base = format!("{}/v2/{repository}", self.registry.origin());
        let layers = artifact.layers.iter().map(|layer| layer.data.as_slice());
        for blob in layers.chain([CONFIG]) {
            let start = http.post(format!("{base}/blobs/uploads/")).bearer_auth(&token);
            let started = start.send().await?.error_for_status()?;
            let location = started.headers().get(header::LOCATION).context("a place")?.to_str()?;
            let mut place = url::Url::parse(&base)?.join(location)?;
            place.query_pairs_mut().append_pair("digest", &digest::oci(blob));
            let upload = http.put(place).bearer_auth(&token);
            let upload = upload.header(header::CONTENT_TYPE, "application/octet-stream");
            upload.body(blob.to_vec()).send().await?.error_for_status()?;
        }
        let manifest = http.request(Method::PUT, format!("{base}/manifests/{tag}"));
        let manifest = manifest.header(header::CONTENT_TYPE, MANIFEST_MEDIA_TYPE);
        let stored = manifest
            .bearer_auth(&token)
            .body(artifact.manifest()?)
            .send()
            .await?
            .status();
        ensure!(stored == StatusCode::CREATED, "the registry answered {stored}");
        Ok(())
    }
}

fn query(request: &Recorded) -> HashMap<String, String> {
    url::form_urlencoded::parse(request.query().as_bytes())
        .into_owned()
        .collect()
}

fn status(status: StatusCode) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = status;
    answer
}

/// User name and password of HTTP basic authentication.
pub fn basic(request: &Recorded) -> Option<(String, String)> {
    let encoded = request.authorization()?.strip_prefix("Basic ")?;
    let plain = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = plain.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Somebody unknown gets nothing; somebody known gets a token with what they may do, which may be nothing.
fn answer(
    signer: &TokenSigner,
    request: &Recorded,
    who: impl Fn(&str, &str) -> Option<String>,
    may: impl Fn(Option<&str>, &str) -> bool,
) -> Result<Response<Bytes>> {
    let subject = match (request.authorization(), basic(request)) {
        (None, _) => None,
        (_, Some((user, password))) => match who(&user, &password) {
            Some(subject) => Some(subject),
            None => return Ok(status(StatusCode::UNAUTHORIZED)),
        },
        _ => return Ok(status(StatusCode::UNAUTHORIZED)),
    };
    let query = query(request);
    let scope = query.get("scope").context("a scope")?;
    let repository = scope
        .strip_prefix("repository:")
        .and_then(|scope| scope.strip_suffix(":pull"))
        .context("only pulling")?;
    let ours = query.get("service").is_some_and(|service| service == AUDIENCE);
    let granted: &[&str] = if ours && may(subject.as_deref(), repository) {
        &["pull"]
    } else {
        &[]
    };
    let token = signer.token(subject.as_deref().unwrap_or_default(), repository, granted)?;
    let body = json!({"token": token, "expires_in": 60});
    Ok(Response::new(body.to_string().into()))
}
