//! One vector per rule of the signing Secret, each named after the rule it breaks.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};
use rstest::rstest;

use super::*;
use crate::der;
use crate::pem::PemError;
use crate::test_support::{DAY, TestCa, at, domain, fixture, fixture_secret, load, now, secret, valid};

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ascii"))
}

/// Critical name constraints (RFC 5280 §4.2.1.10) that permit the URIs of one host; `rcgen` knows no such subtree.
fn permits(params: &mut CertificateParams, host: &str) {
    let base = der::element(0x86, &[host.as_bytes()]);
    let permitted = der::element(der::CONTEXT_0, &[&der::element(der::SEQUENCE, &[&base])]);
    let content = der::element(der::SEQUENCE, &[&permitted]).to_vec();
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], content);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
}

fn middle(root: &TestCa, path_length: u8) -> TestCa {
    root.issue(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length)))
}

fn unconstrained(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

#[rstest]
#[case::two_units("ec-p256.sec1.key", "two-ou.crt", true)]
#[case::domain_components("ec-p384.sec1.key", "domain-components.crt", true)]
#[case::pkcs1_and_multi_valued_rdn("rsa-2048.pkcs1.key", "multi-valued-rdn.crt", true)]
#[case::constrained("ec-p256.pkcs8.key", "constrained.crt", true)]
#[case::ed25519_signs_no_tokens("ed25519.pkcs8.key", "ed25519.crt", false)]
fn accepts_what_openssl_made(#[case] key: &str, #[case] certificate: &str, #[case] jwt: bool) {
    let authority = load(&fixture_secret(key, certificate)).expect("authority");
    assert_eq!(authority.jwt().is_ok(), jwt);
    assert!(authority.x509().is_ok());
}

#[rstest]
#[case::no_key(secret(b"", &fixture("two-ou.crt")), "tls.key is missing or empty in the signing Secret")]
#[case::no_certificate(
    secret(&fixture("ec-p256.sec1.key"), b" \n"),
    "tls.crt is missing or empty in the signing Secret"
)]
#[case::garbage_key(secret(b"garbage", &fixture("two-ou.crt")), "tls.key: no PEM section found")]
#[case::garbage_certificate(secret(&fixture("ec-p256.sec1.key"), b"garbage"), "tls.crt: no PEM section found")]
#[case::key_in_tls_crt(
    secret(&fixture("ec-p256.sec1.key"), &fixture("ec-p256.pkcs8.key")),
    "tls.crt: contains \"PRIVATE KEY\"; only certificates belong here"
)]
#[case::certificate_of_another_key(
    fixture_secret("ec-p384.sec1.key", "two-ou.crt"),
    "tls.key does not belong to the first certificate of tls.crt"
)]
#[case::certificate_of_another_kind(
    fixture_secret("rsa-2048.pkcs1.key", "two-ou.crt"),
    "tls.key does not belong to the first certificate of tls.crt"
)]
#[case::p521(
    fixture_secret("ec-p521.sec1.key", "two-ou.crt"),
    "tls.key: EC P-521 is not accepted; use EC P-256, EC P-384, RSA 2048–4096 or Ed25519"
)]
fn refuses_and_names_the_field(#[case] secret: SigningSecret, #[case] expected: &str) {
    assert_eq!(load(&secret).expect_err("refused").to_string(), expected);
}

#[test]
fn an_error_of_pem_is_typed() {
    let error = load(&secret(b"garbage", &fixture("two-ou.crt"))).expect_err("refused");
    assert_eq!(error, AuthorityError::Key(KeyError::Pem(PemError::NoSection)));
}

#[rstest]
#[case::just_over(-DAY, 0, false)]
#[case::last_second(-DAY, 1, true)]
#[case::five_minutes_ahead(300, DAY, true)]
#[case::more_than_five_minutes_ahead(301, DAY, false)]
fn dates(#[case] from: i64, #[case] until: i64, #[case] accepted: bool) {
    let ca = TestCa::root(|params| valid(params, from, until));
    match load(&ca.secret()) {
        Ok(_) => assert!(accepted),
        Err(AuthorityError::Expired {
            field: Field::TlsCrt,
            at: end,
            ..
        }) => assert!(!accepted && end == at(until)),
        Err(AuthorityError::NotYetValid { at: start, .. }) => assert!(!accepted && start == at(from)),
        Err(other) => panic!("{other}"),
    }
}

