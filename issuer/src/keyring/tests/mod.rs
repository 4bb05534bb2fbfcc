//! The ring as its caller drives it: a small harness performs the actions, and the tests look at what was stored,
//! published and signed with, in this order.

mod due;
mod found;
mod model;
mod revocation;
mod rollback;
mod secrets;
mod staging;
mod stored;
mod x509;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::authority::{Authority, AuthorityError};
use crate::documents::Documents;
use crate::test_support::{DAY, TestCa, at, domain, issuer, valid};

/// 300 s of life, 60 s of leeway, 300 s of overlap.
pub(super) const JWT_RETENTION: i64 = 660;
pub(super) const JWT_OVERLAP: i64 = 300;
pub(super) const X509_OVERLAP: i64 = 7200;
pub(super) const X509_RETENTION: i64 = 3600 + 60 + 7200;

pub(super) fn policy() -> RingPolicy {
    RingPolicy {
        trust_domain: domain(),
        issuer: Some(issuer()),
        jwt_ttl: Duration::from_mins(5),
        x509_ttl: Duration::from_hours(1),
        jwt_overlap: Duration::from_mins(5),
        x509_overlap: Duration::from_hours(2),
        bundle_root: false,
    }
}

/// Both clocks, in seconds from the tests' moment.
pub(super) fn clocks(wall: i64, monotonic: i64) -> Clocks {
    Clocks {
        wall: at(wall),
        monotonic: Duration::from_secs(u64::try_from(monotonic).expect("monotonic")),
    }
}

/// Both clocks at the same number of seconds.
pub(super) fn both(seconds: i64) -> Clocks {
    clocks(seconds, seconds)
}

pub(super) fn ca() -> Authority {
    TestCa::root(|params| valid(params, -DAY, 30 * DAY)).load()
}

/// A ring with the world around it: what is stored, published and signed with.
pub(super) struct World {
    pub(super) ring: KeyRing,
    pub(super) state: Option<StoredState>,
    pub(super) keys: StoredKeys,
    pub(super) published: Option<Arc<Documents>>,
    pub(super) signing: Option<Arc<SigningSet>>,
    pub(super) notices: Vec<Notice>,
    pub(super) writes: usize,
    /// Whether writes succeed.
    pub(super) api_server: bool,
}

impl World {
    /// The only process, with nothing stored.
    pub(super) fn new() -> Self {
        Self::with(policy())
    }

    pub(super) fn with(policy: RingPolicy) -> Self {
        let mut world = Self::follower(policy, None, StoredKeys::default(), both(0));
        world.handle(Event::Leading(true), both(0));
        world
    }

    /// A process that has read what is stored and does not lead.
    pub(super) fn follower(policy: RingPolicy, state: Option<StoredState>, keys: StoredKeys, clocks: Clocks) -> Self {
        let mut world = Self {
            ring: KeyRing::new(policy),
            state,
            keys,
            published: None,
            signing: None,
            notices: Vec::new(),
            writes: 0,
            api_server: true,
        };
        world.find(clocks);
        world
    }

