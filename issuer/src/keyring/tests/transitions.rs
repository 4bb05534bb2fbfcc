//! What changes when, and what does not: one key signs per use, a bad Secret changes nothing, retired keys stay until
//! nothing they signed is valid, revoked ones never return.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rcgen::IsCa;

use super::*;
use crate::test_support::{DAY, NOW, TestCa, fixture_secret, load, valid};

fn ca() -> Authority {
    TestCa::root(|params| valid(params, -DAY, 30 * DAY)).load()
}

#[test]
fn the_first_key_is_stored_published_and_signs() {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, clocks(0, 0));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&one)));
    assert_eq!(world.states(), [(kid(&one), KeyState::Signing)]);
    assert_eq!(world.sequence(), u64::try_from(NOW).expect("positive"));
    assert_eq!(world.writes, 1);
}

#[test]
fn nothing_happens_before_the_first_secret() {
    let mut world = World::new();
    world.handle(Event::Tick, clocks(0, 0));
    assert_eq!((world.writes, world.kid()), (0, Err(NoSigner::NotRead)));
    assert!(world.published.is_none());
}

#[test]
fn the_same_secret_again_changes_nothing() {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, clocks(0, 0));
    world.secret(&one, clocks(60, 60));
    world.handle(Event::Tick, clocks(120, 120));
    assert_eq!(world.writes, 1);
    assert_eq!(world.notices.len(), 2, "one per use: {:?}", world.notices);
}

#[test]
fn a_new_key_signs_and_the_old_one_stays_published() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, clocks(0, 0));
    world.secret(&other, clocks(60, 60));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)));
    assert_eq!(
        world.states(),
        [(kid(&one), KeyState::Retired), (kid(&other), KeyState::Signing)]
    );
    let keys = &world
        .published
        .as_ref()
        .expect("published")
        .keys()
        .expect("an issuer")
        .body;
    let keys = String::from_utf8_lossy(keys);
    assert!(keys.contains(kid(&one)) && keys.contains(kid(&other)));
    assert_eq!(
        world.keys.jwt.keys().collect::<Vec<_>>(),
        [kid(&other)],
        "the private key of a retired one is gone"
    );
}

#[test]
fn a_retired_key_goes_when_both_clocks_say_so() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, clocks(0, 0));
    world.secret(&other, clocks(0, 0));
    // 300 s of life, 60 s of leeway, 300 s of overlap.
    for early in [clocks(659, 660), clocks(660, 659), clocks(90_000, 0)] {
        world.handle(Event::Tick, early);
        assert_eq!(world.states().len(), 2, "{early:?}");
    }
    let mut due = World::new();
    due.secret(&one, clocks(0, 0));
    due.secret(&other, clocks(0, 0));
    assert_eq!(due.ring.next_due(clocks(0, 0)), Some(Duration::from_mins(11)));
    assert_eq!(due.ring.next_due(clocks(600, 600)), Some(Duration::from_mins(1)));
    due.handle(Event::Tick, clocks(660, 660));
    assert_eq!(due.states(), [(kid(&other), KeyState::Signing)]);
    assert!(due.notices.contains(&Notice::Gone {
        kind: "JWT",
        id: kid(&one).to_owned()
    }));
    assert_eq!(due.ring.state().x509.len(), 2, "a CA stays for its own retention");
    assert_eq!(due.ring.next_due(clocks(660, 660)), Some(Duration::from_mins(170)));
}

#[test]
fn after_a_restart_the_monotonic_clock_starts_again() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, clocks(0, 5000));
    world.secret(&other, clocks(0, 5000));
    let mut world = world.restarted(clocks(700, 3));
    world.handle(Event::Tick, clocks(700, 3));
    assert_eq!(world.states().len(), 2);
    world.handle(Event::Tick, clocks(1360, 663));
    assert_eq!(world.states(), [(kid(&other), KeyState::Signing)]);
}

#[test]
fn a_bad_secret_keeps_the_last_good_one() {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, clocks(0, 0));
    let before = world.sequence();
    for error in [AuthorityError::Mismatch, AuthorityError::Absent] {
        world.bad_secret(error.clone(), clocks(60, 60));
        assert_eq!(world.notices.last(), Some(&Notice::NotUsable(error)));
        assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    }
    assert_eq!((world.writes, world.sequence()), (1, before));
}

