//! What the unit tests share: the fixtures made by the openssl command line, CAs made on the spot with `rcgen`, and a
//! moment at which both are valid.

use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;
use x509_parser::time::ASN1Time;

use crate::authority::{Authority, AuthorityError, LoadOptions, SigningSecret};
use crate::{IssuerUrl, Random, RandomError, SpiffeId, TrustDomain, pem};

/// 2027-01-01T00:00:00Z.
pub(crate) const NOW: i64 = 1_798_761_600;
pub(crate) const DAY: i64 = 86_400;

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(NOW + seconds).expect("timestamp")
}

pub(crate) fn now() -> Timestamp {
    at(0)
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("example.org").expect("trust domain")
}

pub(crate) fn issuer() -> IssuerUrl {
    IssuerUrl::parse("https://issuer.example/mint/", false).expect("issuer")
}

pub(crate) fn subject() -> SpiffeId {
    SpiffeId::for_object(&domain(), "ocirepositories", "tenant-a", "app").expect("id")
}

/// The same byte for ever.
pub(crate) struct FixedRandom(pub(crate) u8);

impl Random for FixedRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        buffer.fill(self.0);
        Ok(())
    }
}

/// A file of `testdata/`.
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The signing Secret of two files of `testdata/`.
pub(crate) fn fixture_secret(key: &str, certificate: &str) -> SigningSecret {
    secret(&fixture(key), &fixture(certificate))
}

pub(crate) fn secret(key: &[u8], certificate: &[u8]) -> SigningSecret {
    SigningSecret::from_data([("tls.key", key), ("tls.crt", certificate)])
}

pub(crate) fn load(secret: &SigningSecret) -> Result<Authority, AuthorityError> {
    Authority::load(
        secret,
        &LoadOptions {
            trust_domain: &domain(),
            cluster_cas: &[],
        },
        now(),
    )
}

/// Sets the validity, in seconds from [`NOW`].
pub(crate) fn valid(params: &mut CertificateParams, from: i64, until: i64) {
    params.not_before = ASN1Time::from_timestamp(NOW + from).expect("date").to_datetime();
    params.not_after = ASN1Time::from_timestamp(NOW + until).expect("date").to_datetime();
}

/// A certificate with its key.
pub(crate) struct TestCa {
    params: CertificateParams,
    key: KeyPair,
    pub(crate) der: CertificateDer<'static>,
}

impl TestCa {
    /// A self-signed CA as it should be, changed by `adjust`: P-256, path length 0, valid for a day around now.
    pub(crate) fn root(adjust: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().expect("key");
        let params = ca_params("Test root", adjust);
        let der = params.self_signed(&key).expect("certificate").der().clone();
        Self { params, key, der }
    }

    /// A certificate under this one, a CA unless `adjust` says otherwise.
    pub(crate) fn issue(&self, adjust: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().expect("key");
        let params = ca_params("Test CA", |params| {
            params.use_authority_key_identifier_extension = true;
            adjust(params);
        });
        let issuer = Issuer::from_params(&self.params, &self.key);
        let der = params.signed_by(&key, &issuer).expect("certificate").der().clone();
        Self { params, key, der }
    }

    /// The same key and subject with another certificate.
    pub(crate) fn renewed(&self, adjust: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = self.params.clone();
        adjust(&mut params);
        let key =
            KeyPair::from_pkcs8_der_and_sign_algo(&self.key.serialized_der().into(), &rcgen::PKCS_ECDSA_P256_SHA256)
                .expect("key");
        let der = params.self_signed(&key).expect("certificate").der().clone();
        Self { params, key, der }
    }

    pub(crate) fn key_pem(&self) -> Vec<u8> {
        pem::write("PRIVATE KEY", self.key.serialized_der()).as_bytes().to_vec()
    }

    pub(crate) fn pem(&self) -> Vec<u8> {
        pem::write("CERTIFICATE", &self.der).as_bytes().to_vec()
    }

    pub(crate) fn secret(&self) -> SigningSecret {
        secret(&self.key_pem(), &self.pem())
    }

    /// The Secret of this CA with the certificates above it.
    pub(crate) fn secret_under(&self, above: &[&TestCa]) -> SigningSecret {
        let chain: Vec<u8> = std::iter::once(self)
            .chain(above.iter().copied())
            .flat_map(TestCa::pem)
            .collect();
        secret(&self.key_pem(), &chain)
    }

    pub(crate) fn load(&self) -> Authority {
        load(&self.secret()).expect("authority")
    }
}

fn ca_params(name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    valid(&mut params, -DAY, DAY);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    adjust(&mut params);
    params
}
