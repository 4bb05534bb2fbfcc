//! Clients with test settings, credentials made by hand, and a whole pull as one call.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::{FutureExt as _, future::BoxFuture};
use mintmark::{
    credential::{
        Audience, CertificateCredential, CredentialError, CredentialGeneration, CredentialSource, JwtCredential,
        Presented,
    },
    registry::{
        AddressPolicy, CaBundle, Lookup, Observer, Outcome, Presentation, RegistryClient, RegistryConfig,
        RegistryError, RepositoryUrl, ResolvedManifest, RetryPolicy, Session, SessionSpec,
    },
};
use mintmark_api::digest::Digest;
use mintmark_tests::fault_registry::{Artifact, Authority, ClientAuth, ClientCertificate, FaultRegistry, Tls};

pub(crate) const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJtaW50In0.c2lnbmF0dXJl";
pub(crate) const REPOSITORY: &str = "tenant/app";

/// Every name is 127.0.0.1, except those that say otherwise.
pub(crate) struct TestLookup;

impl Lookup for TestLookup {
    fn lookup<'a>(&'a self, name: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        async move {
            match name {
                "private.test" => Ok(vec![SocketAddr::from(([10, 255, 255, 1], 0))]),
                "metadata.test" => Ok(vec![SocketAddr::from(([169, 254, 169, 254], 0))]),
                "unknown.test" => Err(io::ErrorKind::NotFound.into()),
                _ => Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))]),
            }
        }
        .boxed()
    }
}

/// What the observer was told.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: Mutex<Vec<(String, Outcome)>>,
    pub(crate) invalid_tags: Mutex<usize>,
    pub(crate) presented: Mutex<Vec<(String, String, String, Outcome)>>,
}

impl Observer for Seen {
    fn request(&self, host: &str, outcome: Outcome) {
        self.requests.lock().unwrap().push((host.to_owned(), outcome));
    }

    fn invalid_tags(&self, count: usize) {
        *self.invalid_tags.lock().unwrap() += count;
    }

    fn presented(&self, presentation: Presentation<'_>) {
        self.presented.lock().unwrap().push((
            presentation.object_uid.to_owned(),
            presentation.generation.0.to_string(),
            presentation.origin.to_string(),
            presentation.outcome,
        ));
    }
}

/// Short waits, loopback allowed.
pub(crate) fn config() -> RegistryConfig {
    RegistryConfig {
        addresses: AddressPolicy::new(AddressPolicy::default_denied(), vec!["127.0.0.0/8".parse().unwrap()]),
        retry: RetryPolicy {
            delays: vec![Duration::from_millis(2), Duration::from_millis(4)],
            probe_delay: Duration::from_mins(1),
            ..RetryPolicy::default()
        },
        lookup: Arc::new(TestLookup),
        ..RegistryConfig::default()
    }
}

pub(crate) fn client() -> RegistryClient {
    RegistryClient::new(config())
}

/// Hands out credentials in order: `current` the last one minted, `renew` the next.
pub(crate) struct Source {
    credentials: Vec<Presented>,
    minted: Mutex<usize>,
}

impl Source {
    pub(crate) fn new(credentials: Vec<Presented>) -> Arc<Self> {
        Arc::new(Self {
            credentials,
            minted: Mutex::new(0),
        })
    }

    /// Times `renew` was called.
    pub(crate) fn renewals(&self) -> usize {
        *self.minted.lock().unwrap()
    }

    fn at(&self, index: usize) -> Presented {
        self.credentials[index.min(self.credentials.len() - 1)].clone()
    }
}

impl CredentialSource for Source {
    fn current(&self) -> BoxFuture<'_, Result<Presented, CredentialError>> {
        async move { Ok(self.at(*self.minted.lock().unwrap())) }.boxed()
    }

    fn renew<'a>(&'a self, _refused: &'a Presented) -> BoxFuture<'a, Result<Presented, CredentialError>> {
        async move {
            let mut minted = self.minted.lock().unwrap();
            *minted += 1;
            Ok(self.at(*minted))
        }
        .boxed()
    }
}

pub(crate) fn anonymous() -> Arc<Source> {
    Source::new(vec![Presented::Anonymous])
}

pub(crate) fn jwt_credential(token: &str, audiences: &[&str]) -> JwtCredential {
    JwtCredential {
        token: token.to_owned().into(),
        audiences: audiences
            .iter()
            .map(|audience| Audience::new(*audience).unwrap())
            .collect(),
        username: None,
        generation: CredentialGeneration(format!("jwt/{token}").into()),
        minted_at: Instant::now(),
    }
}

