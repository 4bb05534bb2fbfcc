//! TLS configuration: trusted roots, and the client certificate that is an object's identity.
//!
//! System roots are read once, on first use of https. A connection made with a client certificate never resumes a session
//! and, where the certificate was minted, counts only if the server asked for it: [`RequireAsked`] checks that at each
//! handshake.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures::{FutureExt as _, future::BoxFuture};
use rustls::{
    ClientConfig, RootCertStore, SignatureScheme,
    client::{ResolvesClientCert, Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, ring},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use tower_layer::Layer;
use tower_service::Service;

use super::error::Failure;
use crate::credential::CertificateCredential;

/// Largest accepted `ca.crt`, in bytes.
const MAX_CA_BYTES: usize = 64 * 1024;
/// Most certificates in one `ca.crt`.
const MAX_CA_CERTIFICATES: usize = 64;

/// Why a `ca.crt` is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaBundleError {
    /// More than 64 KiB.
    #[error("the CA bundle has {0} bytes, more than {MAX_CA_BYTES}")]
    Size(usize),
    /// More than 64 certificates.
    #[error("the CA bundle has more than {MAX_CA_CERTIFICATES} certificates")]
    Count,
    /// No certificate in it.
    #[error("the CA bundle has no PEM certificate")]
    Empty,
    /// A block that is not a certificate usable as a root.
    #[error("the CA bundle has a certificate that cannot be read")]
    Certificate,
}

/// Additional roots of one object (`certSecretRef`, key `ca.crt`): at most 64 KiB and 64 certificates.
#[derive(Debug, Clone)]
pub struct CaBundle {
    certificates: Arc<[CertificateDer<'static>]>,
    id: CaId,
}

/// SHA-256 over the DER certificates: equal sets share connections.
pub(super) type CaId = [u8; 32];

impl CaBundle {
    /// Reads PEM certificates, ignoring other PEM blocks and text between them.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CaBundleError> {
        if pem.len() > MAX_CA_BYTES {
            return Err(CaBundleError::Size(pem.len()));
        }
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| CaBundleError::Certificate)?;
        if certificates.is_empty() {
            return Err(CaBundleError::Empty);
        }
        if certificates.len() > MAX_CA_CERTIFICATES {
            return Err(CaBundleError::Count);
        }
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|_| CaBundleError::Certificate)?;
        }
        let mut hash = ::ring::digest::Context::new(&::ring::digest::SHA256);
        for certificate in &certificates {
            hash.update(&(certificate.len() as u64).to_be_bytes());
            hash.update(certificate);
        }
        let mut id = CaId::default();
        id.copy_from_slice(hash.finish().as_ref());
        Ok(Self {
            certificates: certificates.into(),
            id,
        })
    }

    pub(super) fn id(&self) -> CaId {
        self.id
    }
}

/// Builds TLS configurations over roots that are parsed once.
pub(super) struct TlsFactory {
    provider: Arc<CryptoProvider>,
    system: OnceLock<Arc<RootCertStore>>,
}

impl TlsFactory {
    pub(super) fn new() -> Self {
        Self {
            provider: Arc::new(ring::default_provider()),
            system: OnceLock::new(),
        }
    }

    /// The verifier for the system roots and the object's own: the costly part, shared by all configurations of a CA set.
    pub(super) fn verifier(&self, ca: Option<&CaBundle>) -> Result<Arc<WebPkiServerVerifier>, Failure> {
        let system = self.system.get_or_init(|| Arc::new(system_roots()));
        let roots = match ca {
            None => Arc::clone(system),
            Some(ca) => {
                let mut roots = RootCertStore::clone(system);
                roots.add_parsable_certificates(ca.certificates.iter().cloned());
                Arc::new(roots)
            }
        };
        if roots.is_empty() {
            return Err(Failure::Setup(
                "the system has no CA certificates and the object names none",
            ));
        }
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
            .build()
            .map_err(|_| Failure::Setup("CA certificates are unusable"))
    }

