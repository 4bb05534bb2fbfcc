//! What is found stored: followers adopt it, a leader writes its memory over it, and a refused or lost state costs nothing
//! that memory knows.

use super::*;
use crate::test_support::NOW;
use KeyState::{Published, Signing};

/// A leader with one key, and what it stored.
fn leader() -> (World, Authority) {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, both(0));
    (world, one)
}

fn follower_of(world: &World, clocks: Clocks) -> World {
    World::follower(policy(), world.state.clone(), world.keys.clone(), clocks)
}

fn copy(from: &World, to: &mut World, clocks: Clocks) {
    (to.state, to.keys) = (from.state.clone(), from.keys.clone());
    to.find(clocks);
}

#[test]
fn a_ring_that_does_not_lead_never_writes() {
    let mut world = World::follower(policy(), None, StoredKeys::default(), both(0));
    world.secret(&ca(), both(0));
    world.tick(both(90_000));
    assert_eq!((world.writes, world.ring.next_due(both(0))), (0, None));
    assert_eq!(world.kid(), Err(NoSigner::NotStored));
}

#[test]
fn a_leader_that_has_read_nothing_never_writes() {
    let mut ring = KeyRing::new(policy());
    ring.handle(Event::Leading(true), both(0));
    let (uses, outcome) = (KeyUses::Both, Ok(Arc::new(ca())));
    let actions = ring.handle(Event::Secret { uses, outcome }, both(1));
    assert!(!actions.iter().any(|action| matches!(action, Action::Store(_))));
}

#[test]
fn a_follower_publishes_and_signs_what_is_stored() {
    let (mut world, one) = leader();
    let mut follower = follower_of(&world, both(5));
    assert_eq!(follower.kid().as_deref(), Ok(kid(&one)));
    assert!(follower.publishes(kid(&one)));
    let other = ca();
    world.secret(&other, both(10));
    follower.secret(&other, both(10));
    assert!(!follower.publishes(kid(&other)), "not before it finds it");
    copy(&world, &mut follower, both(11));
    assert!(follower.publishes(kid(&other)));
    world.tick(both(310));
    copy(&world, &mut follower, both(311));
    assert_eq!(follower.kid().as_deref(), Ok(kid(&other)), "with the stored key");
    assert_eq!(follower.writes, 0);
}

#[test]
fn a_follower_keeps_its_memory_when_the_state_is_gone_refused_or_older() {
    let (mut world, one) = leader();
    let old = world.state.clone();
    let other = ca();
    world.secret(&other, both(10));
    let mut follower = follower_of(&world, both(10));
    follower.state = old;
    follower.find(both(20));
    assert!(follower.publishes(kid(&other)), "older");
    (follower.state, follower.keys) = (None, StoredKeys::default());
    follower.find(both(30));
    assert!(follower.publishes(kid(&other)), "gone");
    follower.find_refused(refused([]), both(40));
    assert!(follower.publishes(kid(&other)), "refused");
    assert_eq!(follower.told("StateRefused"), 1);
    assert_eq!(follower.kid().as_deref(), Ok(kid(&one)));
}

fn refused<const N: usize>(revoked: [&str; N]) -> Refused {
    Refused {
        error: StateError::Version(2),
        revoked: revoked.map(str::to_owned).into(),
        sequence: u64::try_from(NOW).expect("positive") + 1_000_000,
        revision: u64::try_from(NOW).expect("positive") + 2_000_000,
    }
}

#[test]
fn a_leader_writes_its_memory_over_what_somebody_else_wrote() {
    let (mut world, one) = leader();
    let (mut foreign, other) = (World::new(), ca());
    foreign.secret(&other, both(500));
    let (theirs, ours) = (foreign.sequence(), world.sequence());
    copy(&foreign, &mut world, both(600));
    assert_eq!(world.told("StateOverwritten"), 1);
    let stored = world.state.as_ref().expect("stored");
    assert_eq!(stored.ring.jwt[0].id, kid(&one));
    assert!(stored.ring.sequence > theirs && theirs > ours && stored.revision > foreign.ring.revision());
    assert_eq!(world.stored_jwt_keys(), [kid(&one)]);
}

#[test]
fn a_leader_writes_its_memory_again_when_the_state_is_gone() {
    let (mut world, one) = leader();
    let sequence = world.sequence();
    (world.state, world.keys) = (None, StoredKeys::default());
    world.find(both(20));
    assert_eq!(world.told("StateMissing"), 1);
    world.state = None;
    world.find(both(30));
    assert_eq!(world.told("StateMissing"), 2, "it happened again");
    assert_eq!(world.state.as_ref().map(|state| state.ring.sequence), Some(sequence));
    assert_eq!(world.stored_jwt_keys(), [kid(&one)]);
}

