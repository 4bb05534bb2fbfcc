//! Making one leaf certificate: `rcgen` writes the to-be-signed part, our own key type takes it, the CA's subject is put in
//! byte for byte, and the result is signed. The detour is needed because `rcgen` re-encodes CA subjects with repeated
//! attributes (two OU, DC=…,DC=…) or multi-valued RDNs wrongly and offers no raw hook.

use std::cell::RefCell;

use ::ring::rand::SystemRandom;
use ::ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber, SignatureAlgorithm,
};
use rustls_pki_types::CertificateDer;
use x509_parser::time::ASN1Time;
use zeroize::Zeroizing;

use super::X509Authority;
use super::check::{self, SelfCheckError};
use crate::der::{self, Reader};
use crate::keys::{KeyAlgorithm, SignError, Signer, ecdsa_to_der};
use crate::{Random, RandomError, SpiffeId};

/// `notBefore` lies this far in the past, for verifiers whose clock is behind.
const BACKDATE: SignedDuration = SignedDuration::from_secs(30);
/// No certificate is minted for less than this.
const SHORTEST_LIFE: SignedDuration = SignedDuration::from_secs(60);
/// Bytes of a serial number.
const SERIAL_BYTES: usize = 16;

/// A minted certificate with its chain and its private key.
#[derive(Clone)]
pub struct X509Svid {
    /// Leaf first, then the intermediates; no self-signed root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's private key, EC P-256, PKCS#8 DER. Never logged.
    pub key: Zeroizing<Vec<u8>>,
    /// The serial number: 32 hexadecimal digits.
    pub serial: String,
    /// The id of the CA that signed.
    pub authority_id: String,
    /// `notBefore`.
    pub not_before: Timestamp,
    /// `notAfter`.
    pub not_after: Timestamp,
}

/// Why no certificate was minted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum X509MintError {
    /// A life of less than 60 s was asked for.
    #[error("the life of an X.509-SVID must be at least 60 s")]
    Life,
    /// The CA is not valid yet.
    #[error("the signing CA (tls.crt) is valid only from {0}")]
    NotYetValid(Timestamp),
    /// The CA ends too soon.
    #[error("the signing CA (tls.crt) ends at {0}, which leaves less than 60 s; renew it")]
    Expiring(Timestamp),
    /// The system's random source failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The certificate could not be written.
    #[error("the certificate could not be encoded: {0}")]
    Encode(String),
    /// The CA's key could not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The minted certificate is not what it should be; it was thrown away.
    #[error("the minted certificate failed its check: {0}")]
    Check(#[from] SelfCheckError),
}

/// What the leaf is made of; the check compares the result with it.
pub(super) struct Leaf<'a> {
    pub(super) subject: &'a SpiffeId,
    pub(super) public_key: &'a [u8],
    pub(super) serial: [u8; SERIAL_BYTES],
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl X509Authority {
    /// Mints a certificate for a fresh P-256 key: `notBefore` = `now` − 30 s, `notAfter` = `now` + ttl but not after any
    /// certificate of the chain, and never under 60 s from now.
    pub fn mint(
        &self,
        subject: &SpiffeId,
        ttl: SignedDuration,
        now: Timestamp,
        random: &dyn Random,
    ) -> Result<X509Svid, X509MintError> {
        let (not_before, not_after) = self.validity(ttl, now)?;
        let system = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &system).map_err(|_| RandomError)?;
        let key = Zeroizing::new(document.as_ref().to_vec());
        let public_key =
            public_half(&key).ok_or_else(|| X509MintError::Encode("unexpected shape of the key".into()))?;
        let mut serial = [0; SERIAL_BYTES];
        random.fill(&mut serial)?;
        // A zero in front would shorten the number; the top bit stays free so that it is positive in 16 bytes.
        if let Some(first) = serial.first_mut() {
            *first = (*first & 0x7f) | 0x40;
        }
        let leaf = Leaf {
            subject,
            public_key,
            serial,
            not_before,
            not_after,
        };
        let certificate = CertificateDer::from(self.sign_leaf(&leaf)?);
        check::check(self, &leaf, &certificate)?;
        let mut chain = Vec::with_capacity(1 + self.intermediates.len());
        chain.push(certificate);
        chain.extend(self.intermediates.iter().cloned());
        let serial = crate::hex(&serial);
        Ok(X509Svid {
            chain,
            key,
            serial,
            authority_id: self.id.clone(),
            not_before,
            not_after,
        })
    }

    /// Whether a certificate minted at this time would be valid for 60 s at least.
    pub fn check_time(&self, now: Timestamp) -> Result<(), X509MintError> {
        self.validity(SHORTEST_LIFE, now).map(drop)
    }

    fn validity(&self, ttl: SignedDuration, now: Timestamp) -> Result<(Timestamp, Timestamp), X509MintError> {
        if ttl < SHORTEST_LIFE {
            return Err(X509MintError::Life);
        }
        if now < self.not_before {
            return Err(X509MintError::NotYetValid(self.not_before));
        }
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let wanted = now
            .saturating_add(SignedDuration::from_secs(ttl.as_secs()))
            .unwrap_or(Timestamp::MAX);
        let not_after = wanted.min(self.not_after);
        if not_after.duration_since(now) < SHORTEST_LIFE {
            return Err(X509MintError::Expiring(self.not_after));
        }
        Ok((now.saturating_sub(BACKDATE).unwrap_or(Timestamp::MIN), not_after))
    }

    fn sign_leaf(&self, leaf: &Leaf<'_>) -> Result<Vec<u8>, X509MintError> {
        let encode = |error: rcgen::Error| X509MintError::Encode(error.to_string());
        let key = CaKey {
            signer: &*self.signer,
            tbs: RefCell::default(),
        };
        let mut issuer = CertificateParams::default();
        // Exchanged below for the CA's own bytes.
        issuer.distinguished_name = DistinguishedName::new();
        issuer.key_identifier_method = KeyIdMethod::PreSpecified(self.key_identifier.clone());
        profile(leaf)?
            .signed_by(&LeafKey(leaf.public_key), &Issuer::new(issuer, &key))
            .map_err(encode)?;
        let damaged = || X509MintError::Encode("unexpected shape of the certificate".to_owned());
        let written = key.tbs.into_inner();
        let (tbs, algorithm) = with_issuer(&written, &self.subject_der).ok_or_else(damaged)?;
        let signature = self.signer.sign(&tbs)?;
        let signature = match self.signer.public_key().algorithm() {
            KeyAlgorithm::EcP256 | KeyAlgorithm::EcP384 => ecdsa_to_der(&signature),
            KeyAlgorithm::Rsa | KeyAlgorithm::Ed25519 => signature,
        };
        let signature = der::element(der::BIT_STRING, &[&[0], &signature]);
        Ok(der::element(der::SEQUENCE, &[&tbs, algorithm, &signature]).to_vec())
    }
}