#[rstest]
#[case::not_a_ca(|params: &mut CertificateParams| params.is_ca = IsCa::ExplicitNoCa, X509Unavailable::NotCa)]
#[case::no_basic_constraints(|params: &mut CertificateParams| params.is_ca = IsCa::NoCa, X509Unavailable::NotCa)]
#[case::no_key_cert_sign(
    |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::DigitalSignature],
    X509Unavailable::NoKeyCertSign
)]
#[case::no_key_usage(|params: &mut CertificateParams| params.key_usages.clear(), X509Unavailable::NoKeyCertSign)]
#[case::empty_subject(
    |params: &mut CertificateParams| params.distinguished_name = DistinguishedName::new(),
    X509Unavailable::EmptySubject
)]
#[case::extended_key_usage(
    |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth],
    X509Unavailable::ExtendedKeyUsage
)]
#[case::name_constraints(
    |params: &mut CertificateParams| permits(params, "other.org"),
    X509Unavailable::NameConstraints("example.org".into())
)]
#[case::name_constraints_of_subdomains_only(
    |params: &mut CertificateParams| permits(params, ".example.org"),
    X509Unavailable::NameConstraints("example.org".into())
)]
fn signs_tokens_but_no_certificates(#[case] adjust: fn(&mut CertificateParams), #[case] reason: X509Unavailable) {
    let authority = TestCa::root(adjust).load();
    assert!(authority.jwt().is_ok());
    assert_eq!(authority.x509().err(), Some(&reason));
}

#[test]
fn uri_sans_are_exactly_the_trust_domain() {
    let named = |sans: Vec<SanType>| load(&TestCa::root(|params| params.subject_alt_names = sans).secret());
    assert!(named(vec![uri("spiffe://example.org")]).is_ok());
    for wrong in [
        "spiffe://other.org",
        "spiffe://example.org/ca",
        "spiffe://EXAMPLE.org",
        "https://example.org",
    ] {
        let error = named(vec![uri("spiffe://example.org"), uri(wrong)]).expect_err("refused");
        assert_eq!(
            error,
            AuthorityError::TrustDomain {
                found: wrong.into(),
                expected: "spiffe://example.org".into()
            }
        );
    }
}

#[test]
fn advises_narrow_cas() {
    let advisories = |ca: TestCa| ca.load().advisories().to_vec();
    let narrow = |params: &mut CertificateParams| permits(params, "example.org");
    assert_eq!(advisories(TestCa::root(narrow)), []);
    assert_eq!(advisories(TestCa::root(|_| {})), [Advisory::NameConstraints]);
    assert_eq!(
        advisories(TestCa::root(unconstrained)),
        [Advisory::PathLength, Advisory::NameConstraints]
    );
}

#[test]
fn tokens_end_with_the_certificate() {
    let authority = TestCa::root(|params| valid(params, -DAY, 600)).load();
    assert_eq!(authority.jwt().expect("jwt").not_after(), Some(at(600)));
}

#[test]
fn a_chain_is_accepted_up_to_its_root() {
    let root = TestCa::root(unconstrained);
    let middle = middle(&root, 1);
    let signing = middle.issue(|_| {});
    for above in [&[][..], &[&middle], &[&middle, &root]] {
        assert!(load(&signing.secret_under(above)).is_ok());
    }
    let mut with_root = signing.secret_under(&[&middle]);
    with_root.ca_crt = Some(root.pem());
    let authority = load(&with_root).expect("authority");
    assert_eq!(authority.x509().expect("x509").root(), Some(&root.der));
    with_root.ca_crt = Some(b" \n".to_vec());
    assert!(load(&with_root).is_ok(), "an empty ca.crt is none");
}