pub(crate) fn jwt(token: &str, audiences: &[&str]) -> Arc<Source> {
    Source::new(vec![Presented::Jwt(jwt_credential(token, audiences))])
}

pub(crate) fn certificate_credential(leaf: &ClientCertificate, issuer: &str, generation: &str) -> Presented {
    Presented::Certificate(CertificateCredential {
        chain: leaf.chain.clone().into(),
        key: Arc::new(leaf.key.clone_key().into()),
        issuer: issuer.into(),
        generation: CredentialGeneration(generation.into()),
        must_be_asked: true,
    })
}

pub(crate) fn certificate(leaf: &ClientCertificate, issuer: &str, generation: &str) -> Arc<Source> {
    Source::new(vec![certificate_credential(leaf, issuer, generation)])
}

/// A registry over TLS with a CA of its own.
pub(crate) struct Secure {
    pub(crate) registry: FaultRegistry,
    pub(crate) ca: CaBundle,
}

pub(crate) async fn secure(client_auth: ClientAuth) -> Secure {
    secure_with(client_auth, false).await
}

pub(crate) async fn secure_with(client_auth: ClientAuth, tls12_only: bool) -> Secure {
    let authority = Authority::new("Server CA");
    let leaf = authority.server(&["registry.test", "other.test", "127.0.0.1"]);
    let registry = FaultRegistry::start(Some(Tls {
        leaf,
        client_auth,
        tls12_only,
    }))
    .await;
    Secure {
        registry,
        ca: CaBundle::from_pem(authority.pem().as_bytes()).unwrap(),
    }
}

/// A registry, and another server that its CA vouches for. Both have the artifact.
pub(crate) async fn registry_and_stranger(registry: ClientAuth, stranger: ClientAuth) -> (Secure, FaultRegistry) {
    let (authority, ca) = server_pair();
    let start = async |name: &str, client_auth| {
        let tls = Tls {
            leaf: authority.server(&[name]),
            client_auth,
            tls12_only: false,
        };
        let server = FaultRegistry::start(Some(tls)).await;
        server.push(REPOSITORY, "v1", &Artifact::flux(&[("a.yaml", "a: 1\n")]));
        server
    };
    let registry = start("registry.test", registry).await;
    (Secure { registry, ca }, start("other.test", stranger).await)
}

/// Two CAs in one bundle.
pub(crate) fn server_pair() -> (Authority, CaBundle) {
    let authority = Authority::new("Server CA");
    let bundle = CaBundle::from_pem(authority.pem().as_bytes()).unwrap();
    (authority, bundle)
}

pub(crate) fn spec(host: &str, ca: Option<&CaBundle>) -> SessionSpec {
    SessionSpec {
        url: RepositoryUrl::parse(&format!("oci://{host}/{REPOSITORY}"), true).unwrap(),
        insecure: ca.is_none(),
        ca: ca.cloned(),
        client_certificate: None,
        proxy: None,
        object_uid: "uid-1".into(),
        namespace: "tenant".into(),
        timeout: Duration::from_secs(20),
        on_wait: None,
    }
}

/// What one pass brings.
pub(crate) struct Pulled {
    pub(crate) digest: Digest,
    pub(crate) manifest: ResolvedManifest,
    pub(crate) layer: Vec<u8>,
}

/// Tag `v1`, its manifest, its first layer.
pub(crate) async fn pull(session: &mut Session) -> Result<Pulled, RegistryError> {
    let digest = session.resolve("v1").await?;
    let manifest = session.manifest(&digest).await?;
    let mut layer = Vec::new();
    session.blob(&manifest.layers[0], 1 << 20, &mut layer).await?;
    Ok(Pulled {
        digest,
        manifest,
        layer,
    })
}

/// A whole pull with its own session.
pub(crate) async fn pull_with(
    client: &RegistryClient,
    spec: SessionSpec,
    source: &Arc<Source>,
) -> Result<Pulled, RegistryError> {
    let source: Arc<dyn CredentialSource> = Arc::<Source>::clone(source);
    pull(&mut client.session(spec, source)).await
}

/// The failure of a pull that has to fail, checked for what must not be in any text.
pub(crate) fn refused(result: Result<Pulled, RegistryError>) -> RegistryError {
    let Err(error) = result else {
        panic!("the pull succeeded")
    };
    let (text, debug) = (error.to_string(), format!("{error:?}"));
    for secret in [TOKEN, "X-Signature", "please log in"] {
        assert!(!text.contains(secret) && !debug.contains(secret), "{text} {debug}");
    }
    error
}
