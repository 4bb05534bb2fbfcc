//! What is special about CAs: a published root, an activation and the end of the old one shorten their overlap, and the
//! beginning of their own certificate lengthens it.

use super::*;
use crate::test_support::load;
use KeyState::{Published, Retired, Signing};

fn with_root(published: bool) -> World {
    World::with(RingPolicy {
        bundle_root: published,
        ..policy()
    })
}

fn root() -> TestCa {
    TestCa::root(|params| {
        valid(params, -DAY, 300 * DAY);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    })
}

fn under(root: &TestCa) -> Authority {
    let ca = root.issue(|params| valid(params, -DAY, 30 * DAY));
    load(&ca.secret_under(&[root])).expect("authority")
}

#[test]
fn a_ca_waits_for_its_own_overlap() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    world.secret(&other, both(10));
    world.tick(both(10 + X509_OVERLAP - 1));
    assert_eq!(
        world.kid().as_deref(),
        Ok(kid(&other)),
        "tokens have an overlap of their own"
    );
    assert_eq!(world.x509_states(), [(id(&one), Signing), (id(&other), Published)]);
    world.tick(both(10 + X509_OVERLAP));
    assert_eq!(world.x509_states(), [(id(&one), Retired), (id(&other), Signing)]);
}

#[test]
fn under_a_root_that_was_published_for_the_overlap_it_signs_at_once() {
    let (mut world, root) = (with_root(true), root());
    let (one, other) = (under(&root), under(&root));
    world.secret(&one, both(0));
    world.secret(&other, both(X509_OVERLAP));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&other)));
    assert_eq!(world.writes, 3, "stored and published before all the same");
}

#[test]
fn the_root_must_be_published_for_the_overlap_by_both_clocks() {
    for early in [X509_OVERLAP - 1, 10] {
        let (mut world, root) = (with_root(true), root());
        let (one, other) = (under(&root), under(&root));
        world.secret(&one, both(0));
        world.secret(&other, clocks(X509_OVERLAP, early));
        assert_eq!(world.authority_id().as_deref(), Ok(id(&one)));
        let rest = X509_OVERLAP - early;
        let due = Duration::from_secs(u64::try_from(rest.min(JWT_OVERLAP)).expect("positive"));
        assert_eq!(world.ring.next_due(clocks(X509_OVERLAP, early)), Some(due));
        world.tick(clocks(X509_OVERLAP + rest, X509_OVERLAP));
        assert_eq!(world.authority_id().as_deref(), Ok(id(&other)));
    }
}

#[test]
fn a_root_that_is_not_published_does_not_help() {
    let (mut world, root) = (with_root(false), root());
    let (one, other) = (under(&root), under(&root));
    world.secret(&one, both(0));
    world.secret(&other, both(X509_OVERLAP));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&one)));
    assert!(world.ring.state().roots.is_empty());
}

#[test]
fn another_root_does_not_help() {
    let mut world = with_root(true);
    let (one, other) = (under(&root()), under(&root()));
    world.secret(&one, both(0));
    world.secret(&other, both(X509_OVERLAP));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&one)));
}

#[test]
fn an_activated_ca_signs_before_its_overlap_is_over() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    world.secret(&other, both(10));
    world.handle(Event::Activated([id(&one).to_owned()].into()), both(20));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&one)), "another one");
    world.handle(Event::Activated([id(&other).to_owned()].into()), both(30));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&other)));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)), "tokens wait");
    assert_eq!(world.told("KeyActivated"), 1);
}

#[test]
fn an_activation_that_comes_first_does_not_skip_the_publication() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, both(0));
    world.handle(Event::Activated([id(&other).to_owned()].into()), both(5));
    world.secret(&other, both(10));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&other)));
    assert_eq!(world.writes, 3);
}

#[test]
fn the_overlap_does_not_outlast_the_old_ca() {
    let mut world = World::new();
    let old = TestCa::root(|params| valid(params, -DAY, 7200)).load();
    let next = ca();
    world.secret(&old, both(0));
    world.secret(&next, both(1000));
    let published = Notice::Published {
        kind: KeyUse::X509,
        id: id(&next).to_owned(),
        from: at(3600),
    };
    assert!(world.notices.contains(&published), "{:?}", world.notices);
    world.tick(both(3599));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&old)));
    world.tick(both(3600));
    assert_eq!(
        world.authority_id().as_deref(),
        Ok(id(&next)),
        "an hour is the life of an SVID"
    );
}

#[test]
fn a_ca_that_is_not_valid_yet_waits_for_its_beginning() {
    let (mut world, one) = (World::new(), ca());
    let next = TestCa::root(|params| valid(params, 240, 30 * DAY)).load();
    world.secret(&one, both(0));
    world.secret(&next, both(0));
    world.handle(Event::Activated([id(&next).to_owned()].into()), both(0));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&one)));
    assert_eq!(world.ring.next_due(both(0)), Some(Duration::from_mins(4)));
    world.tick(both(120));
    assert_eq!(world.told("KeyNotYetValid"), 1);
    world.tick(both(240));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&next)));
}

#[test]
fn the_first_ca_waits_for_its_beginning_too() {
    let mut world = World::new();
    let first = TestCa::root(|params| valid(params, 240, 30 * DAY)).load();
    world.secret(&first, both(0));
    assert_eq!(world.kid().as_deref(), Ok(kid(&first)), "tokens have no such date");
    assert_eq!(world.authority_id(), Err(NoSigner::Waits(id(&first).to_owned())));
    world.tick(both(240));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&first)));
}