#[test]
fn an_older_copy_is_overwritten_by_whoever_remembers() {
    let (mut world, _) = leader();
    let old = (world.state.clone(), world.keys.clone());
    let other = ca();
    world.secret(&other, both(10));
    let mut follower = follower_of(&world, both(10));
    (follower.state, follower.keys) = old;
    follower.find(both(20));
    follower.handle(Event::Leading(true), both(20));
    assert_eq!(follower.told("StateOverwritten"), 1);
    assert!(follower.state.as_ref().is_some_and(|state| state.ring.jwt.len() == 2));
    assert!(follower.keys.jwt.contains_key(kid(&other)));
}

#[test]
fn a_refused_state_is_rebuilt_from_the_signing_secret() {
    let (one, other) = (ca(), ca());
    let mut world = World::follower(policy(), None, StoredKeys::default(), both(0));
    world.find_refused(refused([kid(&one)]), both(0));
    world.handle(Event::Leading(true), both(0));
    assert_eq!(world.writes, 0, "nothing is known yet");
    world.secret(&one, both(1));
    assert_eq!(
        world.kid(),
        Err(NoSigner::Revoked(kid(&one).to_owned())),
        "revocations stay in force"
    );
    world.secret(&other, both(2));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)), "no key was ever published");
    let stored = world.state.as_ref().expect("stored");
    assert!(stored.ring.sequence > refused([]).sequence && stored.revision > refused([]).revision);
    assert!(stored.ring.revoked.contains(kid(&one)));
}

#[test]
fn with_a_wrong_clock_a_refused_state_is_left_alone() {
    let mut world = World::follower(policy(), None, StoredKeys::default(), both(0));
    world.find_refused(refused([]), both(0));
    world.handle(Event::ClockSkew(true), both(0));
    world.handle(Event::Leading(true), both(0));
    world.secret(&ca(), both(0));
    assert_eq!(world.writes, 0);
    world.handle(Event::ClockSkew(false), both(5));
    assert_eq!(world.writes, 1);
}

#[test]
fn revocations_of_both_sides_stay() {
    let (mut world, one) = leader();
    let other = ca();
    let (mut foreign, mine) = (World::new(), "_".repeat(43));
    foreign.secret(&other, both(0));
    foreign.handle(Event::Revoked([kid(&one).to_owned()].into()), both(1));
    world.handle(Event::Revoked([mine.clone()].into()), both(1));
    copy(&foreign, &mut world, both(2));
    let revoked = &world.state.as_ref().expect("stored").ring.revoked;
    assert!(revoked.contains(kid(&one)) && revoked.contains(&mine));
    assert_eq!(world.kid(), Err(NoSigner::Revoked(kid(&one).to_owned())));
}

#[test]
fn a_new_leader_goes_on_where_the_old_one_was() {
    let (mut world, one) = leader();
    let other = ca();
    world.secret(&other, both(10));
    let mut next = follower_of(&world, clocks(300, 7));
    next.handle(Event::Leading(true), clocks(300, 7));
    assert_eq!(next.states(), [(kid(&one), Signing), (kid(&other), Published)]);
    assert_eq!(next.writes, 0);
    next.tick(clocks(306 + 300, 306));
    assert_eq!(next.kid().as_deref(), Ok(kid(&one)), "its own clock starts again");
    next.tick(clocks(307 + 300, 307));
    assert_eq!(next.kid().as_deref(), Ok(kid(&other)));
    copy(&next, &mut world, both(700));
    world.handle(Event::Leading(false), both(700));
    copy(&next, &mut world, both(700));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)));
}

#[test]
fn without_the_lease_it_goes_on_from_memory_and_writes_nothing() {
    let (mut world, one) = leader();
    let other = ca();
    world.secret(&other, both(10));
    world.handle(Event::Leading(false), both(20));
    let writes = world.writes;
    world.tick(both(90_000));
    assert_eq!((world.writes, world.kid().as_deref()), (writes, Ok(kid(&one))));
    world.handle(Event::Leading(true), both(90_000));
    world.tick(both(90_299));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    world.tick(both(90_300));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)));
}

#[test]
fn a_failed_write_that_was_stored_counts_as_acknowledged() {
    let (mut world, one) = leader();
    let other = ca();
    let (uses, outcome) = (KeyUses::Both, Ok(Arc::new(other.clone())));
    let actions = world.ring.handle(Event::Secret { uses, outcome }, both(10));
    let [Action::Store(write)] = actions.as_slice() else {
        panic!("a write: {actions:?}");
    };
    world.ring.handle(Event::StoreFailed { write: write.id }, both(11));
    (world.state, world.keys) = (Some(write.state.clone()), write.keys.clone());
    let writes = world.writes;
    world.find(both(12));
    assert_eq!((world.writes, world.told("StateOverwritten")), (writes, 0));
    assert_eq!(world.states(), [(kid(&one), Signing), (kid(&other), Published)]);
    assert_eq!(world.told("KeyPublished"), 2);
}

