//! Verifying SVIDs as a registry would: against a published bundle or JWKS, at a given moment, with other libraries than
//! those that mint. For the command line and for tests; no pull depends on it.

mod jwt;
mod x509;

#[cfg(test)]
mod tests;

pub use jwt::{JwtVerifyError, VerifiedJwt};
pub use x509::{VerifiedX509, X509VerifyError};

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;

use crate::keys::{Jwk, PublicKey};
use crate::pem;

/// What a verifier trusts: JWT keys by id and X.509 trust anchors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustBundle {
    jwt: BTreeMap<String, PublicKey>,
    x509: Vec<CertificateDer<'static>>,
}

/// Why a file is not a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Neither JSON with `keys` nor PEM.
    #[error("neither a SPIFFE bundle, nor a JWKS, nor PEM: {0}")]
    Format(String),
    /// A key that cannot be used.
    #[error("key {0} of the bundle cannot be used")]
    Key(usize),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    #[serde(flatten)]
    key: Jwk,
    kid: Option<String>,
    x5c: Option<Vec<String>>,
}

impl TrustBundle {
    /// Reads a SPIFFE bundle (Trust Domain and Bundle §4), a JWKS (RFC 7517 §5) or CA certificates in PEM.
    pub fn parse(text: &[u8]) -> Result<Self, BundleError> {
        if text.trim_ascii_start().starts_with(b"{") {
            Self::from_json(text)
        } else {
            Self::from_pem(text)
        }
    }

    fn from_json(text: &[u8]) -> Result<Self, BundleError> {
        let set: Set = serde_json::from_slice(text).map_err(|error| BundleError::Format(error.to_string()))?;
        let mut bundle = Self::default();
        for (index, member) in set.keys.into_iter().enumerate() {
            let wrong = || BundleError::Key(index);
            if let Some(certificates) = member.x5c {
                for certificate in certificates {
                    let der = STANDARD.decode(certificate).map_err(|_| wrong())?;
                    bundle.x509.push(CertificateDer::from(der));
                }
            } else {
                let key = PublicKey::from_jwk(&member.key).map_err(|_| wrong())?;
                bundle.jwt.insert(member.kid.ok_or_else(wrong)?, key);
            }
        }
        Ok(bundle)
    }

    fn from_pem(text: &[u8]) -> Result<Self, BundleError> {
        let sections = pem::sections(text).map_err(|error| BundleError::Format(error.to_string()))?;
        let certificates = sections.iter().filter(|section| section.label == "CERTIFICATE");
        Ok(Self {
            x509: certificates
                .map(|section| CertificateDer::from(section.der.to_vec()))
                .collect(),
            ..Self::default()
        })
    }

    /// The ids of the JWT keys.
    pub fn jwt_key_ids(&self) -> impl Iterator<Item = &str> {
        self.jwt.keys().map(String::as_str)
    }

    /// The X.509 trust anchors.
    pub fn x509_anchors(&self) -> &[CertificateDer<'static>] {
        &self.x509
    }
}
