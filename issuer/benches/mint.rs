//! Mint rates on one core: `cargo bench -p mintmark-issuer`. Prints, per kind of key, tokens and certificates per CPU second,
//! the certificates with their fresh P-256 key and their self-check. Numbers are compared, not asserted.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints, and ends when something is wrong"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use ::ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use jiff::{SignedDuration, Timestamp};
use mintmark_issuer::{
    Authority, IssuerUrl, JwtRequest, LoadOptions, ObjectRef, SigningSecret, SpiffeId, SystemRandom, TrustDomain,
};

/// Each rate is the best of this many rounds: the machine has other work.
const ROUNDS: u32 = 5;
const ROUND: Duration = Duration::from_millis(500);

fn main() {
    let domain = TrustDomain::parse("example.org").unwrap();
    let issuer = IssuerUrl::parse("https://issuer.example", false).unwrap();
    let subject = SpiffeId::for_object(&domain, "ocirepositories", "tenant-a", "app").unwrap();
    let object = ObjectRef {
        kind: "OCIRepository",
        namespace: "tenant-a",
        name: "app",
        uid: "9d7c2a4e-5b1f-4c7e-8f57-0d6c6f2b9a10",
    };
    let now: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
    let random = SystemRandom::new();
    floor(&random);
    for (key, certificate) in [
        ("ec-p256.sec1.key", "two-ou.crt"),
        ("ec-p384.sec1.key", "domain-components.crt"),
        ("rsa-2048.pkcs1.key", "multi-valued-rdn.crt"),
        ("ed25519.pkcs8.key", "ed25519.crt"),
    ] {
        let secret = SigningSecret::from_data([
            ("tls.key", fixture(key).as_slice()),
            ("tls.crt", fixture(certificate).as_slice()),
        ]);
        let options = LoadOptions {
            trust_domain: &domain,
            cluster_cas: &[],
        };
        let authority = Authority::load(&secret, &options, now).unwrap();
        if let Ok(jwt) = authority.jwt() {
            let ttl = SignedDuration::from_mins(5);
            let request = JwtRequest {
                subject: &subject,
                audiences: &["registry.example"],
                issuer: &issuer,
                object,
                ttl,
            };
            report(key, "JWT-SVID", || jwt.mint(&request, now, &random).unwrap());
        }
        let x509 = authority.x509().unwrap();
        let ttl = SignedDuration::from_hours(1);
        report(key, "X.509-SVID", || x509.mint(&subject, ttl, now, &random).unwrap());
    }
}

/// What `ring` alone takes on this machine: the signature of a token; fresh key, signature and verification of a
/// certificate. The message has the length of a token or certificate.
fn floor(random: &SystemRandom) {
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), random).unwrap();
    let message = [7; 500];
    report("ring alone", "ES256", || pair.sign(random, &message).unwrap());
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref());
    report("ring alone", "key+sign+verify", || {
        black_box(EcdsaKeyPair::generate_pkcs8(algorithm, random).unwrap());
        public
            .verify(&message, pair.sign(random, &message).unwrap().as_ref())
            .unwrap();
    });
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("testdata")
            .join(name),
    )
    .unwrap()
}

fn report<T>(key: &str, what: &str, mint: impl Fn() -> T) {
    let rate = (0..ROUNDS).map(|_| round(&mint)).fold(0.0, f64::max);
    println!("{key:<20} {what:<15} {rate:>8.0}/s");
}

fn round<T>(mint: impl Fn() -> T) -> f64 {
    let (start, start_of_work) = (Instant::now(), on_cpu());
    let mut minted = 0u32;
    while start.elapsed() < ROUND {
        black_box(mint());
        minted += 1;
    }
    let spent = match (start_of_work, on_cpu()) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => start.elapsed(),
    };
    f64::from(minted) / spent.as_secs_f64()
}

/// The time this thread has spent on a core, where the system tells it (Linux): other work does not count.
fn on_cpu() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}
