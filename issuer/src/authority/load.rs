//! From Secret bytes to an [`Authority`]: the order of the checks decides which error a half-updated or wrong Secret shows,
//! most telling first.

use std::sync::Arc;

use ::ring::digest::{Context, SHA256, digest};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;

use super::certificate::{
    advisories, certificates, check_ca, check_dates, check_uri_sans, issued_by, parse, subject_name, validity,
};
use super::{Authority, AuthorityError, Field, LoadOptions, SigningSecret};
use crate::keys::{PrivateKey, PublicKey, Signer};
use crate::{JwtAuthority, X509Authority};

/// Length of a computed key identifier (RFC 7093 §2: the leftmost 160 bits of SHA-256).
const KEY_IDENTIFIER_BYTES: usize = 20;

impl Authority {
    /// Checks a signing Secret and makes an authority of it. `now` is wall time.
    pub fn load(secret: &SigningSecret, options: &LoadOptions<'_>, now: Timestamp) -> Result<Self, AuthorityError> {
        for (field, value) in [
            (Field::TlsKey, secret.tls_key.as_slice()),
            (Field::TlsCrt, &secret.tls_crt),
        ] {
            if value.trim_ascii().is_empty() {
                return Err(AuthorityError::Missing(field));
            }
        }
        let key = PrivateKey::from_pem(&secret.tls_key)?;
        let signer: Arc<dyn Signer> = Arc::new(key.signer()?);
        let chain = certificates(Field::TlsCrt, &secret.tls_crt)?;
        let roots = match secret.ca_crt.as_deref().map(<[u8]>::trim_ascii) {
            None | Some([]) => Vec::new(),
            Some(text) => certificates(Field::CaCrt, text)?,
        };
        let parsed = chain
            .iter()
            .map(|der| parse(Field::TlsCrt, der))
            .collect::<Result<Vec<_>, _>>()?;
        let first = parsed.first().ok_or(AuthorityError::Missing(Field::TlsCrt))?;
        if first.public_key().subject_public_key.data != signer.public_key().raw() {
            return Err(AuthorityError::Mismatch);
        }
        refuse_cluster_cas(options.cluster_cas, &chain, &roots)?;
        for certificate in &parsed {
            check_dates(Field::TlsCrt, certificate, now)?;
        }
        let (_, not_after) = validity(first);
        let jwt = JwtAuthority::new(Arc::clone(&signer), Some(not_after)).map(Arc::new);
        let (x509, advisories) = if let Err(reason) = check_ca(first, options.trust_domain) {
            (Err(reason), Vec::new())
        } else {
            check_uri_sans(first, options.trust_domain)?;
            let root = check_chain(&parsed, &roots, now)?;
            let advisories = advisories(first, options.trust_domain);
            (
                Ok(Arc::new(X509Authority::assemble(signer, chain.clone(), root)?)),
                advisories,
            )
        };
        Ok(Self {
            key: Arc::new(key),
            jwt,
            x509,
            advisories,
        })
    }
}

/// Each certificate is a CA and signed by the next, path lengths allow it, and the last one belongs to a root of `ca.crt`
/// if any was given. Returns the root, if it is another certificate than the signing CA.
fn check_chain(
    chain: &[X509Certificate<'_>],
    roots: &[CertificateDer<'static>],
    now: Timestamp,
) -> Result<Option<CertificateDer<'static>>, AuthorityError> {
    for (index, (lower, upper)) in chain.iter().zip(chain.iter().skip(1)).enumerate() {
        if !issued_by(lower, upper) {
            return Err(AuthorityError::Chain {
                position: index + 1,
                reason: "is not signed by the next one",
            });
        }
        check_upper(upper, index + 1)?;
    }
    let Some(last) = chain.last() else { return Ok(None) };
    for root in roots {
        let parsed = parse(Field::CaCrt, root)?;
        check_dates(Field::CaCrt, &parsed, now)?;
        if !parsed.is_ca() {
            let reason = format!("the certificate {:?} is not a CA", parsed.subject().to_string());
            return Err(AuthorityError::Certificate {
                field: Field::CaCrt,
                reason,
            });
        }
    }
    let own = |der: &CertificateDer<'_>| chain.first().is_some_and(|first| first.as_raw() == der.as_ref());
    let above = |der: &&CertificateDer<'static>| {
        last.as_raw() == der.as_ref() || parse(Field::CaCrt, der).is_ok_and(|root| issued_by(last, &root))
    };
    match roots.iter().find(above) {
        Some(root) => Ok((!own(root)).then(|| root.clone())),
        None if !roots.is_empty() => Err(AuthorityError::Root),
        None if chain.len() > 1 && is_self_signed(last) => Ok(Some(CertificateDer::from(last.as_raw().to_vec()))),
        None => Ok(None),
    }
}

