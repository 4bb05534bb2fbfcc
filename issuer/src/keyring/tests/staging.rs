//! A key is stored and published for its overlap before it signs, by both clocks, and stays published until nothing that
//! it signed can be valid.

use super::*;
use crate::test_support::NOW;
use KeyState::{Published, Retired, Signing};

/// One key signs since 0, another one came at 1000.
fn rotating() -> (World, Authority, Authority) {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    world.secret(&other, both(1000));
    (world, one, other)
}

#[test]
fn the_first_key_is_stored_published_and_signs_in_one_write() {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, both(0));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&one)));
    assert_eq!(world.states(), [(kid(&one), Signing)]);
    assert_eq!(world.sequence(), u64::try_from(NOW).expect("positive"));
    assert_eq!(world.writes, 1);
}

#[test]
fn nothing_happens_before_the_first_secret() {
    let mut world = World::new();
    world.tick(both(0));
    assert_eq!((world.writes, world.kid()), (0, Err(NoSigner::NotRead)));
    assert!(world.published.is_none());
}

#[test]
fn the_same_secret_again_changes_nothing() {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, both(0));
    world.secret(&one, both(60));
    world.tick(both(120));
    assert_eq!(world.writes, 1);
    assert_eq!(world.reasons(), ["KeySigning", "KeySigning"], "one per use");
}

#[test]
fn a_new_key_is_published_while_the_old_one_signs_on() {
    let (world, one, other) = rotating();
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    assert_eq!(world.states(), [(kid(&one), Signing), (kid(&other), Published)]);
    assert!(world.publishes(kid(&one)) && world.publishes(kid(&other)));
    let mut both_keys = [kid(&one), kid(&other)];
    both_keys.sort_unstable();
    assert_eq!(world.stored_jwt_keys(), both_keys, "it still has to sign");
    let published = Notice::Published {
        kind: KeyUse::Jwt,
        id: kid(&other).to_owned(),
        from: at(1300),
    };
    assert!(world.notices.contains(&published), "{:?}", world.notices);
}

#[test]
fn it_signs_when_both_clocks_say_so() {
    for early in [
        clocks(1299, 1300),
        clocks(1300, 1299),
        clocks(90_000, 1299),
        clocks(0, 90_000),
    ] {
        let (mut world, one, _) = rotating();
        world.tick(early);
        assert_eq!(world.kid().as_deref(), Ok(kid(&one)), "{early:?}");
    }
    let (mut world, one, other) = rotating();
    world.tick(both(1300));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)));
    assert_eq!(world.states(), [(kid(&one), Retired), (kid(&other), Signing)]);
    assert!(world.publishes(kid(&one)));
    assert_eq!(
        world.stored_jwt_keys(),
        [kid(&other)],
        "the retired private key is gone"
    );
}

#[test]
fn the_overlap_begins_with_the_acknowledgement() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    let (uses, outcome) = (KeyUses::Both, Ok(Arc::new(other.clone())));
    let actions = world.ring.handle(Event::Secret { uses, outcome }, both(1000));
    let [Action::Store(write)] = actions.as_slice() else {
        panic!("a write and nothing else: {actions:?}");
    };
    (world.state, world.keys) = (Some(write.state.clone()), write.keys.clone());
    world.handle(Event::Stored { write: write.id }, both(1100));
    world.tick(both(1399));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    world.tick(both(1400));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)));
}

#[test]
fn a_retired_key_goes_when_both_clocks_say_so() {
    let rotated = || {
        let (mut world, one, other) = rotating();
        world.tick(both(1300));
        (world, one, other)
    };
    let over = 1300 + JWT_RETENTION;
    for early in [clocks(over - 1, over), clocks(over, over - 1), clocks(90_000, 1301)] {
        let (mut world, ..) = rotated();
        world.tick(early);
        assert_eq!(world.states().len(), 2, "{early:?}");
    }
    let (mut world, one, other) = rotated();
    world.tick(both(over));
    assert_eq!(world.states(), [(kid(&other), Signing)]);
    assert!(!world.publishes(kid(&one)));
    assert_eq!(
        world.notices.last().map(ToString::to_string),
        Some(format!("JWT key {} is no longer published", kid(&one)))
    );
}

