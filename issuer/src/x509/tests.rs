//! The profile of every minted certificate, for CAs of every kind and with subjects that are easily written wrongly, and
//! one vector per reason not to mint.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rstest::rstest;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::mint::Leaf;
use super::*;
use crate::SystemRandom;
use crate::keys::{KeyAlgorithm, PrivateKey, Signer};
use crate::test_support::{DAY, FixedRandom, TestCa, at, domain, fixture_secret, load, now, subject, valid};

fn x509(authority: &crate::Authority) -> &X509Authority {
    authority.x509().expect("an X.509 authority")
}

fn mint(authority: &X509Authority, ttl: i64, now: Timestamp) -> Result<X509Svid, X509MintError> {
    authority.mint(&subject(), SignedDuration::from_secs(ttl), now, &SystemRandom::new())
}

#[rstest]
#[case::two_units("ec-p256.sec1.key", "two-ou.crt", KeyAlgorithm::EcP256)]
#[case::domain_components("ec-p384.sec1.key", "domain-components.crt", KeyAlgorithm::EcP384)]
#[case::multi_valued_rdn("rsa-2048.pkcs1.key", "multi-valued-rdn.crt", KeyAlgorithm::Rsa)]
#[case::ed25519("ed25519.pkcs8.key", "ed25519.crt", KeyAlgorithm::Ed25519)]
#[case::constrained("ec-p256.pkcs8.key", "constrained.crt", KeyAlgorithm::EcP256)]
fn names_its_ca_byte_for_byte(#[case] key: &str, #[case] crt: &str, #[case] algorithm: KeyAlgorithm) {
    let authority = load(&fixture_secret(key, crt)).expect("authority");
    let authority = x509(&authority);
    assert_eq!(authority.signer.public_key().algorithm(), algorithm);
    let svid = mint(authority, 3600, now()).expect("certificate");
    let (_, leaf) = X509Certificate::from_der(&svid.chain[0]).expect("a certificate");
    let (_, ca) = X509Certificate::from_der(authority.certificate()).expect("a certificate");
    assert_eq!(leaf.issuer().as_raw(), ca.subject().as_raw());
    leaf.verify_signature(Some(ca.public_key())).expect("verifies");
}

#[test]
fn follows_the_profile_of_an_x509_svid() {
    let ca = TestCa::root(|_| {});
    let authority = ca.load();
    let svid = mint(x509(&authority), 3600, now()).expect("certificate");
    let (_, leaf) = X509Certificate::from_der(&svid.chain[0]).expect("a certificate");
    assert_eq!(leaf.subject().iter().count(), 0, "empty subject");
    let dates = (
        leaf.validity().not_before.timestamp(),
        leaf.validity().not_after.timestamp(),
    );
    assert_eq!(dates, (now().as_second() - 30, now().as_second() + 3600));
    assert_eq!((svid.not_before, svid.not_after), (at(-30), at(3600)));
    assert_eq!(leaf.raw_serial().len(), 16, "128 bits, positive");
    assert_eq!(svid.serial, crate::hex(leaf.raw_serial()));
    let san = leaf.subject_alternative_name().expect("one SAN").expect("a SAN");
    assert!(san.critical);
    assert_eq!(san.value.general_names, [GeneralName::URI(subject().as_str())]);
    let constraints = leaf.basic_constraints().expect("one").expect("present");
    assert!(constraints.critical && !constraints.value.ca);
    let usage = leaf.key_usage().expect("one").expect("present");
    assert!(usage.critical && usage.value.flags == 1, "digitalSignature alone");
    let extended = leaf.extended_key_usage().expect("one").expect("present");
    assert!(extended.value.client_auth && extended.value.server_auth && extended.value.other.is_empty());
    let identifiers = leaf.iter_extensions().filter(|extension| {
        matches!(
            extension.parsed_extension(),
            ParsedExtension::SubjectKeyIdentifier(_) | ParsedExtension::AuthorityKeyIdentifier(_)
        )
    });
    assert_eq!(identifiers.count(), 2);
    assert_eq!(leaf.extensions().len(), 6, "and nothing else");
    assert_eq!(svid.authority_id, x509(&authority).id());
}

