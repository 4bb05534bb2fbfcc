//! A second opinion: the `spiffe` crate, which shares no code with ours beyond the name of an ID, reads every kind of SVID
//! and every entry of the bundle that we make.

#![allow(clippy::expect_used, reason = "helpers of tests may")]

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mintmark_issuer::{
    Authority, DocumentInput, Documents, IssuerUrl, JwtRequest, LoadOptions, ObjectRef, SigningSecret, SpiffeId,
    SystemRandom, TrustDomain,
};
use rstest::rstest;
use secrecy::ExposeSecret;
use spiffe::{JwtSvid, X509Bundle, X509Svid};

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("testdata")
            .join(name),
    )
    .expect(name)
}

#[rstest]
#[case("ec-p256.sec1.key", "two-ou.crt")]
#[case("ec-p384.sec1.key", "domain-components.crt")]
#[case("rsa-2048.pkcs1.key", "multi-valued-rdn.crt")]
#[case("ed25519.pkcs8.key", "ed25519.crt")]
#[case("ec-p256.pkcs8.key", "constrained.crt")]
fn the_spiffe_crate_reads_what_we_make(#[case] key: &str, #[case] certificate: &str) {
    let now: Timestamp = "2027-01-01T00:00:00Z".parse().expect("a time");
    let domain = TrustDomain::parse("example.org").expect("domain");
    let issuer = IssuerUrl::parse("https://issuer.example", false).expect("issuer");
    let subject = SpiffeId::for_object(&domain, "ocirepositories", "tenant-a", "app").expect("id");
    let (key, certificate) = (fixture(key), fixture(certificate));
    let secret = SigningSecret::from_data([("tls.key", key.as_slice()), ("tls.crt", certificate.as_slice())]);
    let authority = Authority::load(
        &secret,
        &LoadOptions {
            trust_domain: &domain,
            cluster_cas: &[],
        },
        now,
    );
    let authority = authority.expect("authority");
    let random = SystemRandom::new();

    let x509 = authority.x509().expect("x509");
    let svid = x509
        .mint(&subject, SignedDuration::from_hours(1), now, &random)
        .expect("certificate");
    let chain: Vec<u8> = svid.chain.iter().flat_map(|der| der.to_vec()).collect();
    let theirs = X509Svid::parse_from_der(&chain, &svid.key).expect("an X.509-SVID");
    assert_eq!(theirs.spiffe_id().to_string(), subject.as_str());

    let mut keys = Vec::new();
    if let Ok(jwt) = authority.jwt() {
        let object = ObjectRef {
            kind: "OCIRepository",
            namespace: "tenant-a",
            name: "app",
            uid: "1",
        };
        let ttl = SignedDuration::from_mins(5);
        let request = JwtRequest {
            subject: &subject,
            audiences: &["a", "b"],
            issuer: &issuer,
            object,
            ttl,
        };
        let token = jwt.mint(&request, now, &random).expect("token");
        let theirs = JwtSvid::parse_insecure(token.token.expose_secret()).expect("a JWT-SVID");
        assert_eq!(theirs.spiffe_id().to_string(), subject.as_str());
        assert_eq!(
            (theirs.key_id(), theirs.audience()),
            (jwt.kid(), &["a".to_owned(), "b".to_owned()][..])
        );
        keys.push(jwt.public_key().jwk().clone());
    }

    let input = DocumentInput {
        issuer: Some(&issuer),
        jwt_keys: &keys,
        x509_anchors: std::slice::from_ref(x509.certificate()),
        sequence: 1,
        overlap: Duration::from_mins(5),
    };
    let documents = Documents::render(&input).expect("documents");
    let bundle: serde_json::Value = serde_json::from_slice(&documents.bundle_json().body).expect("json");
    for entry in bundle["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .filter(|entry| entry["use"] == "jwt-svid")
    {
        let theirs = spiffe::bundle::jwt::JwtAuthority::from_jwk_json(entry.to_string().as_bytes()).expect("a JWK");
        assert_eq!(theirs.key_id(), authority.jwt().expect("jwt").kid());
    }
    let theirs = spiffe::TrustDomain::new(domain.as_str()).expect("domain");
    let anchors = X509Bundle::parse_from_der(theirs, x509.certificate()).expect("trust anchors");
    assert_eq!(anchors.authorities().len(), 1);
}