    /// Handles an event and performs what follows from it, until nothing does.
    pub(super) fn handle(&mut self, event: Event, clocks: Clocks) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.ring.handle(event, clocks) {
                match action {
                    Action::Store(write) if self.api_server => {
                        self.writes += 1;
                        self.state = Some(write.state);
                        self.keys = write.keys;
                        events.push(Event::Stored { write: write.id });
                    }
                    Action::Store(write) => events.push(Event::StoreFailed { write: write.id }),
                    Action::Publish(documents) => {
                        let stored = self.state.as_ref().expect("nothing is published before it is stored");
                        assert_eq!(*documents, stored.documents, "exactly what is stored is published");
                        self.published = Some(documents);
                    }
                    Action::Sign(set) => {
                        self.check_signing(&set);
                        self.signing = Some(set);
                    }
                    Action::Notify(notice) => self.notices.push(notice),
                }
            }
        }
    }

    /// No key signs that is not published.
    fn check_signing(&self, set: &SigningSet) {
        if let Ok(jwt) = &set.jwt {
            assert!(self.publishes(jwt.kid()), "{} is not published", jwt.kid());
        }
    }

    pub(super) fn publishes(&self, kid: &str) -> bool {
        let bundle = self.published.as_ref().map(|published| &published.bundle_json().body);
        bundle.is_some_and(|bundle| String::from_utf8_lossy(bundle).contains(kid))
    }

    pub(super) fn secret(&mut self, authority: &Authority, clocks: Clocks) {
        let outcome = Ok(Arc::new(authority.clone()));
        let uses = KeyUses::Both;
        self.handle(Event::Secret { uses, outcome }, clocks);
    }

    pub(super) fn bad_secret(&mut self, error: AuthorityError, clocks: Clocks) {
        let (uses, outcome) = (KeyUses::Both, Err(error));
        self.handle(Event::Secret { uses, outcome }, clocks);
    }

    pub(super) fn tick(&mut self, clocks: Clocks) {
        self.handle(Event::Tick, clocks);
    }

    /// Reads what is stored, through its stored form.
    pub(super) fn find(&mut self, clocks: Clocks) {
        let state = self
            .state
            .as_ref()
            .map(|state| read(&state.to_data().expect("data"), clocks).expect("accepted"));
        let keys = self.keys.to_data();
        let keys = StoredKeys::from_data(keys.iter().map(|(name, value)| (name.as_str(), value.as_slice()))).0;
        let found = Found {
            state: Ok(state.flatten()),
            keys,
        };
        self.handle(Event::Found(Box::new(found)), clocks);
    }

    pub(super) fn find_refused(&mut self, refused: Refused, clocks: Clocks) {
        let found = Found {
            state: Err(refused),
            keys: self.keys.clone(),
        };
        self.handle(Event::Found(Box::new(found)), clocks);
    }

    pub(super) fn kid(&self) -> Result<String, NoSigner> {
        let set = self.signing.as_ref().expect("something was said about signing");
        set.jwt.as_ref().map(|jwt| jwt.kid().to_owned()).map_err(Clone::clone)
    }

    pub(super) fn authority_id(&self) -> Result<String, NoSigner> {
        let set = self.signing.as_ref().expect("something was said about signing");
        set.x509.as_ref().map(|x509| x509.id().to_owned()).map_err(Clone::clone)
    }

    /// The JWT keys and where they are in their life.
    pub(super) fn states(&self) -> Vec<(&str, KeyState)> {
        let entries = &self.ring.state().jwt;
        entries.iter().map(|entry| (entry.id.as_str(), entry.state)).collect()
    }

    /// The CAs and where they are in their life.
    pub(super) fn x509_states(&self) -> Vec<(&str, KeyState)> {
        let entries = &self.ring.state().x509;
        entries.iter().map(|entry| (entry.id.as_str(), entry.state)).collect()
    }

    pub(super) fn stored_jwt_keys(&self) -> Vec<&str> {
        self.keys.jwt.keys().map(String::as_str).collect()
    }

    pub(super) fn sequence(&self) -> u64 {
        self.ring.state().sequence
    }

    pub(super) fn reasons(&self) -> Vec<&'static str> {
        self.notices.iter().map(Notice::reason).collect()
    }

    pub(super) fn told(&self, reason: &str) -> usize {
        self.reasons().into_iter().filter(|told| *told == reason).count()
    }

    /// The same world after a restart: another process reads what is stored, and leads.
    pub(super) fn restarted(&self, clocks: Clocks) -> Self {
        let mut world = Self::follower(policy(), self.state.clone(), self.keys.clone(), clocks);
        world.handle(Event::Leading(true), clocks);
        world
    }
}

pub(super) fn read(
    data: &std::collections::BTreeMap<String, Vec<u8>>,
    clocks: Clocks,
) -> Result<Option<StoredState>, Refused> {
    let data = data.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    StoredState::read(data, clocks.wall)
}

pub(super) fn kid(authority: &Authority) -> &str {
    authority.jwt().expect("jwt").kid()
}

pub(super) fn id(authority: &Authority) -> &str {
    authority.x509().expect("x509").id()
}