/// A certificate above the signing CA: a CA whose path length leaves room for `below` CAs under it.
fn check_upper(certificate: &X509Certificate<'_>, below: usize) -> Result<(), AuthorityError> {
    let position = below + 1;
    let constraints = certificate.basic_constraints().ok().flatten();
    let Some(constraints) = constraints.filter(|found| found.value.ca) else {
        return Err(AuthorityError::Chain {
            position,
            reason: "is not a CA",
        });
    };
    match constraints.value.path_len_constraint {
        Some(length) if usize::try_from(length).is_ok_and(|length| length < below) => Err(AuthorityError::Chain {
            position,
            reason: "has a path length constraint that forbids the CAs below it",
        }),
        _ => Ok(()),
    }
}

impl X509Authority {
    /// Puts a checked chain (signing CA first, as in `tls.crt`), its root and its signer together.
    pub(crate) fn assemble(
        signer: Arc<dyn Signer>,
        chain: Vec<CertificateDer<'static>>,
        root: Option<CertificateDer<'static>>,
    ) -> Result<Self, AuthorityError> {
        let parsed = chain
            .iter()
            .map(|der| parse(Field::TlsCrt, der))
            .collect::<Result<Vec<_>, _>>()?;
        let (Some(certificate), Some(ca)) = (chain.first(), parsed.first()) else {
            return Err(AuthorityError::Missing(Field::TlsCrt));
        };
        if ca.public_key().subject_public_key.data != signer.public_key().raw() {
            return Err(AuthorityError::Mismatch);
        }
        let sent = chain.iter().zip(&parsed).filter(|(_, parsed)| !is_self_signed(parsed));
        let (not_before, not_after) = parsed
            .iter()
            .map(validity)
            .fold((Timestamp::MIN, Timestamp::MAX), |(start, end), (from, until)| {
                (start.max(from), end.min(until))
            });
        Ok(Self {
            id: authority_id(signer.public_key(), ca.subject().as_raw()),
            certificate: certificate.clone(),
            intermediates: sent.map(|(der, _)| der.clone()).collect(),
            root,
            subject_der: ca.subject().as_raw().to_vec(),
            subject_name: subject_name(ca),
            key_identifier: key_identifier(ca),
            not_before,
            not_after,
            signer,
            chain,
        })
    }
}

/// The id of an X.509 authority: hexadecimal SHA-256 of `SubjectPublicKeyInfo` and subject, both in DER.
pub(crate) fn authority_id(key: &PublicKey, subject: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(key.spki_der());
    context.update(subject);
    crate::hex(context.finish().as_ref())
}

fn key_identifier(ca: &X509Certificate<'_>) -> Vec<u8> {
    let own = ca
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
    own.unwrap_or_else(|| {
        let hash = digest(&SHA256, &ca.public_key().subject_public_key.data);
        hash.as_ref().iter().take(KEY_IDENTIFIER_BYTES).copied().collect()
    })
}

fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    issued_by(certificate, certificate)
}

/// No certificate has the key of a cluster CA or is issued by one.
fn refuse_cluster_cas(
    cluster: &[CertificateDer<'_>],
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
) -> Result<(), AuthorityError> {
    // A cluster CA that does not parse cannot be compared, nor can it be the one that was given.
    let cluster: Vec<_> = cluster
        .iter()
        .filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1))
        .collect();
    let given = chain
        .iter()
        .map(|der| (Field::TlsCrt, der))
        .chain(roots.iter().map(|der| (Field::CaCrt, der)));
    for (field, der) in given {
        let certificate = parse(field, der)?;
        for ca in &cluster {
            if certificate.public_key().raw == ca.public_key().raw || issued_by(&certificate, ca) {
                return Err(AuthorityError::ClusterCa(field));
            }
        }
    }
    Ok(())
}