impl std::fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("X509Svid")
            .field("serial", &self.serial)
            .field("authority_id", &self.authority_id)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// The profile of X509-SVID §2–4 for a leaf.
fn profile(leaf: &Leaf<'_>) -> Result<CertificateParams, X509MintError> {
    let encode = |error: rcgen::Error| X509MintError::Encode(error.to_string());
    let time = |at: Timestamp| ASN1Time::from_timestamp(at.as_second()).map(|time| time.to_datetime());
    let wrong = |_| X509MintError::Encode("a date cannot be written".to_owned());
    let mut params = CertificateParams::default();
    params.not_before = time(leaf.not_before).map_err(wrong)?;
    params.not_after = time(leaf.not_after).map_err(wrong)?;
    params.serial_number = Some(SerialNumber::from_slice(&leaf.serial));
    params.subject_alt_names = vec![SanType::URI(leaf.subject.as_str().try_into().map_err(encode)?)];
    // An empty subject also makes the SAN critical (RFC 5280 §4.1.2.6).
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// The public point inside a PKCS#8 EC key (RFC 5915 §3). `ring` has just computed it; having the key parsed would compute
/// it once more, which costs as much as signing.
fn public_half(pkcs8: &[u8]) -> Option<&[u8]> {
    let mut info = Reader::new(der::single(pkcs8, der::SEQUENCE)?);
    info.expect(der::INTEGER)?;
    info.expect(der::SEQUENCE)?;
    let mut key = Reader::new(der::single(info.expect(der::OCTET_STRING)?, der::SEQUENCE)?);
    key.expect(der::INTEGER)?;
    key.expect(der::OCTET_STRING)?;
    match der::single(key.expect(der::CONTEXT_1)?, der::BIT_STRING)? {
        [0, point @ ..] => Some(point),
        _ => None,
    }
}

/// Exchanges the issuer in a `TBSCertificate` (RFC 5280 §4.1); also returns its signature algorithm. The issuer is the
/// fourth field, after version, serial number and algorithm.
fn with_issuer<'a>(tbs: &'a [u8], issuer: &[u8]) -> Option<(Zeroizing<Vec<u8>>, &'a [u8])> {
    let mut fields = Reader::new(der::single(tbs, der::SEQUENCE)?);
    let version = fields.next()?;
    let serial = fields.next()?;
    let algorithm = fields.next()?;
    let replaced = fields.next()?;
    let shape = (version.tag, serial.tag, algorithm.tag, replaced.tag);
    if shape != (der::CONTEXT_0, der::INTEGER, der::SEQUENCE, der::SEQUENCE) {
        return None;
    }
    let parts = [version.raw, serial.raw, algorithm.raw, issuer, fields.rest()];
    Some((der::element(der::SEQUENCE, &parts), algorithm.raw))
}

/// The CA's key as `rcgen` sees it: it keeps what is to be signed and signs nothing.
struct CaKey<'a> {
    signer: &'a dyn Signer,
    tbs: RefCell<Vec<u8>>,
}

impl PublicKeyData for CaKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.signer.public_key().raw()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.signer.public_key().algorithm() {
            KeyAlgorithm::EcP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyAlgorithm::EcP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyAlgorithm::Rsa => &rcgen::PKCS_RSA_SHA256,
            KeyAlgorithm::Ed25519 => &rcgen::PKCS_ED25519,
        }
    }
}

impl rcgen::SigningKey for CaKey<'_> {
    fn sign(&self, tbs: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.tbs.replace(tbs.to_vec());
        Ok(Vec::new())
    }
}

struct LeafKey<'a>(&'a [u8]);

impl PublicKeyData for LeafKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}
