//! One vector per accepted encoding and per rule broken; the files come from the openssl command line.

use ::ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use proptest::prelude::*;
use rstest::rstest;

use super::*;
use crate::test_support::fixture;

fn kid(file: &str) -> String {
    let key = PrivateKey::from_pem(&fixture(file)).expect(file);
    key.signer().expect(file).public_key().thumbprint()
}

#[rstest]
#[case::sec1_with_parameters_section("ec-p256.sec1.key", KeyAlgorithm::EcP256)]
#[case::ec_in_pkcs8("ec-p256.pkcs8.key", KeyAlgorithm::EcP256)]
#[case::sec1_p384("ec-p384.sec1.key", KeyAlgorithm::EcP384)]
#[case::ec_p384_in_pkcs8("ec-p384.pkcs8.key", KeyAlgorithm::EcP384)]
#[case::pkcs1("rsa-2048.pkcs1.key", KeyAlgorithm::Rsa)]
#[case::rsa_in_pkcs8("rsa-2048.pkcs8.key", KeyAlgorithm::Rsa)]
#[case::ed25519("ed25519.pkcs8.key", KeyAlgorithm::Ed25519)]
fn reads_and_signs(#[case] file: &str, #[case] algorithm: KeyAlgorithm) {
    let key = PrivateKey::from_pem(&fixture(file)).expect("a key");
    assert_eq!(key.algorithm(), algorithm);
    let signer = key.signer().expect("a signer");
    let signature = signer.sign(b"message").expect("a signature");
    let verifier: &dyn VerificationAlgorithm = match algorithm {
        KeyAlgorithm::EcP256 => &ECDSA_P256_SHA256_FIXED,
        KeyAlgorithm::EcP384 => &ECDSA_P384_SHA384_FIXED,
        KeyAlgorithm::Rsa => &RSA_PKCS1_2048_8192_SHA256,
        KeyAlgorithm::Ed25519 => &ED25519,
    };
    let public = UnparsedPublicKey::new(verifier, signer.public_key().raw());
    public.verify(b"message", &signature).expect("the signature verifies");
    public
        .verify(b"another", &signature)
        .expect_err("and only for its message");
}

#[test]
fn the_encoding_of_a_key_does_not_change_its_id() {
    assert_eq!(kid("ec-p256.sec1.key"), kid("ec-p256.pkcs8.key"));
    assert_eq!(kid("ec-p384.sec1.key"), kid("ec-p384.pkcs8.key"));
    assert_eq!(kid("rsa-2048.pkcs1.key"), kid("rsa-2048.pkcs8.key"));
}

#[rstest]
#[case::p521_sec1("ec-p521.sec1.key", "EC P-521")]
#[case::p521_pkcs8("ec-p521.pkcs8.key", "EC P-521")]
#[case::secp256k1("ec-secp256k1.sec1.key", "EC secp256k1")]
#[case::explicit_parameters("ec-explicit.sec1.key", "EC key with explicit parameters")]
#[case::rsa_1024("rsa-1024.pkcs1.key", "RSA 1024")]
#[case::ed448("ed448.pkcs8.key", "Ed448")]
fn refuses_by_name(#[case] file: &str, #[case] name: &str) {
    let error = PrivateKey::from_pem(&fixture(file)).expect_err("refused");
    assert_eq!(error, KeyError::NotAccepted(name.to_owned()));
    assert!(error.to_string().starts_with(name), "{error}");
}

#[rstest]
#[case::pkcs8("ec-p256.encrypted.key")]
#[case::legacy_headers("rsa-2048.encrypted.key")]
fn refuses_encrypted_keys(#[case] file: &str) {
    assert_eq!(
        PrivateKey::from_pem(&fixture(file)).expect_err("refused"),
        KeyError::Encrypted
    );
}

