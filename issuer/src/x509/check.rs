//! The check of every minted certificate before it is used: it is parsed again with another library than the one that
//! wrote it, and compared with the CA, the request and the profile. Nothing that fails here ever leaves the process.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::X509Authority;
use super::mint::Leaf;
use crate::der::{self, Reader};

/// What the check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SelfCheckError {
    /// It does not parse.
    #[error("it does not parse")]
    Parse,
    /// Its issuer is not the CA's subject, byte for byte.
    #[error("its issuer differs from the CA's subject")]
    Issuer,
    /// Its subject is not empty.
    #[error("its subject is not empty")]
    Subject,
    /// Its AKI is not the CA's SKI.
    #[error("its authority key identifier is not the CA's subject key identifier")]
    AuthorityKeyIdentifier,
    /// It has no SKI.
    #[error("it has no subject key identifier")]
    SubjectKeyIdentifier,
    /// It has not exactly one critical URI SAN with the subject's ID.
    #[error("it has not exactly one critical URI SAN with the SPIFFE ID")]
    UriSan,
    /// Its basic constraints, key usage or extended key usage are not the profile's.
    #[error("its basic constraints, key usage or extended key usage are not those of an X.509-SVID")]
    Usage,
    /// Its dates are not the requested ones.
    #[error("its dates are not the requested ones")]
    Validity,
    /// Its serial number is not the requested one.
    #[error("its serial number is not the requested one")]
    Serial,
    /// Its key is not the fresh one.
    #[error("its public key is not the one that was made")]
    PublicKey,
    /// The CA's key does not verify its signature.
    #[error("its signature does not verify with the CA's key")]
    Signature,
}

pub(super) fn check(authority: &X509Authority, leaf: &Leaf<'_>, der: &[u8]) -> Result<(), SelfCheckError> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| SelfCheckError::Parse)?;
    let (ca_subject, ca_key) = subject_and_key(&authority.certificate).ok_or(SelfCheckError::Parse)?;
    let ensure = |holds: bool, error: SelfCheckError| if holds { Ok(()) } else { Err(error) };
    ensure(rest.is_empty(), SelfCheckError::Parse)?;
    ensure(certificate.issuer().as_raw() == ca_subject, SelfCheckError::Issuer)?;
    ensure(certificate.subject().iter().next().is_none(), SelfCheckError::Subject)?;
    let dates = (
        certificate.validity().not_before.timestamp(),
        certificate.validity().not_after.timestamp(),
    );
    ensure(
        dates == (leaf.not_before.as_second(), leaf.not_after.as_second()),
        SelfCheckError::Validity,
    )?;
    ensure(certificate.raw_serial() == leaf.serial, SelfCheckError::Serial)?;
    let key = &certificate.public_key().subject_public_key.data;
    ensure(key.as_ref() == leaf.public_key, SelfCheckError::PublicKey)?;
    check_extensions(authority, leaf, &certificate)?;
    ensure(is_framed(der), SelfCheckError::Parse)?;
    let (_, ca_key) = SubjectPublicKeyInfo::from_der(ca_key).map_err(|_| SelfCheckError::Parse)?;
    certificate
        .verify_signature(Some(&ca_key))
        .map_err(|_| SelfCheckError::Signature)
}

/// Subject and `SubjectPublicKeyInfo` of the CA's own certificate, raw (RFC 5280 §4.1). Parsing all of it for every leaf
/// would cost more than reading the leaf.
fn subject_and_key(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut outer = Reader::new(der::single(certificate, der::SEQUENCE)?);
    let mut fields = Reader::new(outer.expect(der::SEQUENCE)?);
    // Version, serial number, algorithm, issuer, validity.
    let before_subject = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    (before_subject.0.tag == der::CONTEXT_0).then_some(())?;
    Some((fields.next()?.raw, fields.next()?.raw))
}

/// What the signature does not cover and the parser takes lightly: the outer frame, which is written in one way only, and
/// the outer algorithm, which repeats the signed one (RFC 5280 §4.1.1.2).
fn is_framed(certificate: &[u8]) -> bool {
    let frame = || {
        let mut outer = Reader::new(der::single(certificate, der::SEQUENCE)?);
        let (signed, algorithm, signature) = (outer.next()?, outer.next()?, outer.next()?);
        let mut fields = Reader::new(signed.content);
        let inner = (fields.next()?, fields.next()?, fields.next()?).2;
        let whole = der::element(der::SEQUENCE, &[signed.raw, algorithm.raw, signature.raw]);
        let bits = der::element(der::BIT_STRING, &[signature.content]);
        let padding = signature.content.first()?;
        Some(
            whole.as_slice() == certificate
                && inner.raw == algorithm.raw
                && bits.as_slice() == signature.raw
                && *padding == 0,
        )
    };
    frame() == Some(true)
}

/// Each extension of the profile exactly once, and no other.
fn check_extensions(
    authority: &X509Authority,
    leaf: &Leaf<'_>,
    certificate: &X509Certificate<'_>,
) -> Result<(), SelfCheckError> {
    let (mut aki, mut ski, mut san, mut constraints, mut usage, mut extended) = (0, 0, 0, 0, 0, 0);
    for extension in certificate.extensions() {
        let (counter, good, error) = match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(found) => {
                let good = found
                    .key_identifier
                    .as_ref()
                    .is_some_and(|id| id.0 == authority.key_identifier);
                (&mut aki, good, SelfCheckError::AuthorityKeyIdentifier)
            }
            ParsedExtension::SubjectKeyIdentifier(found) => {
                (&mut ski, !found.0.is_empty(), SelfCheckError::SubjectKeyIdentifier)
            }
            ParsedExtension::SubjectAlternativeName(found) => {
                let names = found.general_names.as_slice();
                let good = matches!(names, [GeneralName::URI(uri)] if *uri == leaf.subject.as_str());
                (&mut san, good && extension.critical, SelfCheckError::UriSan)
            }
            ParsedExtension::BasicConstraints(found) => {
                (&mut constraints, !found.ca && extension.critical, SelfCheckError::Usage)
            }
            ParsedExtension::KeyUsage(found) => {
                // Bit 0 is digitalSignature (RFC 5280 §4.2.1.3).
                (
                    &mut usage,
                    found.flags == 1 && extension.critical,
                    SelfCheckError::Usage,
                )
            }
            ParsedExtension::ExtendedKeyUsage(found) => {
                let good = found.client_auth && found.server_auth && !found.any;
                (&mut extended, good, SelfCheckError::Usage)
            }
            _ => return Err(SelfCheckError::Parse),
        };
        *counter += 1;
        if !good || *counter > 1 {
            return Err(error);
        }
    }
    match (aki, ski, san, constraints, usage, extended) {
        (1, 1, 1, 1, 1, 1) => Ok(()),
        (0, ..) => Err(SelfCheckError::AuthorityKeyIdentifier),
        (_, 0, ..) => Err(SelfCheckError::SubjectKeyIdentifier),
        (_, _, 0, ..) => Err(SelfCheckError::UriSan),
        _ => Err(SelfCheckError::Usage),
    }
}
