//! The signing Secret and the authority made of it: `tls.key` signs, `tls.crt` is its CA (leaf-most first), `ca.crt` its
//! optional root. Loading checks everything that can be known before the first signature and fails with the field and the
//! rule; a Secret that cannot do certificates may still do tokens, and the other way round.

mod certificate;
mod load;

#[cfg(test)]
mod tests;

pub(crate) use certificate::{uri_constraint, validity};
pub(crate) use load::authority_id;

use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::keys::{KeyAlgorithm, KeyError, PrivateKey};
use crate::{JwtAuthority, TrustDomain, X509Authority};

/// A certificate may lie this far in the future: clocks differ, and a CA is often delivered the moment it begins.
pub(crate) const FUTURE_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// The fields of a signing Secret (type `kubernetes.io/tls`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `tls.key`: the private key.
    TlsKey,
    /// `tls.crt`: the CA certificate and its chain.
    TlsCrt,
    /// `ca.crt`: the root, optional.
    CaCrt,
}

impl Field {
    /// The field's name in the Secret.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TlsKey => "tls.key",
            Self::TlsCrt => "tls.crt",
            Self::CaCrt => "ca.crt",
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The bytes of a signing Secret. Wiped on drop where secret; `Debug` shows lengths.
#[derive(Clone, Default)]
pub struct SigningSecret {
    /// `tls.key`, PEM.
    pub tls_key: Zeroizing<Vec<u8>>,
    /// `tls.crt`, PEM; the CA first, then the certificates above it.
    pub tls_crt: Vec<u8>,
    /// `ca.crt`, PEM; empty counts as absent.
    pub ca_crt: Option<Vec<u8>>,
}

impl SigningSecret {
    /// Takes the fields out of a Secret's data; other fields are ignored. What is missing, [`Authority::load`] tells.
    pub fn from_data<'a>(data: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut secret = Self::default();
        for (field, value) in data {
            match field {
                "tls.key" => secret.tls_key = Zeroizing::new(value.to_vec()),
                "tls.crt" => secret.tls_crt = value.to_vec(),
                "ca.crt" => secret.ca_crt = Some(value.to_vec()),
                _ => {}
            }
        }
        secret
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningSecret")
            .field("tls_crt", &self.tls_crt.len())
            .finish_non_exhaustive()
    }
}

/// What a signing Secret is checked against.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions<'a> {
    /// The trust domain that the CA must belong to.
    pub trust_domain: &'a TrustDomain,
    /// The certificate authorities of the cluster itself (DER): signing with one of them would make cluster credentials.
    pub cluster_cas: &'a [CertificateDer<'a>],
}

/// A checked signing Secret: what it can sign, why it cannot sign the rest, and what its owner should know.
#[derive(Debug, Clone)]
pub struct Authority {
    pub(crate) key: Arc<PrivateKey>,
    pub(crate) jwt: Result<Arc<JwtAuthority>, JwtUnavailable>,
    pub(crate) x509: Result<Arc<X509Authority>, X509Unavailable>,
    pub(crate) advisories: Vec<Advisory>,
}

impl Authority {
    /// Signs JWT-SVIDs, or why not.
    pub fn jwt(&self) -> Result<&Arc<JwtAuthority>, &JwtUnavailable> {
        self.jwt.as_ref()
    }

    /// Signs X.509-SVIDs, or why not.
    pub fn x509(&self) -> Result<&Arc<X509Authority>, &X509Unavailable> {
        self.x509.as_ref()
    }

    /// What would make the CA safer; nothing that stops it.
    pub fn advisories(&self) -> &[Advisory] {
        &self.advisories
    }
}

/// Why a signing Secret is not usable at all. The text names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The Secret does not exist.
    #[error("the signing Secret does not exist")]
    Absent,
    /// A field is absent or empty.
    #[error("{0} is missing or empty in the signing Secret")]
    Missing(Field),
    /// The private key cannot be used.
    #[error("tls.key: {0}")]
    Key(#[from] KeyError),
    /// A certificate cannot be read.
    #[error("{field}: {reason}")]
    Certificate {
        /// Where it stands.
        field: Field,
        /// What is wrong.
        reason: String,
    },
    /// Key and certificate do not belong together, as in a Secret that is updated in two steps.
    #[error("tls.key does not belong to the first certificate of tls.crt")]
    Mismatch,
    /// A certificate is over.
    #[error("{field}: the certificate {subject:?} expired at {at}")]
    Expired {
        /// Where it stands.
        field: Field,
        /// Its subject.
        subject: String,
        /// Its `notAfter`.
        at: Timestamp,
    },
    /// A certificate begins more than five minutes from now.
    #[error("{field}: the certificate {subject:?} is valid only from {at}")]
    NotYetValid {
        /// Where it stands.
        field: Field,
        /// Its subject.
        subject: String,
        /// Its `notBefore`.
        at: Timestamp,
    },
    /// The CA names another trust domain, or a path.
    #[error("tls.crt: the CA's URI SAN is {found:?}; it must be {expected:?} or absent")]
    TrustDomain {
        /// What the certificate says.
        found: String,
        /// The trust domain's ID.
        expected: String,
    },
    /// The certificates of `tls.crt` are not each signed by the next one.
    #[error("tls.crt: certificate {position} of the chain {reason}")]
    Chain {
        /// Counted from 1, the signing CA.
        position: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The root does not belong to the chain.
    #[error("ca.crt: none of its certificates has signed the last certificate of tls.crt")]
    Root,
    /// The cluster's own CA was given.
    #[error("{0}: this is the CA of the cluster itself, or issued by it; use a CA made for workload identities only")]
    ClusterCa(Field),
}

/// Why an authority signs no JWT-SVIDs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwtUnavailable {
    /// The kind of key has no JWT-SVID algorithm.
    #[error("tls.key: an {0} key signs no JWT-SVIDs; use EC P-256, EC P-384 or RSA")]
    KeyKind(KeyAlgorithm),
    /// The header could not be written.
    #[error("the token header could not be encoded: {0}")]
    Header(String),
}

/// Why an authority signs no X.509-SVIDs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum X509Unavailable {
    /// An ordinary certificate.
    #[error("tls.crt: the certificate is not a CA (basic constraints)")]
    NotCa,
    /// A CA that must not sign certificates.
    #[error("tls.crt: the CA's key usage lacks keyCertSign")]
    NoKeyCertSign,
    /// RFC 5280 §4.1.2.6 wants a CA to have a name.
    #[error("tls.crt: the CA's subject is empty")]
    EmptySubject,
    /// Verifiers apply a CA's extended key usage to what it signs.
    #[error("tls.crt: the CA's extended key usage does not allow clientAuth")]
    ExtendedKeyUsage,
    /// The CA may not sign IDs of this trust domain.
    #[error("tls.crt: the CA's name constraints do not permit URIs of trust domain {0:?}")]
    NameConstraints(String),
}

/// What an owner of a CA should know. One log line and a gauge, no Event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Advisory {
    /// The CA may sign further CAs.
    #[error("tls.crt: the CA has no path length constraint of 0, so whoever holds its key could make further CAs")]
    PathLength,
    /// The CA may sign any name.
    #[error(
        "tls.crt: the CA has no URI name constraint, so whoever holds its key could sign IDs of other trust domains"
    )]
    NameConstraints,
}
