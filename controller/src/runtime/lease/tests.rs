//! Candidates over one lease in memory, with the times as arguments: who may write when, and what becomes of a term that
//! cannot be renewed.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use rstest::rstest;

use super::{
    LeaseError, LeaseSettings,
    election::{Election, Failure, Step},
    leadership::LeaderState::{self, Detached, Leading, Standby},
};

const LEASE: Duration = Duration::from_secs(35);
const RENEW: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

fn settings(
    identity: &str,
    lease_duration: Duration,
    renew_deadline: Duration,
    retry_period: Duration,
) -> LeaseSettings {
    LeaseSettings {
        namespace: "ns".to_owned(),
        name: "lease".to_owned(),
        identity: identity.to_owned(),
        lease_duration,
        renew_deadline,
        retry_period,
        release_on_cancel: true,
    }
}

/// One lease, one clock, and what stands in the lease.
struct Scene {
    start: Instant,
    wall: Timestamp,
    lease: Option<LeaseSpec>,
}

impl Scene {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            wall: Timestamp::from_second(1_800_000_000).unwrap(),
            lease: None,
        }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn candidate(name: &str) -> Election {
        Election::new(&settings(name, LEASE, RENEW, 5 * SECOND))
    }

    /// Reads the lease and writes it if that may be; each write has another wall time.
    fn attempt(&mut self, candidate: &mut Election, seconds: u64) -> LeaderState {
        self.wall += SECOND;
        let step = candidate.read(self.lease.clone(), self.at(seconds), self.wall);
        if let Step::Write(spec) = step {
            self.acknowledge(candidate, spec, seconds);
        }
        candidate.term().state
    }

    fn renew(&mut self, candidate: &mut Election, seconds: u64) {
        self.wall += SECOND;
        let spec = candidate.renewal(self.wall).expect("the lease is ours");
        self.acknowledge(candidate, spec, seconds);
    }

    fn acknowledge(&mut self, candidate: &mut Election, spec: LeaseSpec, seconds: u64) {
        self.lease = Some(spec.clone());
        candidate.written(spec, self.at(seconds));
    }

    fn holder(&self) -> Option<&str> {
        self.lease.as_ref()?.holder_identity.as_deref()
    }
}

#[test]
fn the_first_creates_and_the_second_waits_for_the_whole_duration_unchanged() {
    let (mut scene, mut a, mut b) = (Scene::new(), Scene::candidate("a"), Scene::candidate("b"));
    assert_eq!(scene.attempt(&mut a, 0), Leading);
    assert_eq!(scene.attempt(&mut b, 0), Standby);
    scene.renew(&mut a, 10);
    assert_eq!(
        scene.attempt(&mut b, 34),
        Standby,
        "it sees the renewal, which begins the wait anew"
    );
    assert_eq!(scene.attempt(&mut b, 68), Standby);
    assert_eq!(b.expiry(), Some(scene.at(34 + 35)));
    assert_eq!(scene.attempt(&mut b, 69), Leading);
    assert_eq!(scene.lease.as_ref().unwrap().lease_transitions, Some(1));
    assert_eq!(scene.attempt(&mut a, 69), Standby, "that moment");
}

#[rstest]
#[case(-86_400)]
#[case(86_400)]
fn wall_clocks_of_others_decide_nothing(#[case] off_by: i64) {
    let (mut scene, mut a, mut b) = (Scene::new(), Scene::candidate("a"), Scene::candidate("b"));
    scene.wall = Timestamp::from_second(scene.wall.as_second() + off_by).unwrap();
    scene.attempt(&mut a, 0);
    scene.wall = Timestamp::from_second(1_800_000_000).unwrap();
    assert_eq!(scene.attempt(&mut b, 1), Standby);
    assert_eq!(scene.attempt(&mut b, 35), Standby);
    assert_eq!(scene.attempt(&mut b, 36), Leading);
}

#[test]
fn a_released_lease_is_free_at_once() {
    let (mut scene, mut a, mut b) = (Scene::new(), Scene::candidate("a"), Scene::candidate("b"));
    scene.attempt(&mut a, 0);
    assert_eq!(scene.attempt(&mut b, 1), Standby);
    scene.lease = a.release(scene.wall);
    assert_eq!(a.term().state, Standby);
    assert_eq!(scene.holder(), Some(""));
    assert_eq!(scene.lease.as_ref().unwrap().lease_duration_seconds, Some(1));
    assert_eq!(scene.attempt(&mut b, 1), Leading);
    assert!(a.release(scene.wall).is_none(), "nothing to give back twice");
}

#[test]
fn a_renewal_keeps_what_the_lease_says_of_its_beginning() {
    let (mut scene, mut a) = (Scene::new(), Scene::candidate("a"));
    scene.attempt(&mut a, 0);
    let before = scene.lease.clone().unwrap();
    scene.renew(&mut a, 5);
    let after = scene.lease.clone().unwrap();
    assert_eq!(after.acquire_time, before.acquire_time);
    assert_eq!(after.lease_transitions, before.lease_transitions);
    assert_ne!(after.renew_time, before.renew_time);
    scene.attempt(&mut a, 6);
    assert_eq!(
        scene.lease.unwrap().acquire_time,
        before.acquire_time,
        "nor does a second look"
    );
}

#[test]
fn a_term_ends_detached_for_want_of_an_api_server_and_standby_when_refused() {
    for (failure, end) in [(Failure::Unreachable, Detached), (Failure::Refused, Standby)] {
        let (mut scene, mut a) = (Scene::new(), Scene::candidate("a"));
        scene.attempt(&mut a, 0);
        a.failed(failure, scene.at(5));
        assert_eq!(a.term().state, Leading, "{failure:?} before the deadline");
        a.judge(scene.at(29));
        assert_eq!(a.term().state, Leading);
        assert_eq!(a.deadline(), Some(scene.at(30)));
        a.judge(scene.at(30));
        assert_eq!(a.term().state, end, "{failure:?}");
    }
}