#[test]
fn the_chain_ends_with_its_first_end() {
    let root = TestCa::root(unconstrained);
    let middle = root.issue(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        valid(params, -DAY, 600);
    });
    let signing = middle.issue(|_| {});
    let authority = load(&signing.secret_under(&[&middle])).expect("authority");
    assert_eq!(authority.x509().expect("x509").not_after(), at(600));
    let over = root.issue(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        valid(params, -DAY, -1);
    });
    let error = load(&over.issue(|_| {}).secret_under(&[&over])).expect_err("refused");
    assert!(
        matches!(
            error,
            AuthorityError::Expired {
                field: Field::TlsCrt,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_chain_out_of_order_is_refused() {
    let root = TestCa::root(unconstrained);
    let middle = middle(&root, 1);
    let signing = middle.issue(|_| {});
    let error = load(&signing.secret_under(&[&root, &middle])).expect_err("refused");
    assert_eq!(
        error,
        AuthorityError::Chain {
            position: 1,
            reason: "is not signed by the next one"
        }
    );
}

#[test]
fn a_chain_through_no_ca_is_refused() {
    let root = TestCa::root(unconstrained);
    let leaf = root.issue(|params| params.is_ca = IsCa::ExplicitNoCa);
    let error = load(&leaf.issue(|_| {}).secret_under(&[&leaf])).expect_err("refused");
    assert_eq!(
        error,
        AuthorityError::Chain {
            position: 2,
            reason: "is not a CA"
        }
    );
}

#[test]
fn a_chain_longer_than_its_path_length_is_refused() {
    let root = TestCa::root(unconstrained);
    let middle = middle(&root, 0);
    let error = load(&middle.issue(|_| {}).secret_under(&[&middle])).expect_err("refused");
    assert!(matches!(error, AuthorityError::Chain { position: 2, .. }), "{error}");
}

#[test]
fn a_root_that_is_not_above_the_chain_is_refused() {
    let (one, other) = (TestCa::root(unconstrained), TestCa::root(unconstrained));
    let mut signing = one.issue(|_| {}).secret();
    signing.ca_crt = Some(other.pem());
    assert_eq!(load(&signing).err(), Some(AuthorityError::Root));
    signing.ca_crt = Some(b"garbage".to_vec());
    assert!(load(&signing).expect_err("refused").to_string().starts_with("ca.crt: "));
    signing.ca_crt = Some([other.pem(), one.pem()].concat());
    assert_eq!(
        load(&signing).expect("authority").x509().expect("x509").root(),
        Some(&one.der)
    );
}

#[test]
fn a_self_signed_ca_is_no_root_of_its_own() {
    let ca = TestCa::root(|_| {});
    let mut signing = ca.secret();
    signing.ca_crt = Some(ca.pem());
    assert_eq!(load(&signing).expect("authority").x509().expect("x509").root(), None);
}

#[test]
fn the_clusters_own_ca_is_refused() {
    let cluster = TestCa::root(unconstrained);
    let clusters = [cluster.der.clone()];
    let given = |secret: &SigningSecret| {
        Authority::load(
            secret,
            &LoadOptions {
                trust_domain: &domain(),
                cluster_cas: &clusters,
            },
            now(),
        )
        .err()
    };
    assert_eq!(given(&cluster.secret()), Some(AuthorityError::ClusterCa(Field::TlsCrt)));
    let renamed = cluster.renewed(|params| params.serial_number = Some(vec![7].into()));
    assert_eq!(
        given(&renamed.secret()),
        Some(AuthorityError::ClusterCa(Field::TlsCrt)),
        "the same key"
    );
    let below = cluster.issue(|_| {});
    assert_eq!(
        given(&below.secret()),
        Some(AuthorityError::ClusterCa(Field::TlsCrt)),
        "issued by it"
    );
    let not_a_ca = cluster.issue(|params| params.is_ca = IsCa::ExplicitNoCa);
    assert_eq!(
        given(&not_a_ca.secret()),
        Some(AuthorityError::ClusterCa(Field::TlsCrt)),
        "a cluster certificate"
    );
    assert_eq!(given(&TestCa::root(|_| {}).secret()), None);
}

#[test]
fn an_authority_is_its_key_and_subject() {
    let ca = TestCa::root(|_| {});
    let id = |ca: &TestCa| ca.load().x509().expect("x509").id().to_owned();
    assert_eq!(id(&ca).len(), 64);
    assert_eq!(
        id(&ca),
        id(&ca.renewed(|params| valid(params, -DAY, 7 * DAY))),
        "new dates"
    );
    let renamed = ca.renewed(|params| params.distinguished_name.push(rcgen::DnType::OrganizationName, "New"));
    assert_ne!(id(&ca), id(&renamed), "a new subject");
    assert_ne!(id(&ca), id(&TestCa::root(|_| {})), "a new key");
}

#[test]
fn debug_shows_no_key() {
    let secret = fixture_secret("ec-p256.sec1.key", "two-ou.crt");
    let shown = format!("{secret:?} {:?}", load(&secret).expect("authority"));
    assert!(!shown.contains("PRIVATE") && shown.contains("LocalSigner"), "{shown}");
}
