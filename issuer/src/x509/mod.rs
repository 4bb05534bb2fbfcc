//! X.509-SVIDs (X509-SVID §2–4, RFC 5280): one CA, one fresh key and one leaf per request. Every certificate is checked
//! against the profile before it leaves. Minting fails when the CA's dates leave no room, when the key's keeper cannot
//! sign, or when the check finds anything.

mod check;
mod mint;
#[cfg(test)]
mod tests;

pub use check::SelfCheckError;
pub use mint::{X509MintError, X509Svid};

use std::sync::Arc;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use crate::keys::Signer;

/// Signs X.509-SVIDs with one CA.
#[derive(Debug, Clone)]
pub struct X509Authority {
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) id: String,
    /// The signing CA's certificate.
    pub(crate) certificate: CertificateDer<'static>,
    /// `tls.crt`: the signing CA and what stands above it.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The CA certificates a verifier needs besides its anchor: those of `tls.crt` that are not self-signed.
    pub(crate) intermediates: Vec<CertificateDer<'static>>,
    /// The CA's root, from `ca.crt` or the end of `tls.crt`.
    pub(crate) root: Option<CertificateDer<'static>>,
    pub(crate) subject_der: Vec<u8>,
    pub(crate) subject_name: String,
    pub(crate) key_identifier: Vec<u8>,
    pub(crate) not_before: Timestamp,
    /// The earliest end among the chain's certificates.
    pub(crate) not_after: Timestamp,
}

impl X509Authority {
    /// The authority's id: hexadecimal SHA-256 of the CA's `SubjectPublicKeyInfo` and subject in DER.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The signing CA's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The root above the signing CA, when the Secret holds it and it is another certificate.
    pub fn root(&self) -> Option<&CertificateDer<'static>> {
        self.root.as_ref()
    }

    /// The CA's common name or else the first attribute of its subject, for messages.
    pub fn subject_name(&self) -> &str {
        &self.subject_name
    }

    /// No certificate is minted before this.
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// No certificate of this authority is valid after this.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
}
