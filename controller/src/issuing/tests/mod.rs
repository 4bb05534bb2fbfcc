//! The issuing task against an API server in memory: order of writes, failures, conflicts, crashes, leadership, clocks.

mod rig;

use std::time::Duration;

use rig::{OVERLAP, Request, Rig, authority, kid_of};

use super::{IoError, SecretData, Which};
use crate::runtime::lease::LeaderState;

const SECOND: Duration = Duration::from_secs(1);

fn forbidden(which: Which) -> IoError {
    IoError::Refused {
        name: which.name(),
        code: 403,
        message: "forbidden".to_owned(),
    }
}

fn unreachable(which: Which) -> IoError {
    IoError::Unreachable {
        name: which.name(),
        message: "broken pipe".to_owned(),
    }
}

/// A rig whose first key signs.
async fn signing() -> (Rig, String) {
    let mut rig = Rig::new();
    let first = authority();
    rig.read(Ok(first.clone()), &[]).await;
    rig.settle().await;
    let kid = kid_of(&first);
    assert_eq!(rig.kid().as_ref(), Some(&kid));
    rig.server.take_requests();
    rig.take_news();
    (rig, kid)
}

#[tokio::test(start_paused = true)]
async fn the_first_key_is_stored_before_it_signs_and_signs_at_once() {
    let mut rig = Rig::new();
    let first = authority();
    rig.read(Ok(first.clone()), &[]).await;
    rig.settle().await;
    let writes: Vec<_> = rig
        .server
        .take_requests()
        .into_iter()
        .filter(|r| matches!(r, Request::Put(_)))
        .collect();
    assert_eq!(
        writes,
        [Request::Put(Which::Ring), Request::Put(Which::State)],
        "the keys first"
    );
    assert_eq!(rig.kid(), Some(kid_of(&first)));
    assert!(rig.publishes(&kid_of(&first)));
    assert_eq!(rig.server.state().unwrap().ring.jwt.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_published_for_its_overlap_and_the_old_private_key_is_wiped_when_it_retires() {
    let (mut rig, first) = signing().await;
    let second = authority();
    rig.read(Ok(second.clone()), &[]).await;
    rig.settle().await;
    assert!(rig.publishes(&kid_of(&second)));
    assert_eq!(rig.kid().as_ref(), Some(&first));
    let name = |kid: &str| format!("jwt.{kid}.pem");
    assert!(rig.server.data(Which::Ring).contains_key(&name(&first)));
    rig.pass(4 * Duration::from_mins(1) + SECOND).await;
    rig.server.take_requests();
    rig.pass(55 * SECOND).await;
    assert_eq!(rig.kid().as_ref(), Some(&first));
    rig.pass(10 * SECOND).await;
    assert_eq!(rig.kid(), Some(kid_of(&second)));
    let keys = rig.server.data(Which::Ring);
    assert!(keys.contains_key(&name(&kid_of(&second))) && !keys.contains_key(&name(&first)));
    let requests = rig.server.take_requests();
    let state = requests.iter().position(|r| *r == Request::Put(Which::State)).unwrap();
    let wiped = requests.iter().position(|r| *r == Request::Put(Which::Ring)).unwrap();
    assert!(
        state < wiped,
        "wiped before it was stored that another key signs: {requests:?}"
    );
    assert_eq!(
        requests[0],
        Request::Get(Which::State),
        "the API server's clock is looked at first"
    );
}

#[tokio::test(start_paused = true)]
async fn the_stored_ring_is_read_before_the_secret() {
    let (rig, first) = signing().await;
    let second = authority();
    let mut rig = rig.restart();
    rig.server.set_down(true);
    rig.read(Ok(second.clone()), &[]).await;
    rig.pass(60 * SECOND).await;
    assert_eq!(rig.kid(), None, "the ring is not known");
    assert_eq!(rig.documents(), None);
    rig.server.set_down(false);
    rig.pass(31 * SECOND).await;
    assert_eq!(
        rig.kid().as_ref(),
        Some(&first),
        "the Secret was rotated while nobody ran"
    );
    assert!(rig.publishes(&kid_of(&second)));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_told_once_and_repeated_ever_more_slowly() {
    let (mut rig, first) = signing().await;
    rig.server
        .fail(Request::Put(Which::Ring), (0..1_000).map(|_| forbidden(Which::Ring)));
    let second = authority();
    rig.read(Ok(second.clone()), &[]).await;
    rig.pass(120 * SECOND).await;
    assert!(!rig.publishes(&kid_of(&second)), "published without being stored");
    assert_eq!(rig.kid().as_ref(), Some(&first));
    let tries = rig
        .server
        .take_requests()
        .iter()
        .filter(|r| **r == Request::Put(Which::Ring))
        .count();
    assert!((4..=12).contains(&tries), "{tries} writes in two minutes");
    assert_eq!(rig.take_news(), ["KeyStoreFailed"]);
    let metrics = rig.metrics.encode().unwrap();
    assert!(
        metrics.contains("mintmark_key_store_failures_total{operation=\"write\",reason=\"refused\"}"),
        "{metrics}"
    );
    rig.server.lock().clear_failures();
    rig.pass(31 * SECOND).await;
    assert!(rig.publishes(&kid_of(&second)));
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_the_writes_loses_no_signing_key() {
    for (broken, count) in [(Which::Ring, 1), (Which::State, 1)] {
        let (rig, first) = signing().await;
        let second = authority();
        rig.server
            .fail(Request::Put(broken), (0..count).map(|_| unreachable(broken)));
        rig.read(Ok(second.clone()), &[]).await;
        tokio::task::yield_now().await;
        let mut rig = rig.restart();
        rig.read(Ok(second.clone()), &[]).await;
        rig.pass(5 * SECOND).await;
        assert_eq!(rig.kid().as_ref(), Some(&first), "{broken:?}");
        assert!(rig.publishes(&kid_of(&second)));
        rig.pass(OVERLAP).await;
        assert_eq!(rig.kid(), Some(kid_of(&second)), "{broken:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_wrote_is_overwritten_with_a_sequence_above() {
    let (mut rig, first) = signing().await;
    let (old_state, old_keys) = (rig.server.data(Which::State), rig.server.data(Which::Ring));
    let second = authority();
    rig.read(Ok(second.clone()), &[]).await;
    rig.settle().await;
    let sequence = rig.server.state().unwrap().ring.sequence;
    rig.take_news();
    rig.server.set(Which::State, Some(old_state));
    rig.server.set(Which::Ring, Some(old_keys));
    rig.pass(20 * SECOND).await;
    let restored = rig.server.state().unwrap().ring;
    assert_eq!(restored.jwt.len(), 2, "the newer key is gone");
    assert!(restored.sequence >= sequence);
    assert!(rig.publishes(&kid_of(&second)) && rig.kid().as_ref() == Some(&first));
    assert!(rig.take_news().contains(&"StateOverwritten"));
    rig.server.set(
        Which::State,
        Some(SecretData::from([("state.json".to_owned(), b"{".to_vec().into())])),
    );
    rig.pass(20 * SECOND).await;
    assert_eq!(rig.server.state().unwrap().ring.jwt.len(), 2);
    assert!(rig.take_news().contains(&"StateRefused"));
    assert!(
        rig.metrics
            .encode()
            .unwrap()
            .contains("mintmark_key_store_replaced_total{what=\"refused\"} 1")
    );
    rig.server.set(Which::Ring, Some(SecretData::new()));
    rig.pass(20 * SECOND).await;
    assert_eq!(rig.server.data(Which::Ring).len(), 4, "two keys for two uses each");
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_gone_is_written_again_the_moment_it_can_be() {
    let (mut rig, first) = signing().await;
    let sequence = rig.server.state().unwrap().ring.sequence;
    rig.server.set(Which::State, None);
    rig.pass(100 * SECOND).await;
    assert!(
        rig.publishes(&first) && rig.kid().as_ref() == Some(&first),
        "goes on from memory"
    );
    let missing = rig
        .take_news()
        .iter()
        .filter(|reason| **reason == "KeyStoreFailed")
        .count();
    assert_eq!(missing, 1);
    rig.server.set(Which::State, Some(SecretData::new()));
    rig.settle().await;
    rig.settle().await;
    assert_eq!(rig.server.state().unwrap().ring.sequence, sequence, "without waiting");
    let mut rig = {
        rig.server.set(Which::State, None);
        rig.restart()
    };
    rig.read(Ok(authority()), &[]).await;
    rig.pass(100 * SECOND).await;
    assert!(rig.documents().is_none() && rig.kid().is_none());
    rig.server.set(Which::State, Some(SecretData::new()));
    rig.pass(SECOND).await;
    assert!(rig.documents().is_some() && rig.kid().is_some());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_lead_follows_and_writes_nothing() {
    let (rig, first) = signing().await;
    let leadership = crate::runtime::lease::Leadership::always();
    leadership.become_state(LeaderState::Standby);
    let second = authority();
    let (state, keys) = (rig.server.data(Which::State), rig.server.data(Which::Ring));
    let mut rig = rig.restart_as(leadership);
    rig.read(Ok(second.clone()), &[]).await;
    rig.pass(60 * SECOND).await;
    assert_eq!(rig.kid().as_ref(), Some(&first), "follows what is stored");
    let requests = rig.server.take_requests();
    assert!(!requests.iter().any(|r| matches!(r, Request::Put(_))), "{requests:?}");
    rig.lead(LeaderState::Leading);
    rig.settle().await;
    assert!(rig.publishes(&kid_of(&second)), "leads and writes");
    rig.lead(LeaderState::Detached);
    rig.settle().await;
    // The former state, as another leader would have it.
    rig.server.take_requests();
    rig.server.set(Which::Ring, Some(keys));
    rig.server.set(Which::State, Some(state));
    rig.pass(2 * OVERLAP).await;
    assert!(rig.publishes(&kid_of(&second)), "older than what is known here");
    let requests = rig.server.take_requests();
    assert!(!requests.iter().any(|r| matches!(r, Request::Put(_))), "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_stops_transitions_until_it_is_right() {
    let (mut rig, first) = signing().await;
    let second = authority();
    rig.read(Ok(second.clone()), &[]).await;
    rig.settle().await;
    rig.server.set_ahead(3_600);
    rig.pass(OVERLAP + 60 * SECOND).await;
    assert_eq!(rig.kid().as_ref(), Some(&first));
    assert!(rig.take_news().contains(&"ClockSkew"));
    assert!(
        rig.metrics
            .encode()
            .unwrap()
            .contains("mintmark_clock_skew_seconds -3600")
    );
    let requests = rig.server.take_requests().len();
    assert!(requests < 40, "{requests} requests in six minutes");
    rig.server.set_ahead(0);
    rig.pass(120 * SECOND).await;
    assert_eq!(rig.kid(), Some(kid_of(&second)));
}

#[tokio::test(start_paused = true)]
async fn a_revocation_stops_the_key_before_it_is_stored_and_is_handed_on() {
    let (mut rig, first) = signing().await;
    rig.server.set_down(true);
    let bad = mintmark_issuer::AuthorityError::Absent;
    let value = format!("{first}, nonsense");
    rig.read(Err(bad), &[("mintmark.dev/revoke", &value)]).await;
    rig.settle().await;
    assert_eq!(rig.kid(), None);
    assert!(rig.issuing.revoked.borrow().contains(&first));
    assert!(rig.take_news().contains(&"AnnotationInvalid"));
    rig.server.set_down(false);
    rig.pass(31 * SECOND).await;
    assert!(rig.server.state().unwrap().ring.revoked.contains(&first));
    assert!(!rig.publishes(&first));
    let mut rig = rig.restart();
    rig.settle().await;
    assert!(rig.issuing.revoked.borrow().contains(&first), "without the annotation");
}
