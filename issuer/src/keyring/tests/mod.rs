//! The ring as its caller drives it: a small harness performs the actions, and the tests look at what was stored,
//! published and signed with, in this order.

mod stored;
mod transitions;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::authority::{Authority, AuthorityError};
use crate::documents::Documents;
use crate::test_support::{at, domain, issuer};

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
pub(super) fn clocks(wall: i64, monotonic: u64) -> Clocks {
    Clocks {
        wall: at(wall),
        monotonic: Duration::from_secs(monotonic),
    }
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
    pub(super) fn new() -> Self {
        Self::with(KeyRing::new(policy()))
    }

    pub(super) fn with(ring: KeyRing) -> Self {
        let published = ring.documents().cloned();
        Self {
            ring,
            state: None,
            keys: StoredKeys::default(),
            published,
            signing: None,
            notices: Vec::new(),
            writes: 0,
            api_server: true,
        }
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

    /// No key signs that is not stored, with its private key, and published.
    fn check_signing(&self, set: &SigningSet) {
        if let Ok(jwt) = &set.jwt {
            let bundle = &self.published.as_ref().expect("published").bundle_json().body;
            assert!(
                String::from_utf8_lossy(bundle).contains(jwt.kid()),
                "{} is not published",
                jwt.kid()
            );
            assert!(self.keys.jwt.contains_key(jwt.kid()), "{} is not stored", jwt.kid());
        }
        if let Ok(x509) = &set.x509 {
            assert!(self.keys.x509.contains_key(x509.id()), "{} is not stored", x509.id());
        }
    }

    pub(super) fn secret(&mut self, authority: &Authority, clocks: Clocks) {
        let outcome = Ok(Arc::new(authority.clone()));
        self.handle(
            Event::Secret {
                uses: KeyUses::Both,
                outcome,
            },
            clocks,
        );
    }

    pub(super) fn bad_secret(&mut self, error: AuthorityError, clocks: Clocks) {
        self.handle(
            Event::Secret {
                uses: KeyUses::Both,
                outcome: Err(error),
            },
            clocks,
        );
    }

    pub(super) fn kid(&self) -> Result<String, NoSigner> {
        let set = self.signing.as_ref().expect("something was said about signing");
        set.jwt.as_ref().map(|jwt| jwt.kid().to_owned()).map_err(Clone::clone)
    }

    pub(super) fn authority_id(&self) -> Result<String, NoSigner> {
        let set = self.signing.as_ref().expect("something was said about signing");
        set.x509.as_ref().map(|x509| x509.id().to_owned()).map_err(Clone::clone)
    }

    pub(super) fn states(&self) -> Vec<(&str, KeyState)> {
        self.ring
            .state()
            .jwt
            .iter()
            .map(|entry| (entry.id.as_str(), entry.state))
            .collect()
    }

    pub(super) fn sequence(&self) -> u64 {
        self.ring.state().sequence
    }

    /// The same world after a restart: another process reads what is stored.
    pub(super) fn restarted(&self, clocks: Clocks) -> Self {
        let data = self.state.as_ref().expect("stored").to_data().expect("data");
        let data = data.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let state = StoredState::from_data(data, clocks.wall)
            .expect("accepted")
            .expect("not empty");
        let keys = self.keys.to_data();
        let keys = keys.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let keys = StoredKeys::from_data(keys).expect("keys");
        let ring = KeyRing::restore(policy(), state.clone(), &keys, clocks).expect("restored");
        let mut world = Self::with(ring);
        (world.state, world.keys) = (Some(state), keys);
        world
    }
}

pub(super) fn kid(authority: &Authority) -> &str {
    authority.jwt().expect("jwt").kid()
}

pub(super) fn id(authority: &Authority) -> &str {
    authority.x509().expect("x509").id()
}
