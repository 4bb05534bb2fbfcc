//! A client certificate that a user keeps in a Secret, for registries that want one beside, or instead of, a login.
//!
//! Pure. Reads PEM; the key may be PKCS#8, PKCS#1 or SEC1. Errors quote nothing of what they read.

use std::sync::Arc;

use rustls::{crypto::ring, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};

use super::{CertificateCredential, CredentialGeneration};

/// Largest chain and largest key, in bytes of PEM.
const MAX_PEM: usize = 64 * 1024;
/// Most certificates in a chain.
const MAX_CHAIN: usize = 16;

/// Why a certificate and key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientCertificateError {
    /// Larger than anybody's.
    #[error("more than {MAX_PEM} bytes or {MAX_CHAIN} certificates")]
    Size,
    /// Nothing in PEM that is a certificate.
    #[error("the certificate cannot be read")]
    Certificate,
    /// Nothing in PEM that is a private key of a kind that signs here.
    #[error("the key cannot be read or is of a kind that is not supported")]
    Key,
    /// The key is another certificate's.
    #[error("the key does not belong to the certificate")]
    Mismatch,
}

impl CertificateCredential {
    /// Reads a chain, leaf first, and its key. A server need not ask for it.
    pub fn from_pem(
        chain: &[u8],
        key: &[u8],
        generation: CredentialGeneration,
    ) -> Result<Self, ClientCertificateError> {
        if chain.len().max(key.len()) > MAX_PEM {
            return Err(ClientCertificateError::Size);
        }
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| ClientCertificateError::Certificate)?;
        if chain.len() > MAX_CHAIN {
            return Err(ClientCertificateError::Size);
        }
        let leaf = chain.first().ok_or(ClientCertificateError::Certificate)?;
        let issuer = issuer_of(leaf).ok_or(ClientCertificateError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| ClientCertificateError::Key)?;
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &ring::default_provider()).map_err(
            |error| match error {
                rustls::Error::InconsistentKeys(_) => ClientCertificateError::Mismatch,
                rustls::Error::InvalidCertificate(_) => ClientCertificateError::Certificate,
                _ => ClientCertificateError::Key,
            },
        )?;
        Ok(Self {
            chain: chain.into(),
            key: Arc::new(key),
            issuer: issuer.into(),
            generation,
            must_be_asked: false,
        })
    }
}

/// The issuer's common name, else the whole name, without control characters and at most 128 characters.
fn issuer_of(leaf: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let issuer = certificate.issuer();
    let common_name = issuer.iter_common_name().next().and_then(|name| name.as_str().ok());
    let name = common_name.map_or_else(|| issuer.to_string(), str::to_owned);
    Some(name.chars().filter(|c| !c.is_control()).take(128).collect())
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use rcgen::{CertificateParams, DnType, KeyPair};
    use rstest::rstest;

    use super::*;

    fn pair(name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        (
            pem("CERTIFICATE", certificate.der()),
            pem("PRIVATE KEY", &key.serialize_der()),
        )
    }

    fn pem(label: &str, der: &[u8]) -> String {
        let text = BASE64_STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    fn read(chain: &str, key: &str) -> Result<CertificateCredential, ClientCertificateError> {
        CertificateCredential::from_pem(chain.as_bytes(), key.as_bytes(), CredentialGeneration("g".into()))
    }

    #[test]
    fn a_pair_names_its_issuer_and_need_not_be_asked_for() {
        let (chain, key) = pair("Tenant CA");
        let credential = read(&chain, &key).unwrap();
        assert_eq!((&*credential.issuer, credential.chain.len()), ("Tenant CA", 1));
        assert!(!credential.must_be_asked);
        assert!(!format!("{credential:?}").contains("Pkcs8"));
    }

    #[rstest]
    #[case::ec("ec-p256.sec1.key", "two-ou.crt")]
    #[case::ec_pkcs8("ec-p256.pkcs8.key", "two-ou.crt")]
    #[case::rsa("rsa-2048.pkcs1.key", "multi-valued-rdn.crt")]
    #[case::ed25519("ed25519.pkcs8.key", "ed25519.crt")]
    fn every_form_of_key(#[case] key: &str, #[case] certificate: &str) {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../issuer/testdata/");
        let text = |name: &str| std::fs::read_to_string(format!("{folder}{name}")).unwrap();
        read(&text(certificate), &text(key)).unwrap();
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let (chain, key) = pair("a");
        let (other, _) = pair("b");
        let error = |chain: &str, key: &str| read(chain, key).unwrap_err();
        assert_eq!(error(&other, &key), ClientCertificateError::Mismatch);
        assert_eq!(error(&key, &key), ClientCertificateError::Certificate);
        assert_eq!(error(&chain, &chain), ClientCertificateError::Key);
        assert_eq!(error("", &key), ClientCertificateError::Certificate);
        assert_eq!(error(&chain, ""), ClientCertificateError::Key);
        assert_eq!(error(&chain.repeat(17), &key), ClientCertificateError::Size);
        assert_eq!(error(&" ".repeat(MAX_PEM + 1), &key), ClientCertificateError::Size);
    }
}