#[test]
fn a_bad_first_secret_says_why_nothing_signs() {
    let mut world = World::new();
    world.bad_secret(AuthorityError::Absent, clocks(0, 0));
    assert_eq!(world.kid(), Err(NoSigner::Secret(AuthorityError::Absent)));
    assert!(!world.kid().expect_err("nothing signs").is_permanent());
    let one = ca();
    world.secret(&one, clocks(1, 1));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)), "healed");
}

#[test]
fn a_key_that_signs_no_tokens_still_signs_certificates() {
    let mut world = World::new();
    world.secret(
        &load(&fixture_secret("ed25519.pkcs8.key", "ed25519.crt")).expect("authority"),
        clocks(0, 0),
    );
    assert!(world.kid().is_err_and(|reason| reason.is_permanent()));
    assert!(world.authority_id().is_ok());
}

#[test]
fn without_an_issuer_nobody_is_told_about_tokens() {
    let ed25519 = load(&fixture_secret("ed25519.pkcs8.key", "ed25519.crt")).expect("authority");
    for (issuer, told) in [(policy().issuer, 1), (None, 0)] {
        let mut world = World::with(KeyRing::new(RingPolicy { issuer, ..policy() }));
        world.secret(&ed25519, clocks(0, 0));
        assert_eq!(
            world
                .notices
                .iter()
                .filter(|notice| matches!(notice, Notice::NoJwt(_)))
                .count(),
            told
        );
    }
}

#[test]
fn a_certificate_that_is_no_ca_keeps_the_last_ca() {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, clocks(0, 0));
    let plain = TestCa::root(|params| params.is_ca = IsCa::ExplicitNoCa).load();
    world.secret(&plain, clocks(60, 60));
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
    world.handle(event(KeyUses::X509, &certificates), clocks(0, 0));
    assert_eq!(world.kid(), Err(NoSigner::NotRead));
    world.handle(event(KeyUses::Jwt, &tokens), clocks(1, 1));
    assert_eq!(world.kid().as_deref(), Ok(kid(&tokens)));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&certificates)));
}

#[test]
fn new_dates_of_the_same_ca_replace_the_old_ones_at_once() {
    let ca = TestCa::root(|params| valid(params, -DAY, DAY));
    let mut world = World::new();
    world.secret(&ca.load(), clocks(0, 0));
    let renewed = ca.renewed(|params| valid(params, -DAY, 20 * DAY));
    world.secret(&renewed.load(), clocks(60, 60));
    assert_eq!(world.ring.state().x509.len(), 1);
    assert_eq!(world.ring.state().x509[0].material.certificate, renewed.der);
    let set = world.signing.as_ref().expect("signing");
    assert_eq!(set.x509.as_ref().map(|x509| x509.not_after()), Ok(at(20 * DAY)));
    assert_eq!(set.jwt.as_ref().map(|jwt| jwt.not_after()), Ok(Some(at(20 * DAY))));
}

#[test]
fn a_ca_that_is_not_valid_yet_waits_while_another_signs() {
    let (mut world, one) = (World::new(), ca());
    let next = TestCa::root(|params| valid(params, 240, 30 * DAY)).load();
    world.secret(&one, clocks(0, 0));
    world.secret(&next, clocks(0, 0));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&one)));
    assert_eq!(world.kid().as_deref(), Ok(kid(&next)), "tokens have no such date");
    assert_eq!(world.ring.state().x509[1].state, KeyState::Published);
    assert_eq!(world.ring.next_due(clocks(0, 0)), Some(Duration::from_mins(4)));
    world.handle(Event::Tick, clocks(240, 240));
    assert_eq!(world.authority_id().as_deref(), Ok(id(&next)));
}

#[test]
fn back_to_the_old_key_signs_with_it_again() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, clocks(0, 0));
    world.secret(&other, clocks(60, 60));
    let sequence = world.sequence();
    world.secret(&one, clocks(120, 120));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    assert_eq!(
        world.states(),
        [(kid(&one), KeyState::Signing), (kid(&other), KeyState::Retired)]
    );
    assert_eq!(world.sequence(), sequence, "the content is the same");
}

#[test]
fn a_failed_write_changes_nothing_and_is_tried_again() {
    let (mut world, one, other) = (World::new(), ca(), ca());
    world.secret(&one, clocks(0, 0));
    world.api_server = false;
    world.secret(&other, clocks(60, 60));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    assert_eq!(world.states(), [(kid(&one), KeyState::Signing)]);
    world.api_server = true;
    world.handle(Event::Tick, clocks(65, 65));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)));
}

