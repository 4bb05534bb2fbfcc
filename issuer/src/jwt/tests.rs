//! Every rule of the token's form, by reading tokens back as a stranger would.

use ::ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::keys::{KeyAlgorithm, PrivateKey};
use crate::test_support::{FixedRandom, at, fixture, issuer, now, subject};

const OBJECT: ObjectRef<'_> = ObjectRef {
    kind: "OCIRepository",
    namespace: "tenant-a",
    name: "app",
    uid: "0-1",
};

fn authority(file: &str, not_after: Option<Timestamp>) -> JwtAuthority {
    let signer = PrivateKey::from_pem(&fixture(file))
        .expect("key")
        .signer()
        .expect("signer");
    JwtAuthority::new(Arc::new(signer), not_after).expect("authority")
}

fn mint(authority: &JwtAuthority, audiences: &[&str], ttl: i64, now: Timestamp) -> Result<JwtSvid, JwtMintError> {
    let (subject, issuer) = (subject(), issuer());
    let ttl = SignedDuration::from_secs(ttl);
    let request = JwtRequest {
        subject: &subject,
        audiences,
        issuer: &issuer,
        object: OBJECT,
        ttl,
    };
    authority.mint(&request, now, &FixedRandom(0xab))
}

/// Header and claims.
fn parts(svid: &JwtSvid) -> (Value, Value) {
    let mut parts = svid
        .token
        .expose_secret()
        .split('.')
        .map(|part| URL_SAFE_NO_PAD.decode(part).expect("base64url"));
    let mut next = || serde_json::from_slice(&parts.next().expect("a part")).expect("json");
    (next(), next())
}

#[test]
fn says_exactly_what_a_jwt_svid_says() {
    let authority = authority("ec-p256.sec1.key", None);
    let svid = mint(&authority, &["registry.example"], 300, now()).expect("token");
    let (header, claims) = parts(&svid);
    assert_eq!(header, json!({"alg": "ES256", "kid": authority.kid(), "typ": "JWT"}));
    let iat = now().as_second() - 5;
    assert_eq!(
        claims,
        json!({
            "iss": "https://issuer.example/mint/",
            "sub": "spiffe://example.org/ocirepositories/tenant-a/app",
            "aud": "registry.example",
            "iat": iat, "nbf": iat, "exp": now().as_second() + 300,
            "jti": "ab".repeat(16),
            "mintmark.dev/object": {"kind": "OCIRepository", "namespace": "tenant-a", "name": "app", "uid": "0-1"},
        })
    );
    assert_eq!(
        (svid.issued_at.as_second(), svid.expires_at.as_second()),
        (iat, now().as_second() + 300)
    );
}

#[test]
fn several_audiences_are_an_array() {
    let svid = mint(&authority("ec-p256.sec1.key", None), &["a", "b"], 300, now()).expect("token");
    assert_eq!(parts(&svid).1["aud"], json!(["a", "b"]));
}

#[rstest]
#[case("ec-p256.sec1.key", "ES256")]
#[case("ec-p384.sec1.key", "ES384")]
#[case("rsa-2048.pkcs1.key", "RS256")]
fn the_algorithm_follows_the_key(#[case] file: &str, #[case] algorithm: &str) {
    let svid = mint(&authority(file, None), &["a"], 300, now()).expect("token");
    assert_eq!(parts(&svid).0["alg"], algorithm);
}

#[test]
fn the_signature_covers_header_and_claims() {
    let authority = authority("ec-p256.sec1.key", None);
    let svid = mint(&authority, &["a"], 300, now()).expect("token");
    let (message, signature) = svid.token.expose_secret().rsplit_once('.').expect("three parts");
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, authority.public_key().raw());
    key.verify(
        message.as_bytes(),
        &URL_SAFE_NO_PAD.decode(signature).expect("base64url"),
    )
    .expect("verifies");
}

#[test]
fn times_are_whole_seconds() {
    let svid = mint(
        &authority("ec-p256.sec1.key", None),
        &["a"],
        300,
        now() + SignedDuration::from_millis(999),
    );
    assert_eq!(svid.expect("token").expires_at, at(300));
}

#[test]
fn no_token_outlives_the_certificate() {
    let authority = authority("ec-p256.sec1.key", Some(at(100)));
    assert_eq!(mint(&authority, &["a"], 300, now()).expect("token").expires_at, at(100));
    assert_eq!(
        mint(&authority, &["a"], 300, at(100)).err(),
        Some(JwtMintError::Expired(at(100)))
    );
    assert_eq!(authority.check_time(at(99)), Ok(()));
    assert_eq!(authority.check_time(at(100)), Err(JwtMintError::Expired(at(100))));
}

#[rstest]
#[case::no_audience(&[], 300, JwtMintError::Audience)]
#[case::empty_audience(&["a", ""], 300, JwtMintError::Audience)]
#[case::no_life(&["a"], 0, JwtMintError::Life)]
#[case::negative_life(&["a"], -1, JwtMintError::Life)]
fn refuses(#[case] audiences: &[&str], #[case] ttl: i64, #[case] expected: JwtMintError) {
    assert_eq!(
        mint(&authority("ec-p256.sec1.key", None), audiences, ttl, now()).err(),
        Some(expected)
    );
}

#[test]
fn ed25519_signs_no_tokens() {
    let signer = PrivateKey::from_pem(&fixture("ed25519.pkcs8.key"))
        .expect("key")
        .signer()
        .expect("signer");
    let refused = JwtAuthority::new(Arc::new(signer), None).err();
    assert_eq!(refused, Some(JwtUnavailable::KeyKind(KeyAlgorithm::Ed25519)));
}

#[test]
fn debug_shows_no_token() {
    let svid = mint(&authority("ec-p256.sec1.key", None), &["a"], 300, now()).expect("token");
    assert!(!format!("{svid:?}").contains(svid.token.expose_secret()));
}