#[test]
fn every_step_is_told() {
    let (mut world, ..) = rotating();
    world.tick(both(1000 + X509_OVERLAP));
    world.tick(both(1000 + X509_OVERLAP + X509_RETENTION));
    let (jwt, x509): (Vec<_>, Vec<_>) = world
        .notices
        .iter()
        .partition(|notice| notice.to_string().starts_with("JWT"));
    for told in [jwt, x509] {
        let mut reasons: Vec<_> = told.iter().map(|notice| notice.reason()).collect();
        reasons.sort_unstable();
        assert_eq!(
            reasons,
            ["KeyGone", "KeyPublished", "KeyRetired", "KeySigning", "KeySigning"]
        );
        assert!(!told.iter().any(|notice| notice.is_warning()));
    }
}

#[test]
fn without_an_overlap_it_is_still_published_first() {
    let mut world = World::with(RingPolicy {
        jwt_overlap: Duration::ZERO,
        ..policy()
    });
    let (one, other) = (ca(), ca());
    world.secret(&one, both(0));
    world.secret(&other, both(60));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)));
    assert_eq!(world.writes, 3, "published in one write, signing in the next");
}

#[test]
fn after_a_restart_the_monotonic_clock_starts_again() {
    let (world, one, other) = rotating();
    let mut world = world.restarted(clocks(1290, 3));
    world.tick(clocks(1590, 302));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    world.tick(clocks(1590, 303));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)), "with the stored key alone");
    let mut world = world.restarted(clocks(9000, 5));
    world.tick(clocks(9000, 5));
    assert_eq!(world.states().len(), 2);
    world.tick(clocks(9000 + JWT_RETENTION, 5 + JWT_RETENTION));
    assert_eq!(world.states(), [(kid(&other), Signing)]);
}

#[test]
fn a_failed_write_changes_nothing_and_is_tried_again() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    world.api_server = false;
    world.secret(&other, both(60));
    assert_eq!(world.states(), [(kid(&one), Signing)]);
    assert_eq!(world.ring.next_due(both(60)), Some(Duration::from_secs(5)));
    world.api_server = true;
    world.tick(both(64));
    assert_eq!(world.states().len(), 1, "not with every tick");
    world.tick(both(65));
    assert_eq!(world.states(), [(kid(&one), Signing), (kid(&other), Published)]);
    world.tick(both(364));
    assert_eq!(
        world.kid().as_deref(),
        Ok(kid(&one)),
        "the overlap began with the write that succeeded"
    );
}

#[test]
fn an_answer_to_another_write_is_ignored() {
    let mut world = World::new();
    let (uses, outcome) = (KeyUses::Both, Ok(Arc::new(ca())));
    let actions = world.ring.handle(Event::Secret { uses, outcome }, both(0));
    let write = actions.iter().find_map(|action| match action {
        Action::Store(write) => Some(write.id),
        _ => None,
    });
    let write = write.expect("a write");
    assert!(
        world
            .ring
            .handle(Event::Stored { write: write + 1 }, both(1))
            .is_empty()
    );
    assert!(world.ring.documents().is_none());
    assert!(!world.ring.handle(Event::Stored { write }, both(2)).is_empty());
}

#[test]
fn the_sequence_changes_exactly_with_the_content() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    let mut sequences = Vec::new();
    let mut note = |world: &World| sequences.push(i64::try_from(world.sequence()).expect("small") - NOW);
    world.secret(&one, both(0));
    note(&world);
    world.secret(&other, both(0));
    note(&world);
    world.tick(both(300));
    note(&world);
    world.tick(both(300 + JWT_RETENTION));
    note(&world);
    world.secret(&ca(), clocks(-500, 2000));
    note(&world);
    assert_eq!(
        sequences,
        [0, 1, 1, 960, 961],
        "signing changes no content; a clock set back repeats no number"
    );
}

#[test]
fn with_a_wrong_clock_nothing_moves() {
    let (mut world, one, other) = rotating();
    world.handle(Event::ClockSkew(true), both(1100));
    world.handle(Event::ClockSkew(true), both(1101));
    assert_eq!(world.told("ClockSkew"), 1);
    let before = world.writes;
    world.secret(&ca(), both(1200));
    world.tick(both(90_000));
    assert_eq!((world.writes, world.kid().as_deref()), (before, Ok(kid(&one))));
    world.secret(&other, both(90_000));
    world.handle(Event::ClockSkew(false), both(90_000));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)));
}

#[test]
fn with_a_wrong_clock_the_first_key_signs() {
    let (mut world, one) = (World::new(), ca());
    world.handle(Event::ClockSkew(true), both(0));
    world.secret(&one, both(0));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
}
