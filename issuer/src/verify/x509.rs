//! X.509-SVIDs (X509-SVID §5): `webpki` builds and verifies the path, the rest is the SPIFFE profile. `webpki` refuses any
//! URI below a URI name constraint, as it does not implement them; constraints of the anchor are therefore checked here,
//! and a chain with such a constraint further down is refused.

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert, ring};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::TrustBundle;
use crate::authority::{uri_constraint, validity};
use crate::{SpiffeId, SpiffeIdError, TrustDomain};

/// What a valid certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedX509 {
    /// The URI SAN.
    pub subject: SpiffeId,
    /// The serial number, hexadecimal.
    pub serial: String,
    /// `notAfter`.
    pub not_after: Timestamp,
}

/// Why a chain is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum X509VerifyError {
    /// No certificate was given.
    #[error("no certificate")]
    Empty,
    /// The leaf does not parse.
    #[error("the leaf is not a certificate")]
    Malformed,
    /// No path leads to an anchor of the bundle.
    #[error("the chain does not verify: {0}")]
    Path(String),
    /// The leaf is a CA or may sign certificates (X509-SVID §4).
    #[error("the leaf may sign certificates")]
    Ca,
    /// The leaf has not exactly one URI SAN (X509-SVID §2).
    #[error("the leaf has {0} URI SANs; an X.509-SVID has one")]
    UriSans(usize),
    /// Its URI SAN is not a SPIFFE ID.
    #[error("the leaf's URI SAN: {0}")]
    Subject(#[from] SpiffeIdError),
    /// Its ID belongs to another trust domain.
    #[error("the leaf belongs to trust domain {0:?}")]
    TrustDomain(String),
}

/// The signatures that `webpki` verifies with `ring`; nothing with SHA-1.
const ALGORITHMS: &[&dyn rustls_pki_types::SignatureVerificationAlgorithm] = &[
    ring::ECDSA_P256_SHA256,
    ring::ECDSA_P256_SHA384,
    ring::ECDSA_P384_SHA256,
    ring::ECDSA_P384_SHA384,
    ring::ED25519,
    ring::RSA_PKCS1_2048_8192_SHA256,
    ring::RSA_PKCS1_2048_8192_SHA384,
    ring::RSA_PKCS1_2048_8192_SHA512,
];

impl TrustBundle {
    /// Verifies a chain, leaf first, of the trust domain at `now`, as a TLS server verifies a client.
    pub fn verify_x509(
        &self,
        chain: &[CertificateDer<'_>],
        domain: &TrustDomain,
        now: Timestamp,
    ) -> Result<VerifiedX509, X509VerifyError> {
        let (leaf, intermediates) = chain.split_first().ok_or(X509VerifyError::Empty)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| X509VerifyError::Malformed)?;
        let anchors: Vec<_> = self
            .x509
            .iter()
            .filter_map(|anchor| usable(anchor, domain, now))
            .collect();
        let entity = EndEntityCert::try_from(leaf).map_err(|error| X509VerifyError::Path(error.to_string()))?;
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        entity
            .verify_for_usage(
                ALGORITHMS,
                &anchors,
                intermediates,
                time,
                KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(|error| X509VerifyError::Path(error.to_string()))?;
        let usage = parsed.key_usage().ok().flatten();
        if parsed.is_ca() || usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign()) {
            return Err(X509VerifyError::Ca);
        }
        let subject = SpiffeId::parse(only_uri(&parsed)?)?;
        if subject.trust_domain() != domain.as_str() {
            return Err(X509VerifyError::TrustDomain(subject.trust_domain().to_owned()));
        }
        Ok(VerifiedX509 {
            subject,
            serial: crate::hex(parsed.raw_serial()),
            not_after: validity(&parsed).1,
        })
    }
}

/// The anchor, if it is valid now and may stand above the trust domain.
fn usable<'a>(anchor: &'a CertificateDer<'_>, domain: &TrustDomain, now: Timestamp) -> Option<TrustAnchor<'a>> {
    let (_, parsed) = X509Certificate::from_der(anchor).ok()?;
    let (start, end) = validity(&parsed);
    if now < start || now >= end || uri_constraint(&parsed, domain) == Some(false) {
        return None;
    }
    let mut anchor = anchor_from_trusted_cert(anchor).ok()?;
    anchor.name_constraints = None;
    Some(anchor)
}

fn only_uri<'a>(leaf: &'a X509Certificate<'_>) -> Result<&'a str, X509VerifyError> {
    let names = leaf
        .subject_alternative_name()
        .map_err(|_| X509VerifyError::Malformed)?;
    let uris = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    match uris.collect::<Vec<_>>().as_slice() {
        [one] => Ok(one),
        uris => Err(X509VerifyError::UriSans(uris.len())),
    }
}
