//! Minted SVIDs are accepted, everything else is refused for its own reason.

use std::sync::Arc;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, IsCa};
use rstest::rstest;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::keys::{PrivateKey, Signer};
use crate::test_support::{TestCa, at, domain, fixture, fixture_secret, issuer, load, now, subject};
use crate::{
    Authority, DocumentInput, Documents, JwtAuthority, JwtRequest, ObjectRef, SystemRandom, TrustDomain, X509Svid,
};

fn bundle(authority: &Authority) -> TrustBundle {
    let keys: Vec<_> = authority
        .jwt()
        .iter()
        .map(|jwt| jwt.public_key().jwk().clone())
        .collect();
    let anchors: Vec<_> = authority.x509().iter().map(|x509| x509.certificate().clone()).collect();
    let issuer = issuer();
    let documents = Documents::render(&DocumentInput {
        issuer: Some(&issuer),
        jwt_keys: &keys,
        x509_anchors: &anchors,
        sequence: 1,
        overlap: std::time::Duration::from_mins(5),
    });
    TrustBundle::parse(&documents.expect("documents").bundle_json().body).expect("bundle")
}

fn token(authority: &JwtAuthority, audiences: &[&str]) -> String {
    let (subject, issuer) = (subject(), issuer());
    let object = ObjectRef {
        kind: "OCIRepository",
        namespace: "tenant-a",
        name: "app",
        uid: "1",
    };
    let request = JwtRequest {
        subject: &subject,
        audiences,
        issuer: &issuer,
        object,
        ttl: SignedDuration::from_mins(5),
    };
    let svid = authority.mint(&request, now(), &SystemRandom::new()).expect("token");
    svid.token.expose_secret().to_owned()
}

fn certificate(authority: &Authority) -> X509Svid {
    let x509 = authority.x509().expect("x509");
    x509.mint(&subject(), SignedDuration::from_hours(1), now(), &SystemRandom::new())
        .expect("certificate")
}

#[rstest]
#[case("ec-p256.sec1.key", "two-ou.crt")]
#[case("ec-p384.sec1.key", "domain-components.crt")]
#[case("rsa-2048.pkcs1.key", "multi-valued-rdn.crt")]
#[case::name_constraints("ec-p256.sec1.key", "constrained.crt")]
#[case::certificates_only("ed25519.pkcs8.key", "ed25519.crt")]
fn what_is_minted_is_accepted(#[case] key: &str, #[case] crt: &str) {
    let authority = load(&fixture_secret(key, crt)).expect("authority");
    let bundle = bundle(&authority);
    let svid = certificate(&authority);
    let verified = bundle.verify_x509(&svid.chain, &domain(), now()).expect("accepted");
    assert_eq!(
        (verified.subject, verified.serial, verified.not_after),
        (subject(), svid.serial, svid.not_after)
    );
    if let Ok(jwt) = authority.jwt() {
        let verified = bundle
            .verify_jwt(&token(jwt, &["a", "b"]), &domain(), Some("b"), now())
            .expect("accepted");
        assert_eq!((verified.subject, verified.kid.as_str()), (subject(), jwt.kid()));
        assert_eq!(verified.issuer.as_deref(), Some(issuer().as_str()));
        assert_eq!(verified.claims["mintmark.dev/object"]["namespace"], "tenant-a");
    }
}

#[test]
fn a_chain_over_intermediates_is_accepted_by_the_root() {
    let root = TestCa::root(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let middle = root.issue(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)));
    let authority = load(&middle.issue(|_| {}).secret_under(&[&middle])).expect("authority");
    let svid = certificate(&authority);
    let by_root = TrustBundle::parse(&root.pem()).expect("bundle");
    assert!(by_root.verify_x509(&svid.chain, &domain(), now()).is_ok());
    assert!(matches!(
        by_root.verify_x509(&svid.chain[..1], &domain(), now()),
        Err(X509VerifyError::Path(_))
    ));
    assert!(
        bundle(&authority)
            .verify_x509(&svid.chain[..1], &domain(), now())
            .is_ok(),
        "by the signing CA alone"
    );
}

#[test]
fn tokens_are_refused_for_their_own_reason() {
    let (one, other) = (TestCa::root(|_| {}).load(), TestCa::root(|_| {}).load());
    let (jwt, trusted) = (one.jwt().expect("jwt"), bundle(&one));
    let good = token(jwt, &["a"]);
    let verify = |token: &str, domain: &TrustDomain, audience, now: Timestamp| {
        trusted.verify_jwt(token, domain, audience, now).expect_err("refused")
    };
    let elsewhere = TrustDomain::parse("other.org").expect("domain");
    let found = vec!["a".to_owned()];
    assert_eq!(
        verify(&good, &domain(), Some("b"), now()),
        JwtVerifyError::Audience {
            found,
            wanted: "b".into()
        }
    );
    assert_eq!(
        verify(&good, &domain(), None, at(300)),
        JwtVerifyError::Expired(at(300))
    );
    assert_eq!(
        verify(&good, &domain(), None, at(-6)),
        JwtVerifyError::NotYetValid(at(-5))
    );
    assert_eq!(
        verify(&good, &elsewhere, None, now()),
        JwtVerifyError::TrustDomain("example.org".into())
    );
    let foreign = other.jwt().expect("jwt");
    assert_eq!(
        verify(&token(foreign, &["a"]), &domain(), None, now()),
        JwtVerifyError::UnknownKey(foreign.kid().into())
    );
    assert!(matches!(
        verify("a.b.c", &domain(), None, now()),
        JwtVerifyError::Malformed(_)
    ));
    let (message, signature) = good.rsplit_once('.').expect("three parts");
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    let swapped = format!("{message}.{first}{}", &signature[1..]);
    assert_eq!(verify(&swapped, &domain(), None, now()), JwtVerifyError::Signature);
}