#[test]
fn an_answer_to_another_write_is_ignored() {
    let mut ring = KeyRing::new(policy());
    let outcome = Ok(Arc::new(ca()));
    let actions = ring.handle(
        Event::Secret {
            uses: KeyUses::Both,
            outcome,
        },
        clocks(0, 0),
    );
    let write = actions.iter().find_map(|action| match action {
        Action::Store(write) => Some(write.id),
        _ => None,
    });
    let write = write.expect("a write");
    assert!(ring.handle(Event::Stored { write: write + 1 }, clocks(1, 1)).is_empty());
    assert!(ring.documents().is_none());
    assert!(!ring.handle(Event::Stored { write }, clocks(2, 2)).is_empty());
}

#[test]
fn more_keys_than_a_ring_holds_wait() {
    let mut world = World::new();
    let all: Vec<_> = (0..=MAX_KEYS_PER_USE).map(|_| ca()).collect();
    for authority in &all {
        world.secret(authority, clocks(0, 0));
    }
    assert_eq!(world.states().len(), MAX_KEYS_PER_USE);
    assert_eq!(world.kid().as_deref(), Ok(kid(&all[MAX_KEYS_PER_USE - 1])));
    let last = &all[MAX_KEYS_PER_USE];
    let full = Notice::Full {
        kind: "JWT",
        id: kid(last).to_owned(),
    };
    world.handle(Event::Tick, clocks(1, 1));
    assert_eq!(
        world.notices.iter().filter(|notice| **notice == full).count(),
        1,
        "told once"
    );
    world.handle(Event::Tick, clocks(20_000, 20_000));
    assert_eq!(world.kid().as_deref(), Ok(kid(last)), "room again");
}

#[test]
fn a_revoked_key_is_gone_and_never_returns() {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, clocks(0, 0));
    let revoked: BTreeSet<_> = [kid(&one).to_owned(), id(&one).to_owned()].into();
    world.handle(Event::Revoked(revoked), clocks(60, 60));
    assert_eq!(world.kid(), Err(NoSigner::Revoked(kid(&one).to_owned())));
    assert_eq!(world.authority_id(), Err(NoSigner::Revoked(id(&one).to_owned())));
    let published = world.published.as_ref().expect("published");
    assert!(!String::from_utf8_lossy(&published.bundle_json().body).contains(kid(&one)));
    assert!(world.keys.jwt.is_empty() && world.keys.x509.is_empty());
    world.secret(&one, clocks(120, 120));
    let mut world = world.restarted(clocks(180, 0));
    world.secret(&one, clocks(180, 0));
    assert!(world.kid().is_err() && world.states().is_empty());
    let other = ca();
    world.secret(&other, clocks(240, 60));
    assert_eq!(world.kid().as_deref(), Ok(kid(&other)));
}

#[test]
fn a_mistake_is_not_recorded_as_revoked() {
    let mut world = World::new();
    world.secret(&ca(), clocks(0, 0));
    world.handle(Event::Revoked(["all of them".to_owned()].into()), clocks(1, 1));
    assert!(world.ring.state().revoked.is_empty() && world.kid().is_ok());
}

#[test]
fn the_sequence_never_falls_behind_and_never_repeats() {
    let mut world = World::new();
    let mut sequences = Vec::new();
    for wall in [0, 0, -500, 100] {
        world.secret(&ca(), clocks(wall, 0));
        sequences.push(i64::try_from(world.sequence()).expect("small") - NOW);
    }
    assert_eq!(sequences, [0, 1, 2, 100]);
}

#[test]
fn a_restart_goes_on_with_the_stored_keys_alone() {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, clocks(0, 0));
    let mut again = world.restarted(clocks(60, 0));
    again.handle(Event::Tick, clocks(60, 0));
    assert_eq!(again.kid().as_deref(), Ok(kid(&one)), "without the signing Secret");
    again.secret(&one, clocks(61, 1));
    assert_eq!((again.writes, again.sequence()), (0, world.sequence()));
}

#[test]
fn a_lost_private_key_is_stored_again() {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, clocks(0, 0));
    world.keys = StoredKeys::default();
    let mut world = world.restarted(clocks(60, 0));
    world.handle(Event::Tick, clocks(60, 0));
    assert_eq!(world.kid(), Err(NoSigner::NotRead));
    world.secret(&one, clocks(61, 1));
    assert_eq!(world.kid().as_deref(), Ok(kid(&one)));
    assert!(world.keys.jwt.contains_key(kid(&one)) && world.keys.x509.contains_key(id(&one)));
}