#[test]
fn refuses_what_is_no_single_private_key() {
    let certificate = fixture("two-ou.crt");
    let no_key = PrivateKey::from_pem(&certificate).expect_err("refused");
    assert_eq!(no_key, KeyError::NoPrivateKey("CERTIFICATE".into()));
    let two = [fixture("ec-p256.pkcs8.key"), fixture("ec-p384.pkcs8.key")].concat();
    assert_eq!(PrivateKey::from_pem(&two).expect_err("refused"), KeyError::Several);
    assert_eq!(
        PrivateKey::from_pem(b"garbage").expect_err("refused"),
        KeyError::Pem(PemError::NoSection)
    );
}

#[test]
fn refuses_a_key_whose_public_half_is_of_another() {
    let sections = crate::pem::sections(&fixture("ec-p256.pkcs8.key")).expect("sections");
    let mut der = sections.first().expect("one").der.to_vec();
    *der.last_mut().expect("a byte") ^= 1;
    assert!(matches!(
        PrivateKey::from_pkcs8_der(&der),
        Err(KeyError::Damaged("EC P-256", _))
    ));
}

#[test]
fn debug_shows_no_key() {
    let key = PrivateKey::from_pem(&fixture("ec-p256.pkcs8.key")).expect("a key");
    assert_eq!(format!("{key:?}"), "PrivateKey { algorithm: EcP256, .. }");
    let shown = format!("{:?}", key.signer().expect("a signer"));
    assert!(shown.starts_with("LocalSigner { algorithm: EcP256, kid: "), "{shown}");
}

#[test]
fn the_thumbprint_is_that_of_rfc_7638() {
    // RFC 7638 §3.1.
    let key = Jwk::Rsa {
        n: concat!(
            "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknj",
            "hMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQv",
            "RL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKn",
            "qDKgw"
        )
        .into(),
        e: "AQAB".into(),
    };
    assert_eq!(key.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    // RFC 8037 §A.3.
    let key = Jwk::Okp {
        crv: "Ed25519".into(),
        x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".into(),
    };
    assert_eq!(key.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
}

#[rstest]
#[case("ec-p256.sec1.key")]
#[case("ec-p384.sec1.key")]
#[case("rsa-2048.pkcs1.key")]
#[case("ed25519.pkcs8.key")]
fn public_keys_survive_both_forms(#[case] file: &str) {
    let key = PrivateKey::from_pem(&fixture(file))
        .expect("a key")
        .signer()
        .expect("a signer")
        .public_key()
        .clone();
    assert_eq!(PublicKey::from_spki_der(key.spki_der()), Ok(key.clone()));
    let text = serde_json::to_string(key.jwk()).expect("json");
    let read: Jwk = serde_json::from_str(&text).expect("a jwk");
    assert_eq!(PublicKey::from_jwk(&read), Ok(key));
}

#[rstest]
#[case::short_coordinate(r#"{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}"#, JwkError::Damaged("point"))]
#[case::unknown_curve(r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}"#, JwkError::NotAccepted)]
#[case::unknown_edwards_curve(r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#, JwkError::NotAccepted)]
#[case::not_base64(r#"{"kty":"RSA","n":"!","e":"AQAB"}"#, JwkError::Damaged("n"))]
#[case::small_modulus(r#"{"kty":"RSA","n":"_w","e":"AQAB"}"#, JwkError::NotAccepted)]
fn refuses_jwk(#[case] text: &str, #[case] expected: JwkError) {
    let jwk: Jwk = serde_json::from_str(text).expect("a jwk");
    assert_eq!(PublicKey::from_jwk(&jwk), Err(expected));
}

proptest! {
    #[test]
    fn bent_keys_never_panic(at in 0usize..140, bit in 0u8..8) {
        let sections = crate::pem::sections(&fixture("ec-p256.pkcs8.key")).expect("sections");
        let mut der = sections.first().expect("one").der.to_vec();
        if let Some(byte) = der.get_mut(at) {
            *byte ^= 1 << bit;
        }
        let _ = PrivateKey::from_pkcs8_der(&der);
    }
}
