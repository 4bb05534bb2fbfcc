//! The certificate that the issuer's port is served with: a `kubernetes.io/tls` Secret that is followed. Until there is a
//! usable one the port is closed, never plain; from then on a bad update leaves the last good one. Open connections keep
//! the certificate they were accepted with.

use std::sync::Arc;

use kube::Client;
use rustls::{ServerConfig, crypto::ring};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::sync::watch;

use super::input::Input;
use crate::{
    runtime::{health::Gate, metrics::Metrics, serve::TlsSource},
    watch::{SecretData, follow_secret},
};

/// Why the Secret holds no usable certificate.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TlsSecretError {
    /// There is no such Secret.
    #[error("it does not exist")]
    Absent,
    /// A field is missing.
    #[error("it has no field {0}")]
    Field(&'static str),
    /// `tls.crt` holds no certificate in PEM.
    #[error("tls.crt holds no certificate in PEM")]
    Certificate,
    /// `tls.key` holds no private key in PEM.
    #[error("tls.key holds no private key in PEM")]
    Key,
    /// The key is not the certificate's, or of a kind that is not supported.
    #[error("the certificate and the key cannot be used: {0}")]
    Pair(rustls::Error),
}

/// Follows the Secret of `--issuer-tls-secret-name`.
pub struct TlsFollower {
    secret: String,
    config: watch::Sender<Option<Arc<ServerConfig>>>,
    input: Input,
}

impl TlsFollower {
    /// The port is closed at first. `gate` opens with the first usable certificate.
    pub fn new(secret: &str, metrics: Metrics, gate: Option<Gate>) -> (Self, TlsSource) {
        let (config, source) = watch::channel(None);
        let follower = Self {
            secret: secret.to_owned(),
            config,
            input: Input::new("tls", secret, metrics, gate),
        };
        (follower, source)
    }

    /// Follows the Secret in `namespace`; never returns.
    pub async fn run(mut self, client: Client, namespace: &str) {
        let secret = self.secret.clone();
        follow_secret(client, namespace, &secret, |data| self.take(data)).await;
    }

    fn take(&mut self, data: Option<&SecretData>) {
        match data.ok_or(TlsSecretError::Absent).and_then(server_config) {
            Err(error) => self.input.refused(&error),
            Ok(config) => {
                self.input.accepted();
                tracing::info!(
                    secret = self.secret,
                    "serving the issuer's documents with its certificate"
                );
                self.config.send_replace(Some(Arc::new(config)));
            }
        }
    }
}

/// TLS 1.2 and 1.3 with `tls.crt` (leaf first) and `tls.key` (PKCS#8, SEC1 or PKCS#1), HTTP/1.1, no client certificate.
fn server_config(data: &SecretData) -> Result<ServerConfig, TlsSecretError> {
    let field = |name: &'static str| {
        let value = data.get(name).ok_or(TlsSecretError::Field(name))?;
        Ok(value.0.as_slice())
    };
    let chain = CertificateDer::pem_slice_iter(field("tls.crt")?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| TlsSecretError::Certificate)?;
    if chain.is_empty() {
        return Err(TlsSecretError::Certificate);
    }
    let key = PrivateKeyDer::from_pem_slice(field("tls.key")?).map_err(|_| TlsSecretError::Key)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsSecretError::Pair)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsSecretError::Pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use rstest::rstest;

    use super::*;
    use crate::{publish::tests::pem, runtime::health::Health};

    fn pair() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        (
            pem("CERTIFICATE", certificate.der()),
            pem("PRIVATE KEY", &key.serialize_der()),
        )
    }

    fn data(certificate: &str, key: &str) -> SecretData {
        [("tls.crt", certificate), ("tls.key", key)]
            .map(|(name, value)| (name.to_owned(), ByteString(value.as_bytes().to_vec())))
            .into()
    }

    fn good() -> SecretData {
        let (certificate, key) = pair();
        data(&certificate, &key)
    }

    #[rstest]
    #[case::gone(None)]
    #[case::empty(Some(SecretData::new()))]
    #[case::no_certificate(Some(data("", &pair().1)))]
    #[case::no_key(Some(data(&pair().0, "-----BEGIN PRIVATE KEY-----\n-----END")))]
    #[case::key_of_another(Some(data(&pair().0, &pair().1)))]
    fn a_bad_secret_keeps_the_port_closed_or_the_last_certificate(#[case] bad: Option<SecretData>) {
        let health = Health::new();
        let (mut follower, source) = TlsFollower::new("tls", Metrics::default(), Some(health.gate("tls")));
        follower.take(bad.as_ref());
        assert!(source.borrow().is_none() && !health.is_ready());
        follower.take(Some(&good()));
        let first = source.borrow().clone().unwrap();
        assert!(health.is_ready());
        follower.take(bad.as_ref());
        assert!(Arc::ptr_eq(&first, source.borrow().as_ref().unwrap()) && health.is_ready());
        follower.take(Some(&good()));
        assert!(!Arc::ptr_eq(&first, source.borrow().as_ref().unwrap()));
    }

    #[test]
    fn a_reason_names_no_key_material() {
        let error = server_config(&data(&pair().0, "planted")).unwrap_err();
        assert_eq!(error.to_string(), "tls.key holds no private key in PEM");
    }
}
