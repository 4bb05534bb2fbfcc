//! A revoked key stops signing the moment it is known, leaves the documents with the next write, and never returns.

use std::collections::BTreeSet;

use super::*;
use KeyState::{Retired, Signing};

fn ids(authority: &Authority) -> BTreeSet<String> {
    [kid(authority).to_owned(), id(authority).to_owned()].into()
}

#[test]
fn a_revoked_key_is_gone_and_never_returns() {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, both(0));
    world.handle(Event::Revoked(ids(&one)), both(60));
    assert_eq!(world.kid(), Err(NoSigner::Revoked(kid(&one).to_owned())));
    assert_eq!(world.authority_id(), Err(NoSigner::Revoked(id(&one).to_owned())));
    assert!(!world.publishes(kid(&one)));
    assert!(world.keys.jwt.is_empty() && world.keys.x509.is_empty());
    assert_eq!(world.told("KeyRevoked"), 2, "once per use");
    world.secret(&one, both(120));
    let mut world = world.restarted(clocks(180, 0));
    world.secret(&one, clocks(180, 0));
    assert!(world.kid().is_err() && world.states().is_empty());
    assert_eq!(world.told("RevokedKeyInSecret"), 2);
}

#[test]
fn without_a_signer_the_next_key_signs_as_soon_as_it_is_stored() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    world.handle(Event::Revoked(ids(&one)), both(60));
    world.secret(&other, both(240));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)));
}

#[test]
fn it_stops_before_the_write_and_its_successor_signs_after() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    world.secret(&other, both(10));
    world.api_server = false;
    world.handle(Event::Revoked(ids(&one)), both(20));
    assert_eq!(world.kid(), Err(NoSigner::Revoked(kid(&one).to_owned())));
    assert!(world.publishes(kid(&one)), "only what is stored is published");
    world.api_server = true;
    world.tick(both(30));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)), "without its overlap");
    assert!(!world.publishes(kid(&one)));
}

#[test]
fn it_stops_while_a_write_is_under_way() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    let (uses, outcome) = (KeyUses::Both, Ok(Arc::new(other)));
    let actions = world.ring.handle(Event::Secret { uses, outcome }, both(10));
    assert!(matches!(actions.as_slice(), [Action::Store(_)]));
    let actions = world.ring.handle(Event::Revoked(ids(&one)), both(11));
    let [Action::Sign(set)] = actions.as_slice() else {
        panic!("it stops at once: {actions:?}");
    };
    assert!(set.jwt.is_err() && set.x509.is_err());
}

#[test]
fn with_a_wrong_clock_the_successor_signs_all_the_same() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    world.secret(&other, both(10));
    world.handle(Event::ClockSkew(true), both(20));
    world.handle(Event::Revoked(ids(&one)), both(20));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)));
}

#[test]
fn a_retired_key_does_not_succeed_a_revoked_one() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    world.secret(&other, both(10));
    world.tick(both(310));
    world.handle(Event::Revoked(ids(&other)), both(320));
    assert_eq!(world.kid(), Err(NoSigner::Revoked(kid(&other).to_owned())));
    assert_eq!(world.states(), [(kid(&one), Retired)]);
}

#[test]
fn a_revoked_pending_key_leaves_the_signer_alone() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    world.secret(&other, both(10));
    world.handle(Event::Revoked(ids(&other)), both(20));
    assert_eq!(world.states(), [(kid(&one), Signing)]);
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
}

#[test]
fn a_follower_stops_too() {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, both(0));
    let mut follower = World::follower(policy(), world.state.clone(), world.keys.clone(), both(10));
    assert_eq!(follower.kid().as_deref(), Ok(kid(&one)));
    follower.handle(Event::Revoked(ids(&one)), both(20));
    assert_eq!(follower.kid(), Err(NoSigner::Revoked(kid(&one).to_owned())));
    assert_eq!(follower.writes, 0);
}

#[test]
fn a_mistake_is_not_recorded_as_revoked() {
    let mut world = World::new();
    world.secret(&ca(), both(0));
    world.handle(Event::Revoked(["all of them".to_owned()].into()), both(1));
    assert!(world.ring.state().revoked.is_empty() && world.kid().is_ok());
}
