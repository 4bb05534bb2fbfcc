//! The names under which one signing key and its CA appear: in the documents, in the ring, in a registry's access log.

use anyhow::{Context, Result};
use mintmark_hack::{
    digest::hex,
    pki::{KeyAndCertificate, TestCa},
};
use x509_parser::{extensions::ParsedExtension, pem::parse_x509_pem};

use crate::issuer::authority;

/// What a controller signs with while a certain CA is in its signing Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Key id of its JWTs.
    pub kid: String,
    /// Id of the X.509 authority in the ring.
    pub authority: String,
    /// The CA's subject key identifier in hexadecimal, which stands in every certificate that it signed.
    pub key_identifier: String,
    /// The CA's certificate as base64 without line breaks, as it stands between the lines of a PEM block.
    pub certificate: String,
}

impl Keys {
    /// Of a CA with its key.
    pub fn of(ca: &TestCa) -> Result<Self> {
        Self::of_pair(ca.key_and_certificate())
    }

    fn of_pair(pair: &KeyAndCertificate) -> Result<Self> {
        let authority = authority(pair)?;
        let (_, block) = parse_x509_pem(pair.certificate_pem.as_bytes())?;
        let certificate = block.parse_x509()?;
        let key_identifier = certificate
            .extensions()
            .iter()
            .find_map(|it| match it.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(hex(id.0)),
                _ => None,
            });
        Ok(Self {
            kid: authority.jwt().map_err(Clone::clone)?.kid().to_owned(),
            authority: authority.x509().map_err(Clone::clone)?.id().to_owned(),
            key_identifier: key_identifier.context("a CA without subject key identifier")?,
            certificate: body(&pair.certificate_pem),
        })
    }
}

/// The base64 of PEM text without lines that begin or end a block, without line breaks.
pub fn body(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with('-')).collect()
}
