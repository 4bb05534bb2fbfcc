//! What signing Secrets do to a ring: a bad one changes nothing, one that serves a single use changes that use, and more
//! of them than a ring holds wait.

use rcgen::IsCa;

use super::*;
use crate::test_support::{fixture_secret, load};

#[test]
fn a_bad_secret_keeps_the_last_good_one() {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, both(0));
    let before = world.sequence();
    for error in [AuthorityError::Mismatch, AuthorityError::Absent] {
        world.bad_secret(error.clone(), both(60));
        assert_eq!(world.notices.last(), Some(&Notice::NotUsable(error)));
        assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    }
    assert_eq!((world.writes, world.sequence()), (1, before));
}

#[test]
fn a_bad_first_secret_says_why_nothing_signs() {
    let mut world = World::new();
    world.bad_secret(AuthorityError::Absent, both(0));
    assert_eq!(world.kid(), Err(NoSigner::Secret(AuthorityError::Absent)));
    assert!(!world.kid().expect_err("nothing signs").is_permanent());
    let one = ca();
    world.secret(&one, both(1));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)), "healed");
}

#[test]
fn a_secret_that_goes_bad_does_not_stop_the_pending_key() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    world.secret(&other, both(10));
    world.bad_secret(AuthorityError::Absent, both(20));
    world.tick(both(10 + JWT_OVERLAP));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)));
}

#[test]
fn a_key_that_signs_no_tokens_still_signs_certificates() {
    let mut world = World::new();
    let ed25519 = load(&fixture_secret("ed25519.pkcs8.key", "ed25519.crt")).expect("authority");
    world.secret(&ed25519, both(0));
    assert!(world.kid().is_err_and(|reason| reason.is_permanent()));
    assert!(world.authority_id().is_ok());
}

#[test]
fn without_an_issuer_nobody_is_told_about_tokens() {
    let ed25519 = load(&fixture_secret("ed25519.pkcs8.key", "ed25519.crt")).expect("authority");
    for (issuer, told) in [(policy().issuer, 1), (None, 0)] {
        let mut world = World::with(RingPolicy { issuer, ..policy() });
        world.secret(&ed25519, both(0));
        assert_eq!(world.told("SigningSecretInvalid"), told);
    }
}

#[test]
fn a_certificate_that_is_no_ca_keeps_the_last_ca() {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, both(0));
    let plain = TestCa::root(|params| params.is_ca = IsCa::ExplicitNoCa).load();
    world.secret(&plain, both(60));
    world.tick(both(60 + JWT_OVERLAP));
    assert_eq!(world.kid().as_deref(), Ok(kid(&plain)));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&one)));
    assert!(world.notices.iter().any(|notice| matches!(notice, Notice::NoX509(_))));
}

#[test]
fn each_use_can_have_its_own_secret() {
    let (mut world, tokens, certificates) = (World::new(), ca(), ca());
    let event = |uses, authority: &Authority| Event::Secret {
        uses,
        outcome: Ok(Arc::new(authority.clone())),
    };
    world.handle(event(KeyUses::X509, &certificates), both(0));
    assert_eq!(world.kid(), Err(NoSigner::NotRead));
    world.handle(event(KeyUses::Jwt, &tokens), both(1));
    assert_eq!(world.kid().as_deref(), Ok(kid(&tokens)));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&certificates)));
}

#[test]
fn new_dates_of_the_same_ca_replace_the_old_ones_at_once() {
    let ca = TestCa::root(|params| valid(params, -DAY, DAY));
    let mut world = World::new();
    world.secret(&ca.load(), both(0));
    let renewed = ca.renewed(|params| valid(params, -DAY, 20 * DAY));
    world.secret(&renewed.load(), both(60));
    assert_eq!(world.ring.state().x509.len(), 1);
    assert_eq!(world.ring.state().x509[0].material.certificate, renewed.der);
    let set = world.signing.as_ref().expect("signing");
    assert_eq!(set.x509.as_ref().map(|x509| x509.not_after()), Ok(at(20 * DAY)));
    assert_eq!(set.jwt.as_ref().map(|jwt| jwt.not_after()), Ok(Some(at(20 * DAY))));
}

#[test]
fn more_keys_than_a_ring_holds_wait_for_room() {
    let mut world = World::new();
    let all: Vec<_> = (0..=MAX_KEYS_PER_USE).map(|_| ca()).collect();
    for authority in &all {
        world.secret(authority, both(0));
    }
    let last = kid(&all[MAX_KEYS_PER_USE]);
    assert_eq!(world.states().len(), MAX_KEYS_PER_USE);
    world.tick(both(1));
    assert_eq!(world.told("KeyRingFull"), 2, "once per use");
    assert!(!world.publishes(last));
    world.tick(both(JWT_OVERLAP));
    assert!(world.publishes(last), "superseded ones are gone: room");
    world.tick(both(2 * JWT_OVERLAP));
    assert_eq!(world.kid().as_deref(), Ok(last));
}