#[test]
fn the_returned_key_is_that_of_the_certificate() {
    let svid = mint(x509(&TestCa::root(|_| {}).load()), 3600, now()).expect("certificate");
    let key = PrivateKey::from_pkcs8_der(&svid.key)
        .expect("key")
        .signer()
        .expect("signer");
    let (_, leaf) = X509Certificate::from_der(&svid.chain[0]).expect("a certificate");
    assert_eq!(leaf.public_key().raw, key.public_key().spki_der());
}

#[test]
fn every_certificate_has_its_own_key_and_serial() {
    let authority = TestCa::root(|_| {}).load();
    let one = mint(x509(&authority), 3600, now()).expect("certificate");
    let other = mint(x509(&authority), 3600, now()).expect("certificate");
    assert!(one.key != other.key && one.serial != other.serial);
}

#[test]
fn serial_numbers_stay_positive_and_long() {
    let authority = TestCa::root(|_| {}).load();
    for byte in [0x00, 0x80, 0xff] {
        let svid = x509(&authority)
            .mint(&subject(), SignedDuration::from_hours(1), now(), &FixedRandom(byte))
            .expect("certificate");
        let (_, leaf) = X509Certificate::from_der(&svid.chain[0]).expect("a certificate");
        assert!(
            leaf.raw_serial().len() == 16 && leaf.raw_serial()[0] & 0x80 == 0,
            "{}",
            svid.serial
        );
    }
}

#[test]
fn the_aki_is_the_key_identifier_of_the_authority() {
    let mut authority = X509Authority::clone(x509(&TestCa::root(|_| {}).load()));
    authority.key_identifier = vec![7; 20];
    let svid = mint(&authority, 3600, now()).expect("certificate");
    let (_, leaf) = X509Certificate::from_der(&svid.chain[0]).expect("a certificate");
    assert!(
        leaf.iter_extensions()
            .any(|extension| matches!(extension.parsed_extension(),
        ParsedExtension::AuthorityKeyIdentifier(aki) if aki.key_identifier.as_ref().is_some_and(|id| id.0 == [7; 20])))
    );
}

#[test]
fn no_certificate_outlives_its_ca() {
    let authority = TestCa::root(|params| valid(params, -DAY, 600)).load();
    assert_eq!(
        mint(x509(&authority), 3600, now()).expect("certificate").not_after,
        at(600)
    );
    assert_eq!(
        mint(x509(&authority), 3600, at(540)).expect("certificate").not_after,
        at(600)
    );
    assert_eq!(
        mint(x509(&authority), 3600, at(541)).err(),
        Some(X509MintError::Expiring(at(600)))
    );
    assert_eq!(x509(&authority).check_time(at(540)), Ok(()));
    assert_eq!(
        x509(&authority).check_time(at(541)),
        Err(X509MintError::Expiring(at(600)))
    );
}

#[test]
fn no_certificate_before_its_ca() {
    let authority = TestCa::root(|params| valid(params, 120, DAY)).load();
    assert_eq!(
        mint(x509(&authority), 3600, at(119)).err(),
        Some(X509MintError::NotYetValid(at(120)))
    );
    assert!(mint(x509(&authority), 3600, at(120)).is_ok());
}

#[test]
fn no_certificate_for_less_than_a_minute() {
    assert_eq!(
        mint(x509(&TestCa::root(|_| {}).load()), 59, now()).err(),
        Some(X509MintError::Life)
    );
}

#[test]
fn the_chain_has_the_intermediates_and_no_root() {
    use rcgen::{BasicConstraints, IsCa};
    let root = TestCa::root(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let middle = root.issue(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)));
    let signing = middle.issue(|_| {});
    let authority = load(&signing.secret_under(&[&middle, &root])).expect("authority");
    let svid = mint(x509(&authority), 3600, now()).expect("certificate");
    assert_eq!(svid.chain[1..], [signing.der.clone(), middle.der.clone()]);
    assert_eq!(x509(&authority).root(), Some(&root.der));
    let alone = TestCa::root(|_| {}).load();
    assert_eq!(mint(x509(&alone), 3600, now()).expect("certificate").chain.len(), 1);
}

