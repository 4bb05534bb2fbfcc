//! What the Secret of `certSecretRef` holds: the CA of a registry, a client certificate with its key, or both, under today's
//! names or those that Flux used before.

use std::fmt::Write;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::{KnownReferents, Readings, Referent, bytes, version, wipe};
use crate::{
    credential::{CertificateCredential, CredentialGeneration},
    registry::CaBundle,
    watch::ReferentKind,
};

const CA: [&str; 2] = ["ca.crt", "caFile"];
const CERTIFICATE: [&str; 2] = ["tls.crt", "certFile"];
const KEY: [&str; 2] = ["tls.key", "keyFile"];

/// CAs and a client certificate, of which one may be missing.
#[derive(Debug, Clone, Default)]
pub struct TlsSecret {
    /// CAs to trust beside the system's.
    pub ca: Option<CaBundle>,
    /// The client certificate, of the generation of the Secret.
    pub client_certificate: Option<CertificateCredential>,
    /// SHA-256, in hex, over what is used.
    pub version: String,
}

impl TlsSecret {
    /// The client certificate as a credential of the object with this UID: no other shares its connections.
    pub fn client_certificate_of(&self, uid: &str) -> Option<CertificateCredential> {
        let certificate = self.client_certificate.as_ref()?;
        let CredentialGeneration(generation) = &certificate.generation;
        Some(CertificateCredential {
            generation: CredentialGeneration(format!("{uid}/{generation}").into()),
            ..certificate.clone()
        })
    }
}

impl Referent for TlsSecret {
    type Source = Secret;
    const KIND: ReferentKind = ReferentKind::Secret;

    fn parse(secret: &Secret) -> Result<Self, String> {
        let name = secret.name_any();
        let value = |keys: [&'static str; 2]| keys.into_iter().find_map(|key| bytes(secret, key));
        let (ca, certificate, key) = (value(CA), value(CERTIFICATE), value(KEY));
        let pair = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(_), None) => return Err(format!("Secret '{name}' has tls.crt without tls.key")),
            (None, Some(_)) => return Err(format!("Secret '{name}' has tls.key without tls.crt")),
            (None, None) if ca.is_none() => return Err(format!("Secret '{name}' has no ca.crt")),
            (None, None) => None,
        };
        let mut tls = Self::default();
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        if let Some(pem) = ca {
            let bundle = CaBundle::from_pem(pem);
            tls.ca = Some(bundle.map_err(|error| format!("ca.crt of Secret '{name}': {error}"))?);
            hash.update(pem);
        }
        if let Some((certificate, key)) = pair {
            let generation = format!("ClientCertificate/{name}/{}", version(secret));
            let read = CertificateCredential::from_pem(certificate, key, CredentialGeneration(generation.into()));
            tls.client_certificate =
                Some(read.map_err(|error| format!("tls.crt and tls.key of Secret '{name}': {error}"))?);
            // Beside a CA, so that no text can stand for both.
            hash.update(&[0]);
            hash.update(certificate);
        }
        for byte in hash.finish().as_ref() {
            // Writing to a string cannot fail.
            let _ = write!(tls.version, "{byte:02x}");
        }
        Ok(tls)
    }

    fn wipe(secret: &mut Secret) {
        wipe(secret);
    }

    fn readings(known: &KnownReferents) -> &Readings<Self> {
        &known.tls
    }
}