#[test]
fn another_issuer_is_published_under_the_same_sequence() {
    let (mut world, one) = (World::new(), ca());
    world.secret(&one, clocks(0, 0));
    let moved = crate::IssuerUrl::parse("https://elsewhere.example", false).expect("issuer");
    let state = world.state.clone().expect("stored");
    let policy = RingPolicy {
        issuer: Some(moved),
        ..policy()
    };
    let mut again = World::with(KeyRing::restore(policy, state, &world.keys, clocks(1, 1)).expect("restored"));
    again.keys = world.keys;
    again.secret(&one, clocks(1, 1));
    assert_eq!((again.writes, again.sequence()), (1, world.ring.state().sequence));
    assert!(again.published.expect("published").get("/keys").is_some());
}

#[derive(Debug, Clone)]
enum Step {
    Secret(usize),
    Bad,
    Revoke(usize),
    Pass(u64),
    WallJumps(i64),
    ApiServer(bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..4).prop_map(Step::Secret),
        1 => Just(Step::Bad),
        1 => (0usize..4).prop_map(Step::Revoke),
        3 => (1u64..20_000).prop_map(Step::Pass),
        1 => (-40_000i64..40_000).prop_map(Step::WallJumps),
        1 => any::<bool>().prop_map(Step::ApiServer),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]
    /// The harness itself checks that nothing signs or is published before it is stored.
    #[test]
    fn whatever_happens_the_ring_keeps_its_promises(steps in proptest::collection::vec(step(), 1..40)) {
        let all: Vec<_> = (0..4).map(|_| ca()).collect();
        let (mut world, mut wall, mut monotonic) = (World::new(), 0i64, 0u64);
        let (mut revoked, mut before) = (BTreeSet::new(), None::<(u64, RingState)>);
        for step in steps {
            let now = clocks(wall, monotonic);
            match step {
                Step::Secret(which) => world.secret(&all[which], now),
                Step::Bad => world.bad_secret(AuthorityError::Mismatch, now),
                Step::Revoke(which) => {
                    let ids: BTreeSet<_> = [kid(&all[which]).to_owned()].into();
                    revoked.extend(ids.clone());
                    world.handle(Event::Revoked(ids), now);
                }
                Step::Pass(seconds) => {
                    wall += i64::try_from(seconds).expect("small");
                    monotonic += seconds;
                    world.handle(Event::Tick, clocks(wall, monotonic));
                }
                Step::WallJumps(seconds) => wall = (wall + seconds).clamp(-DAY / 2, 20 * DAY),
                Step::ApiServer(up) => {
                    world.api_server = up;
                    world.handle(Event::Tick, now);
                }
                Step::Restart if world.state.is_some() && world.api_server => {
                    // Times in the future are refused: the wall clock is where it was or later.
                    let state = world.ring.state();
                    let latest = state.jwt.iter().map(latest).chain(state.x509.iter().map(latest)).max();
                    wall = wall.max(latest.unwrap_or(wall));
                    monotonic = 0;
                    let up = world.api_server;
                    world = world.restarted(clocks(wall, monotonic));
                    world.api_server = up;
                    world.handle(Event::Revoked(revoked.clone()), clocks(wall, monotonic));
                }
                Step::Restart => {}
            }
            let state = world.ring.state();
            for entries in [state.jwt.iter().map(|e| e.state).collect::<Vec<_>>(), state.x509.iter().map(|e| e.state).collect()] {
                prop_assert!(entries.len() <= MAX_KEYS_PER_USE);
                prop_assert!(entries.iter().filter(|state| **state == KeyState::Signing).count() <= 1);
            }
            if world.api_server {
                prop_assert!(!state.jwt.iter().any(|entry| revoked.contains(&entry.id)));
            }
            if let Some((sequence, previous)) = &before {
                let content = |state: &RingState| {
                    (state.jwt.iter().map(|entry| entry.id.clone()).collect::<Vec<_>>(), state.anchors(false))
                };
                prop_assert_eq!(state.sequence == *sequence, content(state) == content(previous));
                prop_assert!(state.sequence >= *sequence);
            }
            if state.sequence != 0 {
                before = Some((state.sequence, state.clone()));
            }
        }
    }
}

fn latest<M>(entry: &Entry<M>) -> i64 {
    let times = [Some(entry.published_at), entry.signing_at, entry.retired_at];
    times
        .into_iter()
        .flatten()
        .map(|time| time.as_second() - NOW)
        .max()
        .unwrap_or_default()
}