#[test]
fn the_check_finds_a_ca_that_is_not_the_signer() {
    let (one, other) = (TestCa::root(|_| {}).load(), TestCa::root(|_| {}).load());
    let mut mixed = X509Authority::clone(x509(&one));
    mixed.signer = Arc::clone(&x509(&other).signer);
    assert_eq!(
        mint(&mixed, 3600, now()).err(),
        Some(X509MintError::Check(SelfCheckError::Signature))
    );
}

#[test]
fn the_check_finds_another_issuer_name() {
    let authority = TestCa::root(|_| {}).load();
    let mut renamed = X509Authority::clone(x509(&authority));
    renamed.subject_der = vec![0x30, 0];
    assert_eq!(
        mint(&renamed, 3600, now()).err(),
        Some(X509MintError::Check(SelfCheckError::Issuer))
    );
}

#[rstest]
#[case::subject(|leaf: &mut Leaf<'_>, other: &'static crate::SpiffeId| leaf.subject = other, SelfCheckError::UriSan)]
#[case::start(|leaf: &mut Leaf<'_>, _| leaf.not_before = at(0), SelfCheckError::Validity)]
#[case::end(|leaf: &mut Leaf<'_>, _| leaf.not_after = at(7200), SelfCheckError::Validity)]
#[case::serial(|leaf: &mut Leaf<'_>, _| leaf.serial[3] ^= 1, SelfCheckError::Serial)]
#[case::key(|leaf: &mut Leaf<'_>, _| leaf.public_key = &[4; 65], SelfCheckError::PublicKey)]
fn the_check_compares_with_the_request(
    #[case] bend: fn(&mut Leaf<'_>, &'static crate::SpiffeId),
    #[case] expected: SelfCheckError,
) {
    let authority = TestCa::root(|_| {}).load();
    let svid = mint(x509(&authority), 3600, now()).expect("certificate");
    let (_, certificate) = X509Certificate::from_der(&svid.chain[0]).expect("a certificate");
    let key = certificate.public_key().subject_public_key.data.to_vec();
    let subject = subject();
    let mut leaf = Leaf {
        subject: &subject,
        public_key: &key,
        serial: certificate.raw_serial().try_into().expect("16 bytes"),
        not_before: at(-30),
        not_after: at(3600),
    };
    check::check(x509(&authority), &leaf, &svid.chain[0]).expect("as requested");
    let other = crate::SpiffeId::for_object(&domain(), "ocirepositories", "tenant-b", "app").expect("id");
    bend(&mut leaf, Box::leak(Box::new(other)));
    assert_eq!(check::check(x509(&authority), &leaf, &svid.chain[0]), Err(expected));
}

#[test]
fn the_check_finds_every_flipped_bit() {
    let authority = TestCa::root(|_| {}).load();
    let svid = mint(x509(&authority), 3600, now()).expect("certificate");
    let (_, certificate) = X509Certificate::from_der(&svid.chain[0]).expect("a certificate");
    let key = certificate.public_key().subject_public_key.data.to_vec();
    let subject = subject();
    let serial = certificate.raw_serial().try_into().expect("16 bytes");
    let leaf = Leaf {
        subject: &subject,
        public_key: &key,
        serial,
        not_before: at(-30),
        not_after: at(3600),
    };
    let mut der = svid.chain[0].to_vec();
    for index in 0..der.len() {
        for bit in 0..8 {
            der[index] ^= 1 << bit;
            assert!(
                check::check(x509(&authority), &leaf, &der).is_err(),
                "byte {index}, bit {bit}"
            );
            der[index] ^= 1 << bit;
        }
    }
    check::check(x509(&authority), &leaf, &der).expect("unbent");
}
