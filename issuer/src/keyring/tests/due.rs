//! The ring says itself when time will change something: whoever ticks only then sees every step at its moment.

use super::*;

/// How often somebody ticks who does not ask; every moment of the tests is a multiple of it.
const STEP: usize = 10;

/// Every step of some busy hours, as told, with its moment.
fn history(ticks: impl Fn(&World, i64) -> bool) -> Vec<(i64, Notice)> {
    static AUTHORITIES: std::sync::OnceLock<Vec<Authority>> = std::sync::OnceLock::new();
    let all = AUTHORITIES.get_or_init(|| {
        let root = TestCa::root(|params| {
            valid(params, -DAY, 300 * DAY);
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        });
        let ending = TestCa::root(|params| valid(params, -DAY, 5000)).load();
        let rooted = root.issue(|params| valid(params, -DAY, 30 * DAY));
        let rooted = crate::test_support::load(&rooted.secret_under(&[&root])).expect("authority");
        let starting = TestCa::root(|params| valid(params, 290, 30 * DAY)).load();
        vec![ending, rooted, ca(), starting]
    });
    let mut world = World::with(RingPolicy {
        bundle_root: true,
        ..policy()
    });
    let (mut history, mut told) = (Vec::new(), 0);
    for second in (0..30_000).step_by(STEP) {
        match second {
            0 => world.secret(&all[0], both(second)),
            100 | 9400 => world.secret(&all[1], both(second)),
            250 => world.secret(&all[3], both(second)),
            2800 => world.secret(&all[2], both(second)),
            9000 => world.api_server = false,
            9500 => world.api_server = true,
            _ if ticks(&world, second) => world.tick(both(second)),
            _ => {}
        }
        history.extend(world.notices[told..].iter().map(|notice| (second, notice.clone())));
        told = world.notices.len();
    }
    history
}

#[test]
fn ticking_only_when_due_misses_nothing() {
    let always = history(|_, _| true);
    // An alarm set ten seconds before would ring now.
    let by_alarm = history(|world, second| {
        let due = world.ring.next_due(both(second - 10));
        due.is_some_and(|due| due <= Duration::from_secs(10))
    });
    assert!(always.len() > 15, "{always:?}");
    assert_eq!(by_alarm, always);
}

#[test]
fn nothing_is_due_once_all_is_done() {
    let mut world = World::new();
    assert_eq!(world.ring.next_due(both(0)), None);
    world.secret(&ca(), both(0));
    assert_eq!(world.ring.next_due(both(0)), None);
    world.secret(&ca(), both(10));
    assert_eq!(world.ring.next_due(both(10)), Some(Duration::from_mins(5)));
    world.handle(Event::ClockSkew(true), both(20));
    world.tick(both(400));
    assert_eq!(world.told("KeyRetired"), 0);
    world.handle(Event::ClockSkew(false), both(400));
    assert_eq!(world.told("KeyRetired"), 1);
}