    /// For connections that carry no identity.
    pub(super) fn without_identity(&self, verifier: Arc<WebPkiServerVerifier>) -> Result<ClientConfig, Failure> {
        let mut config = self.builder(verifier)?.with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// For connections that carry an identity: no resumption, and the layer that each of them has to pass where the
    /// identity is the credential.
    pub(super) fn with_identity(
        &self,
        verifier: Arc<WebPkiServerVerifier>,
        credential: &CertificateCredential,
    ) -> Result<(ClientConfig, Option<RequireAsked>), Failure> {
        let key = self.provider.key_provider.load_private_key(credential.key.clone_key());
        let key = key.map_err(|_| Failure::Setup("the client certificate's key is unusable"))?;
        let asked = Arc::new(AtomicBool::new(false));
        let identity = Identity {
            key: Arc::new(CertifiedKey::new(credential.chain.to_vec(), key)),
            asked: Arc::clone(&asked),
        };
        let mut config = self.builder(verifier)?.with_client_cert_resolver(Arc::new(identity));
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let rule = credential.must_be_asked.then(|| RequireAsked {
            asked,
            gate: Arc::default(),
        });
        Ok((config, rule))
    }

    /// For plain HTTP, where no configuration is ever used but the HTTP library wants one.
    pub(super) fn unused(&self) -> Result<ClientConfig, Failure> {
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&self.provider)).with_safe_default_protocol_versions();
        let builder = builder.map_err(|_| Failure::Setup("no TLS version available"))?;
        Ok(builder
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth())
    }

    fn builder(
        &self,
        verifier: Arc<WebPkiServerVerifier>,
    ) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>, Failure> {
        Ok(ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|_| Failure::Setup("no TLS version available"))?
            .with_webpki_verifier(verifier))
    }
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    let (_, ignored) = roots.add_parsable_certificates(loaded.certs);
    if ignored > 0 || !loaded.errors.is_empty() {
        tracing::debug!(
            ignored,
            errors = loaded.errors.len(),
            "some system CA certificates are unusable"
        );
    }
    roots
}

/// Presents one certificate to every server that asks, and notes that one did.
#[derive(Debug)]
struct Identity {
    key: Arc<CertifiedKey>,
    asked: Arc<AtomicBool>,
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::SeqCst);
        Some(Arc::clone(&self.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The server wanted no client certificate, so its answers are not for this identity.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the server did not ask for a client certificate")]
pub(super) struct NotAsked;

/// Connector layer of one identity: a connection whose handshake lacked a CertificateRequest is an error, before any
/// request is written to it.
///
/// rustls tells the certificate resolver nothing about the connection, so the handshakes of one identity run one after
/// another: whatever asked while the gate is held belongs to the connection being made.
#[derive(Debug, Clone)]
pub(super) struct RequireAsked {
    asked: Arc<AtomicBool>,
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl<S> Layer<S> for RequireAsked {
    type Service = AskedConnector<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AskedConnector {
            inner,
            rule: self.clone(),
        }
    }
}

/// See [`RequireAsked`].
#[derive(Debug, Clone)]
pub(super) struct AskedConnector<S> {
    inner: S,
    rule: RequireAsked,
}

impl<S, R> Service<R> for AskedConnector<S>
where
    S: Service<R, Error = Box<dyn std::error::Error + Send + Sync>> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    R: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let clone = self.inner.clone();
        // The clone is not ready; the one that was polled is.
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let rule = self.rule.clone();
        async move {
            let _gate = rule.gate.lock().await;
            rule.asked.store(false, Ordering::SeqCst);
            let connection = inner.call(request).await?;
            if rule.asked.load(Ordering::SeqCst) {
                Ok(connection)
            } else {
                Err(NotAsked.into())
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_bounded_and_not_empty() {
        assert!(matches!(
            CaBundle::from_pem(b"no certificate"),
            Err(CaBundleError::Empty)
        ));
        assert!(matches!(
            CaBundle::from_pem(&vec![b' '; MAX_CA_BYTES + 1]),
            Err(CaBundleError::Size(_))
        ));
        let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(CaBundle::from_pem(garbage), Err(CaBundleError::Certificate)));
    }
}
