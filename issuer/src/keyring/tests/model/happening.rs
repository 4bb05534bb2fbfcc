//! What may happen to two processes and their store, and the few keys that it happens with.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::super::*;
use crate::test_support::load;

const KEYS: usize = 7;

/// Made once: making keys is slow. Two CAs share a root, two end soon, one begins later.
pub(super) static POOL: LazyLock<Vec<Authority>> = LazyLock::new(|| {
    let root = TestCa::root(|params| {
        valid(params, -DAY, 300 * DAY);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let rooted = || {
        let ca = root.issue(|params| valid(params, -DAY, 30 * DAY));
        load(&ca.secret_under(&[&root])).expect("authority")
    };
    let dated = |from, until| TestCa::root(|params| valid(params, from, until)).load();
    vec![
        rooted(),
        rooted(),
        ca(),
        ca(),
        dated(-DAY, 9000),
        dated(-DAY, 30_000),
        dated(290, 30 * DAY),
    ]
});

#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Stored,
    Failed,
    /// Stored, but the answer got lost.
    Lost,
    CrashAfterKeys,
    CrashAfterState,
}

#[derive(Debug, Clone)]
pub(super) enum Happening {
    Secret(usize),
    Bad,
    Revoke(usize),
    Activate(usize),
    Pass(i64),
    WallJumps(i64),
    Skew(bool),
    Next(Outcome),
    Restart(usize),
    Lead(usize),
    Detach,
}

pub(super) fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let outcome = prop_oneof![
        Just(Outcome::Failed),
        Just(Outcome::Lost),
        Just(Outcome::CrashAfterKeys),
        Just(Outcome::CrashAfterState)
    ];
    prop_oneof![
        6 => (0..KEYS).prop_map(Secret),
        1 => Just(Bad),
        1 => (0..KEYS).prop_map(Revoke),
        1 => (0..KEYS).prop_map(Activate),
        6 => prop_oneof![1i64..400, 200i64..800, 3000i64..12_000].prop_map(Pass),
        1 => (-9000i64..9000).prop_map(WallJumps),
        1 => any::<bool>().prop_map(Skew),
        3 => outcome.prop_map(Next),
        1 => (0usize..2).prop_map(Restart),
        2 => (0usize..2).prop_map(Lead),
        1 => Just(Detach),
    ]
}