#[test]
fn a_stopped_process_does_not_take_itself_for_detached() {
    let (mut scene, mut a, mut b) = (Scene::new(), Scene::candidate("a"), Scene::candidate("b"));
    scene.attempt(&mut a, 0);
    scene.attempt(&mut b, 1);
    a.judge(scene.at(60));
    assert_eq!(
        a.term().state,
        Leading,
        "no attempt has failed: what is over is the term alone"
    );
    assert!(a.deadline() < Some(scene.at(60)));
    assert_eq!(scene.attempt(&mut b, 60), Leading);
    assert_eq!(scene.attempt(&mut a, 60), Standby);
}

#[test]
fn detached_leads_again_or_follows() {
    let (mut scene, mut a, mut b) = (Scene::new(), Scene::candidate("a"), Scene::candidate("b"));
    scene.attempt(&mut a, 0);
    scene.attempt(&mut b, 0);
    a.failed(Failure::Unreachable, scene.at(30));
    assert_eq!(a.term().state, Detached);
    scene.renew(&mut a, 40);
    assert_eq!(a.term().state, Leading);
    a.failed(Failure::Unreachable, scene.at(70));
    assert_eq!(a.term().state, Detached);
    scene.attempt(&mut b, 70);
    assert_eq!(
        scene.attempt(&mut b, 105),
        Leading,
        "only this one reaches the API server"
    );
    assert_eq!(scene.attempt(&mut a, 106), Standby);
    assert!(a.renewal(scene.wall).is_none());
}

#[test]
fn after_an_outage_the_holder_has_the_first_word() {
    let (mut scene, mut a, mut b) = (Scene::new(), Scene::candidate("a"), Scene::candidate("b"));
    scene.attempt(&mut a, 0);
    scene.attempt(&mut b, 0);
    a.failed(Failure::Unreachable, scene.at(30));
    b.failed(Failure::Unreachable, scene.at(30));
    assert_eq!(
        scene.attempt(&mut b, 300),
        Standby,
        "unchanged for long, and still worked under"
    );
    scene.renew(&mut a, 305);
    assert_eq!(scene.attempt(&mut b, 310), Standby);
    assert_eq!(b.expiry(), Some(scene.at(345)));
    b.failed(Failure::Unreachable, scene.at(346));
    scene.attempt(&mut b, 400);
    assert_eq!(
        scene.attempt(&mut b, 410),
        Leading,
        "it was not renewed though it could have been"
    );
}

#[test]
fn an_api_server_that_is_back_may_refuse_for_a_while() {
    let (mut scene, mut a) = (Scene::new(), Scene::candidate("a"));
    scene.attempt(&mut a, 0);
    a.failed(Failure::Unreachable, scene.at(30));
    a.failed(Failure::Refused, scene.at(40));
    a.failed(Failure::Refused, scene.at(69));
    assert_eq!(a.term().state, Detached);
    a.failed(Failure::Refused, scene.at(70));
    assert_eq!(a.term().state, Standby);
}

#[test]
fn a_lease_that_was_deleted_is_made_again_by_its_holder() {
    let (mut scene, mut a) = (Scene::new(), Scene::candidate("a"));
    scene.attempt(&mut a, 0);
    scene.lease = None;
    assert_eq!(scene.attempt(&mut a, 5), Leading);
    assert_eq!(scene.holder(), Some("a"));
}

#[test]
fn an_answer_that_got_lost_does_not_lock_us_out() {
    let (mut scene, mut a) = (Scene::new(), Scene::candidate("a"));
    let Step::Write(spec) = a.read(None, scene.at(0), scene.wall) else {
        panic!("a missing lease is free")
    };
    scene.lease = Some(spec);
    a.failed(Failure::Unreachable, scene.at(10));
    assert_eq!(a.term().state, Standby);
    assert_eq!(scene.attempt(&mut a, 15), Leading);
    assert_eq!(scene.lease.unwrap().lease_transitions, Some(0));
}

#[rstest]
#[case(35, 30, 5, None)]
#[case(30, 30, 5, Some(LeaseError::LeaseDuration(RENEW)))]
#[case(35, 6, 5, Some(LeaseError::RenewDeadline(5 * SECOND)))]
#[case(35, 30, 0, Some(LeaseError::RetryPeriod))]
fn durations_must_leave_room(
    #[case] lease: u64,
    #[case] renew: u64,
    #[case] retry: u64,
    #[case] error: Option<LeaseError>,
) {
    let seconds = Duration::from_secs;
    let settings = settings("me", seconds(lease), seconds(renew), seconds(retry));
    assert_eq!(settings.check().err(), error);
}

/// Two candidates with any delays between their attempts never lead both while both are answered: each renewal is sent
/// before it is seen, and a term is shorter than the wait.
#[test]
fn never_two_at_a_time() {
    proptest::proptest!(|(steps in proptest::collection::vec((0_u8..2, 0_u64..40), 1..200))| {
        let mut scene = Scene::new();
        let mut both = [Scene::candidate("a"), Scene::candidate("b")];
        let mut seconds = 0;
        for (who, wait) in steps {
            seconds += wait;
            scene.attempt(&mut both[usize::from(who)], seconds);
            let now = scene.at(seconds);
            let leading = both.iter().filter(|candidate| candidate.deadline().is_some_and(|deadline| now < deadline));
            proptest::prop_assert!(leading.count() <= 1);
        }
    });
}