#[test]
fn what_is_found_during_a_write_is_looked_at_after_it() {
    let (mut world, one) = leader();
    let before = world.state.clone();
    let (uses, outcome) = (KeyUses::Both, Ok(Arc::new(ca())));
    let actions = world.ring.handle(Event::Secret { uses, outcome }, both(10));
    let [Action::Store(write)] = actions.as_slice() else {
        panic!("a write: {actions:?}");
    };
    let found = Found {
        state: Ok(before),
        keys: StoredKeys::default(),
    };
    assert!(world.ring.handle(Event::Found(Box::new(found)), both(11)).is_empty());
    (world.state, world.keys) = (Some(write.state.clone()), write.keys.clone());
    world.handle(Event::Stored { write: write.id }, both(12));
    assert_eq!(world.states().len(), 2);
    assert!(
        world.keys.jwt.contains_key(kid(&one)),
        "the lost private keys are written again"
    );
}

#[test]
fn private_keys_that_nobody_needs_are_wiped() {
    let (mut world, one) = leader();
    let other = ca();
    world.keys.jwt.insert(kid(&other).to_owned(), Arc::clone(&other.key));
    world.find(both(10));
    assert_eq!(world.stored_jwt_keys(), [kid(&one)]);
    assert_eq!(world.told("StateOverwritten"), 0);
}

#[test]
fn private_keys_without_a_state_wait_for_the_secret() {
    let one = ca();
    let mut keys = StoredKeys::default();
    keys.jwt.insert(kid(&one).to_owned(), Arc::clone(&one.key));
    let mut world = World::follower(policy(), None, keys, both(0));
    world.handle(Event::Leading(true), both(0));
    assert_eq!(world.writes, 0);
    world.secret(&one, both(1));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
}

#[test]
fn a_lost_private_key_is_stored_again() {
    let (mut world, one) = leader();
    world.keys = StoredKeys::default();
    let mut world = world.restarted(clocks(60, 0));
    assert_eq!(world.kid(), Err(NoSigner::Lost(kid(&one).to_owned())));
    world.secret(&one, clocks(61, 1));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    assert!(world.keys.jwt.contains_key(kid(&one)) && world.keys.x509.contains_key(id(&one)));
}

#[test]
fn a_private_key_of_another_entry_is_ignored_and_replaced() {
    let (mut world, one) = leader();
    let foreign = ca();
    world.keys.jwt.insert(kid(&one).to_owned(), Arc::clone(&foreign.key));
    let mut again = world.restarted(clocks(60, 0));
    assert_eq!(again.told("PrivateKeyInvalid"), 1);
    assert_eq!(again.kid(), Err(NoSigner::Lost(kid(&one).to_owned())));
    again.secret(&one, clocks(61, 1));
    assert_eq!(again.kid().as_deref(), Ok(kid(&one)));
    world.find(both(70));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)), "memory has the right one");
    let stored = world.keys.jwt[kid(&one)].expose_pkcs8_der();
    assert_eq!(stored, one.key.expose_pkcs8_der());
}

#[test]
fn a_restart_goes_on_with_the_stored_keys_alone() {
    let (world, one) = leader();
    let mut again = world.restarted(clocks(60, 0));
    assert_eq!(again.kid().as_deref(), Ok(kid(&one)), "without the signing Secret");
    again.secret(&one, clocks(61, 1));
    assert_eq!((again.writes, again.sequence()), (0, world.sequence()));
}

#[test]
fn a_key_rotated_while_nothing_ran_waits_its_overlap() {
    let (world, one) = leader();
    let mut again = world.restarted(clocks(5000, 0));
    let other = ca();
    again.secret(&other, clocks(5000, 0));
    assert_eq!(again.kid().as_deref(), Ok(kid(&one)), "with the stored copy of its key");
    again.tick(clocks(5000 + JWT_OVERLAP, JWT_OVERLAP));
    assert_eq!(again.kid().as_deref(), Ok(kid(&other)));
}

#[test]
fn another_issuer_is_published_under_the_same_sequence() {
    let (world, one) = leader();
    let moved = crate::IssuerUrl::parse("https://elsewhere.example", false).expect("issuer");
    let issuer = Some(moved);
    let policy = RingPolicy { issuer, ..policy() };
    let mut again = World::follower(policy, world.state.clone(), world.keys.clone(), both(1));
    again.handle(Event::Leading(true), both(1));
    again.secret(&one, both(1));
    assert_eq!((again.writes, again.sequence()), (1, world.sequence()));
    assert!(again.published.expect("published").get("/keys").is_some());
}

#[test]
fn the_state_of_another_trust_domain_is_refused() {
    let (world, one) = leader();
    let policy = RingPolicy {
        trust_domain: crate::TrustDomain::parse("other.org").expect("domain"),
        ..policy()
    };
    let mut other = World::follower(policy, world.state.clone(), world.keys.clone(), both(1));
    let error = StateError::TrustDomain("example.org".into());
    assert_eq!(other.notices, [Notice::StateRefused(error)]);
    assert!(!other.publishes(kid(&one)));
    other.handle(Event::Leading(true), both(2));
    other.secret(&one, both(2));
    assert!(other.sequence() > world.sequence());
}