/// A token with any header and claims, signed by a key of the bundle.
fn signed(signer: &dyn Signer, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = signer.sign(message.as_bytes()).expect("signature");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn headers_and_claims_that_are_none_of_a_jwt_svid_are_refused() {
    let signer = PrivateKey::from_pem(&fixture("ec-p256.sec1.key"))
        .expect("key")
        .signer()
        .expect("signer");
    let kid = signer.public_key().thumbprint();
    let trusted = bundle(&load(&fixture_secret("ec-p256.sec1.key", "two-ou.crt")).expect("authority"));
    let claims = json!({"sub": subject().as_str(), "aud": "a", "exp": at(60).as_second()});
    let header = |alg: &str, typ: &str| json!({"alg": alg, "kid": kid, "typ": typ});
    let verify = |header: &Value, claims: &Value| {
        trusted
            .verify_jwt(&signed(&signer, header, claims), &domain(), Some("a"), now())
            .map(|_| ())
    };
    assert_eq!(verify(&header("ES256", "JOSE"), &claims), Ok(()));
    assert_eq!(
        verify(&json!({"alg": "ES256"}), &claims),
        Err(JwtVerifyError::Header("no kid"))
    );
    assert_eq!(
        verify(&header("ES256", "at+jwt"), &claims),
        Err(JwtVerifyError::Header("typ is neither JWT nor JOSE"))
    );
    for other in ["ES384", "RS256", "HS256", "EdDSA"] {
        assert_eq!(
            verify(&header(other, "JWT"), &claims),
            Err(JwtVerifyError::Header("alg does not fit the key"))
        );
    }
    assert!(matches!(
        verify(&header("none", "JWT"), &claims),
        Err(JwtVerifyError::Malformed(_))
    ));
    for missing in ["sub", "aud", "exp"] {
        let mut claims = claims.clone();
        claims.as_object_mut().expect("an object").remove(missing);
        assert!(
            matches!(
                verify(&header("ES256", "JWT"), &claims),
                Err(JwtVerifyError::Malformed(_))
            ),
            "{missing}"
        );
    }
    let mut named = claims.clone();
    named["sub"] = json!("alice");
    assert!(matches!(
        verify(&header("ES256", "JWT"), &named),
        Err(JwtVerifyError::Subject(_))
    ));
}

#[test]
fn certificates_are_refused_for_their_own_reason() {
    let ca = TestCa::root(|_| {});
    let (one, other) = (ca.load(), TestCa::root(|_| {}).load());
    let (svid, trusted) = (certificate(&one), bundle(&one));
    let elsewhere = TrustDomain::parse("other.org").expect("domain");
    let refused = trusted.verify_x509(&svid.chain, &elsewhere, now());
    assert_eq!(refused, Err(X509VerifyError::TrustDomain("example.org".into())));
    for (name, refused) in [
        ("another CA", bundle(&other).verify_x509(&svid.chain, &domain(), now())),
        (
            "no CA",
            TrustBundle::default().verify_x509(&svid.chain, &domain(), now()),
        ),
        ("expired", trusted.verify_x509(&svid.chain, &domain(), at(3601))),
        ("not yet valid", trusted.verify_x509(&svid.chain, &domain(), at(-31))),
    ] {
        assert!(matches!(refused, Err(X509VerifyError::Path(_))), "{name}: {refused:?}");
    }
    assert_eq!(trusted.verify_x509(&[], &domain(), now()), Err(X509VerifyError::Empty));
    let plain = ca.issue(|params| params.is_ca = IsCa::ExplicitNoCa);
    // It may sign certificates by its key usage, though it is no CA.
    assert_eq!(
        trusted.verify_x509(&[plain.der], &domain(), now()),
        Err(X509VerifyError::Ca)
    );
    let nameless = ca.issue(|params| {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages.clear();
    });
    assert_eq!(
        trusted.verify_x509(&[nameless.der], &domain(), now()),
        Err(X509VerifyError::UriSans(0))
    );
}

#[test]
fn a_bundle_that_is_none_is_refused() {
    assert!(matches!(TrustBundle::parse(b"garbage"), Err(BundleError::Format(_))));
    assert!(matches!(TrustBundle::parse(b"{}"), Err(BundleError::Format(_))));
    let key = br#"{"keys":[{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA","kid":"x"}]}"#;
    assert_eq!(TrustBundle::parse(key), Err(BundleError::Key(0)));
}

#[test]
fn ed25519_in_a_bundle_signs_no_tokens() {
    let signer: Arc<dyn Signer> = Arc::new(
        PrivateKey::from_pem(&fixture("ed25519.pkcs8.key"))
            .expect("key")
            .signer()
            .expect("signer"),
    );
    let mut trusted = TrustBundle::default();
    trusted.jwt.insert("x".into(), signer.public_key().clone());
    let claims = json!({"sub": subject().as_str(), "aud": "a", "exp": at(60).as_second()});
    let token = signed(&*signer, &json!({"alg": "EdDSA", "kid": "x"}), &claims);
    let refused = trusted.verify_jwt(&token, &domain(), None, now());
    assert_eq!(refused, Err(JwtVerifyError::Header("the key signs no JWT-SVIDs")));
}
