//! Keys that come back or are overtaken: one that was published long enough signs at once, a superseded one never.

use super::*;
use KeyState::{Published, Retired, Signing};

/// One key signed until 1300, another one signs since then.
fn rotated() -> (World, Authority, Authority) {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    world.secret(&other, both(1000));
    world.tick(both(1300));
    (world, one, other)
}

#[test]
fn a_retired_key_that_comes_back_signs_at_once() {
    let (mut world, one, other) = rotated();
    let sequence = world.sequence();
    world.secret(&one, both(1400));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    assert_eq!(world.states(), [(kid(&one), Signing), (kid(&other), Retired)]);
    assert_eq!(world.stored_jwt_keys(), [kid(&one)], "its private key is stored again");
    assert_eq!(world.sequence(), sequence, "the content is the same");
}

#[test]
fn after_a_restart_it_waits_again() {
    let (world, one, other) = rotated();
    let mut world = world.restarted(clocks(1400, 0));
    world.secret(&one, clocks(1400, 0));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)));
    assert_eq!(world.states(), [(kid(&one), Published), (kid(&other), Signing)]);
    world.tick(clocks(1400 + JWT_OVERLAP, JWT_OVERLAP));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
}

#[test]
fn a_superseded_key_never_signs_and_leaves_after_one_overlap() {
    let (mut world, one, two, three) = (World::new(), ca(), ca(), ca());
    world.secret(&one, both(0));
    world.secret(&two, both(1000));
    world.secret(&three, both(1100));
    assert_eq!(
        world.states(),
        [(kid(&one), Signing), (kid(&two), Retired), (kid(&three), Published)]
    );
    assert_eq!(world.told("KeySuperseded"), 2, "once per use");
    assert!(!world.keys.jwt.contains_key(kid(&two)));
    world.tick(both(1399));
    assert_eq!(world.states().len(), 3);
    world.tick(both(1400));
    assert_eq!(world.states(), [(kid(&one), Retired), (kid(&three), Signing)]);
}

#[test]
fn going_back_to_the_signer_supersedes_the_pending_key() {
    let (mut world, one, two) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    world.secret(&two, both(1000));
    world.secret(&one, both(1100));
    assert_eq!(world.states(), [(kid(&one), Signing), (kid(&two), Retired)]);
    world.tick(both(1300));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    world.tick(both(1400));
    assert_eq!(world.states(), [(kid(&one), Signing)]);
}

#[test]
fn a_superseded_key_that_comes_back_keeps_the_time_it_was_published() {
    let (mut world, one, two) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    world.secret(&two, both(1000));
    world.secret(&one, both(1100));
    world.secret(&two, both(1200));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    world.tick(both(1300));
    assert_eq!(world.kid().as_deref(), Ok(kid(&two)));
}

#[test]
fn what_signed_before_it_waited_again_stays_for_what_it_signed() {
    let (world, one, other) = rotated();
    let mut world = world.restarted(clocks(1400, 0));
    world.secret(&one, clocks(1400, 0));
    world.secret(&other, clocks(1410, 10));
    world.tick(clocks(1410 + JWT_RETENTION - 1, 10 + JWT_RETENTION - 1));
    assert!(world.publishes(kid(&one)), "superseded, but it has signed");
    world.tick(clocks(1410 + JWT_RETENTION, 10 + JWT_RETENTION));
    assert!(!world.publishes(kid(&one)));
}
