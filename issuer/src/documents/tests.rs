//! The documents member by member, as the verifiers named in their rules read them.

use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::keys::{PrivateKey, Signer};
use crate::test_support::{TestCa, fixture, issuer};

fn jwk(file: &str) -> Jwk {
    let signer = PrivateKey::from_pem(&fixture(file))
        .expect("key")
        .signer()
        .expect("signer");
    signer.public_key().jwk().clone()
}

fn render(issuer: Option<&IssuerUrl>, keys: &[Jwk], anchors: &[CertificateDer<'_>], overlap: u64) -> Documents {
    let input = DocumentInput {
        issuer,
        jwt_keys: keys,
        x509_anchors: anchors,
        sequence: 42,
        overlap: Duration::from_secs(overlap),
    };
    Documents::render(&input).expect("documents")
}

fn value(document: &Document) -> Value {
    serde_json::from_slice(&document.body).expect("json")
}

#[test]
fn discovery_is_what_go_oidc_and_kubernetes_read() {
    let documents = render(Some(&issuer()), &[], &[], 300);
    assert_eq!(
        value(documents.get("/mint/.well-known/openid-configuration").expect("served")),
        json!({
            "issuer": "https://issuer.example/mint/",
            "jwks_uri": "https://issuer.example/mint/keys",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256", "ES384", "RS256"],
        })
    );
}

#[test]
fn the_jwks_has_use_alg_and_kid_and_nothing_else() {
    let keys = [
        jwk("ec-p256.sec1.key"),
        jwk("ec-p384.sec1.key"),
        jwk("rsa-2048.pkcs1.key"),
    ];
    let documents = render(Some(&issuer()), &keys, &[], 300);
    let set = value(documents.get("/mint/keys").expect("served"));
    let expected: Vec<Value> = keys
        .iter()
        .zip(["ES256", "ES384", "RS256"])
        .map(|(key, alg)| {
            let mut expected = serde_json::to_value(key).expect("json");
            expected["use"] = json!("sig");
            expected["alg"] = json!(alg);
            expected["kid"] = json!(key.thumbprint());
            expected
        })
        .collect();
    assert_eq!(set, json!({ "keys": expected }));
}

#[test]
fn the_jwks_never_has_a_key_that_signs_no_tokens() {
    let key = jwk("ed25519.pkcs8.key");
    let input = DocumentInput {
        issuer: Some(&issuer()),
        jwt_keys: std::slice::from_ref(&key),
        x509_anchors: &[],
        sequence: 1,
        overlap: Duration::from_mins(5),
    };
    let expected = DocumentsError::Key {
        kid: key.thumbprint(),
        error: JwkError::NotAccepted,
    };
    assert_eq!(Documents::render(&input), Err(expected));
}

#[test]
fn the_bundle_has_both_uses() {
    let ca = TestCa::root(|_| {});
    let key = jwk("ec-p256.sec1.key");
    let documents = render(
        Some(&issuer()),
        std::slice::from_ref(&key),
        std::slice::from_ref(&ca.der),
        300,
    );
    let bundle = value(documents.get("/mint/spiffe/bundle.json").expect("served"));
    let (x509, jwt) = (&bundle["keys"][0], &bundle["keys"][1]);
    assert_eq!((&x509["use"], &jwt["use"]), (&json!("x509-svid"), &json!("jwt-svid")));
    assert_eq!(x509["x5c"], json!([STANDARD.encode(&ca.der)]));
    assert_eq!(jwt["kid"], json!(key.thumbprint()));
    assert!(x509.get("kid").is_none() && jwt.get("alg").is_none() && x509.get("alg").is_none());
    assert!(
        x509.get("x").is_some() && x509["kty"] == "EC",
        "the CA's key parameters"
    );
    assert_eq!(
        (&bundle["spiffe_sequence"], &bundle["spiffe_refresh_hint"]),
        (&json!(42), &json!(60))
    );
}

#[test]
fn the_pem_has_every_anchor() {
    let (one, other) = (TestCa::root(|_| {}), TestCa::root(|_| {}));
    let documents = render(None, &[], &[one.der.clone(), other.der.clone()], 300);
    assert_eq!(documents.bundle_pem().body, [one.pem(), other.pem()].concat());
    assert_eq!(documents.bundle_pem().media_type, "application/pem-certificate-chain");
}

#[rstest]
#[case("/mint/.well-known/openid-configuration", Some(Documents::DISCOVERY))]
#[case("/.well-known/oauth-authorization-server/mint", Some(Documents::DISCOVERY))]
#[case("/mint/keys", Some(Documents::KEYS))]
#[case("/mint/spiffe/bundle.json", Some(Documents::BUNDLE_JSON))]
#[case("/mint/spiffe/bundle.pem", Some(Documents::BUNDLE_PEM))]
#[case::without_p("/keys", None)]
#[case::oauth_below_p("/mint/.well-known/oauth-authorization-server", None)]
#[case::trailing_slash("/mint/keys/", None)]
#[case::query_is_not_a_path("/mint/keys?x", None)]
#[case::p_alone("/mint", None)]
#[case::longer_p("/mint2/keys", None)]
#[case::empty("", None)]
fn paths_with_a_prefix(#[case] path: &str, #[case] name: Option<&str>) {
    let documents = render(Some(&issuer()), &[], &[], 300);
    let expected = name
        .and_then(|name| documents.named().find(|(found, _)| *found == name))
        .map(|(_, found)| found);
    assert_eq!(documents.get(path), expected);
}

#[test]
fn paths_of_an_issuer_at_the_root() {
    let issuer = IssuerUrl::parse("https://issuer.example", false).expect("issuer");
    let documents = render(Some(&issuer), &[], &[], 300);
    for path in [
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/keys",
    ] {
        assert!(documents.get(path).is_some(), "{path}");
    }
    assert_eq!(
        value(documents.get("/.well-known/openid-configuration").expect("served"))["issuer"],
        "https://issuer.example"
    );
}

#[test]
fn without_an_issuer_there_is_only_the_bundle() {
    let documents = render(None, &[], &[], 300);
    assert!(documents.get("/.well-known/openid-configuration").is_none() && documents.get("/keys").is_none());
    assert!(documents.get("/.well-known/oauth-authorization-server").is_none());
    assert!(documents.get("/spiffe/bundle.json").is_some() && documents.get("/spiffe/bundle.pem").is_some());
    assert_eq!(documents.files().count(), 2);
}

#[rstest]
#[case::default(300, 60, 50)]
#[case::long(86_400, 60, 60)]
#[case::short(30, 6, 5)]
#[case::none(0, 1, 0)]
fn refresh_follows_the_overlap(#[case] overlap: u64, #[case] hint: u64, #[case] max_age: u64) {
    let documents = render(None, &[], &[], overlap);
    assert_eq!(value(documents.bundle_json())["spiffe_refresh_hint"], json!(hint));
    assert_eq!(documents.max_age(), Duration::from_secs(max_age));
}

#[test]
fn the_etag_is_strong_and_follows_the_body() {
    let keys = [jwk("ec-p256.sec1.key")];
    let (one, same, other) = (
        render(Some(&issuer()), &keys, &[], 300),
        render(Some(&issuer()), &keys, &[], 300),
        render(Some(&issuer()), &[], &[], 300),
    );
    let etag = |documents: &Documents| documents.get("/mint/keys").expect("served").etag.clone();
    assert_eq!(etag(&one), etag(&same));
    assert_ne!(etag(&one), etag(&other));
    assert!(etag(&one).starts_with('"') && etag(&one).len() == 66);
}

#[test]
fn files_stand_at_their_served_paths() {
    let documents = render(Some(&issuer()), &[], &[], 300);
    let files: Vec<_> = documents.files().map(|(path, _)| path).collect();
    let expected = [
        ".well-known/openid-configuration",
        ".well-known/oauth-authorization-server",
        "keys",
        "spiffe/bundle.json",
        "spiffe/bundle.pem",
    ];
    assert_eq!(files, expected);
}
