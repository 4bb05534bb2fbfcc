//! Reading CA certificates: PEM in, checked facts out. Each check is one small function, so that each rule has one place
//! and one error.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::{Advisory, AuthorityError, FUTURE_TOLERANCE, Field, X509Unavailable};
use crate::TrustDomain;
use crate::pem;

/// Most certificates in one field.
const MAX_CERTIFICATES: usize = 16;

/// The certificates of a PEM field, each known to parse; at least one.
pub(super) fn certificates(field: Field, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let wrong = |reason: String| AuthorityError::Certificate { field, reason };
    let sections = pem::sections(text).map_err(|error| wrong(error.to_string()))?;
    if sections.len() > MAX_CERTIFICATES {
        return Err(wrong(format!("more than {MAX_CERTIFICATES} certificates")));
    }
    let mut found = Vec::with_capacity(sections.len());
    for section in &sections {
        if section.label != "CERTIFICATE" {
            return Err(wrong(format!(
                "contains {:?}; only certificates belong here",
                section.label
            )));
        }
        parse(field, &section.der)?;
        found.push(CertificateDer::from(section.der.to_vec()));
    }
    Ok(found)
}

pub(super) fn parse(field: Field, der: &[u8]) -> Result<X509Certificate<'_>, AuthorityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(AuthorityError::Certificate {
            field,
            reason: "bytes after a certificate".into(),
        }),
        Err(error) => Err(AuthorityError::Certificate {
            field,
            reason: format!("not a certificate: {error}"),
        }),
    }
}

/// Both ends of the validity.
pub(crate) fn validity(certificate: &X509Certificate<'_>) -> (Timestamp, Timestamp) {
    let at = |seconds: i64| Timestamp::from_second(seconds);
    let validity = certificate.validity();
    (
        at(validity.not_before.timestamp()).unwrap_or(Timestamp::MAX),
        // RFC 5280 §4.1.2.5: 99991231235959Z means "no end"; it lies beyond what a timestamp can hold.
        at(validity.not_after.timestamp()).unwrap_or(Timestamp::MAX),
    )
}

/// Within its dates, or up to five minutes before them.
pub(super) fn check_dates(
    field: Field,
    certificate: &X509Certificate<'_>,
    now: Timestamp,
) -> Result<(), AuthorityError> {
    let (not_before, not_after) = validity(certificate);
    let subject = || certificate.subject().to_string();
    if not_before.duration_since(now) > FUTURE_TOLERANCE {
        return Err(AuthorityError::NotYetValid {
            field,
            subject: subject(),
            at: not_before,
        });
    }
    if not_after <= now {
        return Err(AuthorityError::Expired {
            field,
            subject: subject(),
            at: not_after,
        });
    }
    Ok(())
}

/// URI SANs, if any, are exactly the trust domain's ID (X509-SVID §4.2: a signing certificate has no path).
pub(super) fn check_uri_sans(certificate: &X509Certificate<'_>, domain: &TrustDomain) -> Result<(), AuthorityError> {
    for extension in certificate.extensions() {
        let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
            continue;
        };
        for name in &names.general_names {
            match name {
                GeneralName::URI(uri) if *uri != domain.id() => {
                    return Err(AuthorityError::TrustDomain {
                        found: (*uri).to_owned(),
                        expected: domain.id(),
                    });
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Whether the certificate may sign X.509-SVIDs of this trust domain.
pub(super) fn check_ca(certificate: &X509Certificate<'_>, domain: &TrustDomain) -> Result<(), X509Unavailable> {
    if !certificate.is_ca() {
        return Err(X509Unavailable::NotCa);
    }
    // RFC 5280 §4.2.1.3: without the extension the key may do anything; a CA made for the purpose says what it is.
    if !certificate
        .key_usage()
        .ok()
        .flatten()
        .is_some_and(|usage| usage.value.key_cert_sign())
    {
        return Err(X509Unavailable::NoKeyCertSign);
    }
    if certificate.subject().iter().next().is_none() {
        return Err(X509Unavailable::EmptySubject);
    }
    let extended = certificate.extended_key_usage().ok().flatten();
    if extended.is_some_and(|usage| !(usage.value.any || usage.value.client_auth)) {
        return Err(X509Unavailable::ExtendedKeyUsage);
    }
    if uri_constraint(certificate, domain) == Some(false) {
        return Err(X509Unavailable::NameConstraints(domain.to_string()));
    }
    Ok(())
}

/// What could be narrower in a CA that may sign.
pub(super) fn advisories(certificate: &X509Certificate<'_>, domain: &TrustDomain) -> Vec<Advisory> {
    let path_length = certificate
        .basic_constraints()
        .ok()
        .flatten()
        .and_then(|found| found.value.path_len_constraint);
    let mut found = Vec::new();
    if path_length != Some(0) {
        found.push(Advisory::PathLength);
    }
    if uri_constraint(certificate, domain).is_none() {
        found.push(Advisory::NameConstraints);
    }
    found
}

/// The subject's common name, else its first attribute.
pub(super) fn subject_name(certificate: &X509Certificate<'_>) -> String {
    let subject = certificate.subject();
    let attribute = subject
        .iter_common_name()
        .next()
        .or_else(|| subject.iter_attributes().next());
    attribute
        .and_then(|attribute| attribute.as_str().ok())
        .map_or_else(|| subject.to_string(), str::to_owned)
}

/// `issuer` is the issuer of `certificate`, by name and by signature.
pub(super) fn issued_by(certificate: &X509Certificate<'_>, issuer: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate.verify_signature(Some(issuer.public_key())).is_ok()
}

/// Whether URI name constraints (RFC 5280 §4.2.1.10) permit the trust domain; `None` when there are none.
pub(crate) fn uri_constraint(certificate: &X509Certificate<'_>, domain: &TrustDomain) -> Option<bool> {
    let constraints = certificate.name_constraints().ok().flatten()?.value;
    let covers = |base: &GeneralName<'_>| match base {
        GeneralName::URI(host) if host.starts_with('.') => Some(domain.as_str().ends_with(host)),
        GeneralName::URI(host) => Some(domain.as_str() == *host),
        _ => None,
    };
    let excluded = constraints
        .excluded_subtrees
        .iter()
        .flatten()
        .filter_map(|subtree| covers(&subtree.base));
    if excluded.into_iter().any(|covered| covered) {
        return Some(false);
    }
    constraints
        .permitted_subtrees
        .iter()
        .flatten()
        .filter_map(|subtree| covers(&subtree.base))
        .reduce(|one, other| one || other)
}
