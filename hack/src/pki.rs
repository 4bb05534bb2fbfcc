//! Certificate authorities and certificates for the servers of the harness, made with rcgen.
//!
//! Keys are EC P-256; certificates are valid from an hour ago for a day unless said otherwise. Nothing here is the product's: the issuer's
//! own CAs are made by the issuer's tests.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};

/// Makes ring the TLS provider of this process, if none is chosen yet: reqwest and rustls ask for one.
pub fn install_provider() {
    // An error means that a provider is installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
}

/// A private key with its certificate, both PEM.
#[derive(Clone)]
pub struct KeyAndCertificate {
    /// PKCS#8.
    pub key_pem: String,
    /// The certificate alone, without its CA.
    pub certificate_pem: String,
}

/// A CA, self-signed unless it is an intermediate one.
pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    own: KeyAndCertificate,
}

impl TestCa {
    /// Makes a CA with this common name.
    pub fn new(common_name: &str) -> Result<Self> {
        Self::make(ca_params(common_name)?, None)
    }

    /// Makes a CA that ends at this time, which may be over.
    pub fn until(common_name: &str, not_after: SystemTime) -> Result<Self> {
        let mut params = ca_params(common_name)?;
        params.not_after = not_after.into();
        Self::make(params, None)
    }

    /// Makes a CA under this one.
    pub fn intermediate(&self, common_name: &str) -> Result<Self> {
        Self::make(ca_params(common_name)?, Some(self))
    }

    /// A CA certificate under this one, PEM, for a key that exists already (PKCS#8, PEM; EC or RSA).
    pub fn certify(&self, common_name: &str, key_pem: &str) -> Result<String> {
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes())?)?;
        let certificate = ca_params(common_name)?.signed_by(&key, &self.issuer)?;
        Ok(pem("CERTIFICATE", certificate.der()))
    }

    fn make(params: CertificateParams, parent: Option<&Self>) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = match parent {
            Some(parent) => params.signed_by(&key, &parent.issuer)?,
            None => params.self_signed(&key)?,
        };
        let own = KeyAndCertificate {
            key_pem: key_pem(&key),
            certificate_pem: pem("CERTIFICATE", certificate.der()),
        };
        Ok(Self {
            issuer: Issuer::new(params, key),
            own,
        })
    }

    /// The CA's certificate.
    pub fn pem(&self) -> &str {
        &self.own.certificate_pem
    }

    /// The CA's own key and certificate, as a signing Secret holds them.
    pub fn key_and_certificate(&self) -> &KeyAndCertificate {
        &self.own
    }

    /// Makes a server certificate for `127.0.0.1`, `::1`, `localhost` and more DNS names.
    pub fn server(&self, names: &[&str]) -> Result<KeyAndCertificate> {
        let mut params = params("server")?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = ["127.0.0.1", "::1"]
            .iter()
            .map(|ip| Ok(SanType::IpAddress(ip.parse::<IpAddr>()?)))
            .collect::<Result<_>>()?;
        for name in ["localhost"].iter().chain(names) {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        self.sign(&params)
    }

    /// Makes a client certificate with this subject, as Kubernetes reads it: CN is the user, O the group.
    pub fn user(&self, user: &str, group: &str) -> Result<KeyAndCertificate> {
        let mut params = params(user)?;
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    /// Makes a client certificate with one URI SAN, as the registry reads it.
    pub fn uri_client(&self, uri: &str) -> Result<KeyAndCertificate> {
        let mut params = params("client")?;
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Result<KeyAndCertificate> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(KeyAndCertificate {
            key_pem: key_pem(&key),
            certificate_pem: pem("CERTIFICATE", certificate.der()),
        })
    }
}

/// A new EC P-256 key pair: the private key (PKCS#8) and the public key (`SubjectPublicKeyInfo`), both PEM.
pub fn ec_key_pair() -> Result<(String, String)> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    Ok((key_pem(&key), pem("PUBLIC KEY", &key.subject_public_key_info())))
}

/// Wraps DER as PEM (RFC 7468): base64 in lines of 64 characters.
pub fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----");
    for (position, character) in BASE64.encode(der).char_indices() {
        if position % 64 == 0 {
            text.push('\n');
        }
        text.push(character);
    }
    text + &format!("\n-----END {label}-----\n")
}

fn key_pem(key: &KeyPair) -> String {
    pem("PRIVATE KEY", key.serialized_der())
}

fn params(common_name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    let now = SystemTime::now();
    params.not_before = now.checked_sub(Duration::from_hours(1)).context("clock")?.into();
    params.not_after = now.checked_add(Duration::from_hours(24)).context("clock")?.into();
    Ok(params)
}

fn ca_params(common_name: &str) -> Result<CertificateParams> {
    let mut params = params(common_name)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// 32 hexadecimal digits of the system's randomness.
pub fn random_hex() -> String {
    format!("{:032x}", rand::random::<u128>())
}
