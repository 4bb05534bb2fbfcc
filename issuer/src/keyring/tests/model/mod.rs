//! Two processes over one simulated store, under whatever may happen to them. The model keeps its own book in true elapsed
//! time: what was published since when, who signed last when; and every write and every signer is checked against it.

mod happening;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use self::happening::{Happening, Outcome, POOL, happening};
use super::*;

type Data = BTreeMap<String, Vec<u8>>;

struct Process {
    ring: KeyRing,
    started: i64,
    /// The version of the store that it has read or written.
    version: u64,
    signing: Option<Arc<SigningSet>>,
}

/// What the model knows of one key or root, in true time.
#[derive(Default)]
struct Book {
    published: BTreeMap<String, i64>,
    last_signed: BTreeMap<String, i64>,
    /// Every id that some stored state let sign.
    let_sign: BTreeSet<String>,
}

struct Sim {
    state: Option<Data>,
    keys: Data,
    version: u64,
    processes: [Process; 2],
    leader: Option<usize>,
    elapsed: i64,
    wall_ahead: i64,
    outcome: Outcome,
    secret: Option<Event>,
    revoked: BTreeSet<String>,
    activated: BTreeSet<String>,
    skew: bool,
    book: Book,
}

fn policy() -> RingPolicy {
    RingPolicy {
        bundle_root: true,
        ..super::policy()
    }
}

/// Reads with a clock far ahead: that a clock behind refuses the state is another rule.
fn read_state(data: &Data) -> StoredState {
    super::read(data, both(10_000 * DAY))
        .expect("what a ring writes is accepted")
        .expect("not empty")
}

fn read_keys(data: &Data) -> StoredKeys {
    let (keys, errors) = StoredKeys::from_data(data.iter().map(|(name, value)| (name.as_str(), value.as_slice())));
    assert!(errors.is_empty(), "{errors:?}");
    keys
}

impl Process {
    fn new(started: i64) -> Self {
        Self {
            ring: KeyRing::new(policy()),
            started,
            version: 0,
            signing: None,
        }
    }
}

impl Sim {
    fn new() -> Self {
        let mut sim = Self {
            state: None,
            keys: Data::new(),
            version: 1,
            processes: [Process::new(0), Process::new(0)],
            leader: None,
            elapsed: 0,
            wall_ahead: 0,
            outcome: Outcome::Stored,
            secret: None,
            revoked: BTreeSet::new(),
            activated: BTreeSet::new(),
            skew: false,
            book: Book::default(),
        };
        sim.find(0);
        sim.find(1);
        sim.lead(0);
        sim
    }

    fn clocks(&self, process: usize) -> Clocks {
        clocks(
            self.elapsed + self.wall_ahead,
            self.elapsed - self.processes[process].started,
        )
    }

    fn everybody(&mut self, event: &Event) {
        for process in 0..2 {
            self.handle(process, event.clone());
        }
    }

    fn find(&mut self, process: usize) {
        self.processes[process].version = self.version;
        let found = Found {
            state: Ok(self.state.as_ref().map(read_state)),
            keys: read_keys(&self.keys),
        };
        self.handle(process, Event::Found(Box::new(found)));
    }

    fn lead(&mut self, process: usize) {
        self.detach();
        self.find(process);
        self.leader = Some(process);
        self.handle(process, Event::Leading(true));
    }

    fn detach(&mut self) {
        if let Some(leader) = self.leader.take() {
            self.handle(leader, Event::Leading(false));
            self.find(leader);
        }
    }

    fn restart(&mut self, process: usize) {
        self.processes[process] = Process::new(self.elapsed);
        self.find(process);
        self.handle(process, Event::ClockSkew(self.skew));
        self.handle(process, Event::Revoked(self.revoked.clone()));
        self.handle(process, Event::Activated(self.activated.clone()));
        if self.leader == Some(process) {
            self.handle(process, Event::Leading(true));
        }
        if let Some(secret) = self.secret.clone() {
            self.handle(process, secret);
        }
    }

    fn handle(&mut self, process: usize, event: Event) {
        let clocks = self.clocks(process);
        for action in self.processes[process].ring.handle(event, clocks) {
            match action {
                Action::Store(write) => {
                    self.check_signers();
                    return self.store(process, &write);
                }
                Action::Sign(set) => self.processes[process].signing = Some(set),
                Action::Publish(_) | Action::Notify(_) => {}
            }
        }
        self.check_signers();
    }

    /// Performs a write as a store does: keys first, then the state, then without the keys that nobody needs.
    fn store(&mut self, process: usize, write: &StoreWrite) {
        assert_eq!(self.leader, Some(process), "only the leader writes");
        let outcome = std::mem::replace(&mut self.outcome, Outcome::Stored);
        let id = write.id;
        if matches!(outcome, Outcome::Failed) {
            return self.handle(process, Event::StoreFailed { write: id });
        }
        if self.processes[process].version != self.version {
            self.handle(process, Event::StoreFailed { write: id });
            return self.find(process);
        }
        let keys: Data = write
            .keys
            .to_data()
            .into_iter()
            .map(|(name, value)| (name, value.to_vec()))
            .collect();
        self.version += 1;
        self.keys.extend(keys.clone());
        if !matches!(outcome, Outcome::CrashAfterKeys) {
            self.check_write(write);
            self.state = Some(write.state.to_data().expect("data"));
            assert_eq!(read_state(self.state.as_ref().expect("written")), write.state);
        }
        if matches!(outcome, Outcome::Stored | Outcome::Lost) {
            self.keys = keys;
        }
        match outcome {
            Outcome::CrashAfterKeys | Outcome::CrashAfterState => self.restart(process),
            Outcome::Lost => {
                self.handle(process, Event::StoreFailed { write: id });
                self.find(process);
            }
            _ => {
                self.processes[process].version = self.version;
                self.handle(process, Event::Stored { write: id });
            }
        }
        self.find(1 - process);
    }

    /// What a state that is to be stored may say, compared with the one before it.
    fn check_write(&mut self, write: &StoreWrite) {
        let before = self.state.as_ref().map(read_state);
        let (next, now) = (&write.state, self.elapsed);
        let old = before.as_ref().map(|before| before.ring.clone()).unwrap_or_default();
        let keys: BTreeSet<_> = write.keys.jwt.keys().chain(write.keys.x509.keys()).cloned().collect();
        self.check_use(&old.jwt, &next.ring.jwt, &next.ring.revoked, &keys, 300, 360, |_, _| {
            false
        });
        let wall = self.elapsed + self.wall_ahead;
        let (book, activated) = (&self.book, &self.activated);
        let sooner = |id: &str, signer: &str| {
            let ca = |id: &str| {
                POOL.iter()
                    .map(|next| next.x509().expect("x509"))
                    .find(|next| next.id() == id)
            };
            let (next, signer) = (ca(id).expect("of the pool"), ca(signer).expect("of the pool"));
            let root = next.root().map(|root| crate::keyring::state::root_id(root));
            let since = root.and_then(|root| book.published.get(&root));
            activated.contains(id)
                || at(wall + 3600) >= signer.not_after()
                || since.is_some_and(|since| now - since >= X509_OVERLAP)
        };
        self.check_use(
            &old.x509,
            &next.ring.x509,
            &next.ring.revoked,
            &keys,
            X509_OVERLAP,
            3660,
            sooner,
        );
        assert!(old.revoked.is_subset(&next.ring.revoked), "a revocation is for ever");
        if let Some(before) = &before {
            let content = |state: &StoredState| {
                let mut bundle: serde_json::Value =
                    serde_json::from_slice(&state.documents.bundle_json().body).expect("json");
                bundle["spiffe_sequence"] = 0.into();
                bundle
            };
            assert_eq!(
                content(before) == content(next),
                old.sequence == next.ring.sequence,
                "the sequence"
            );
            assert!(old.sequence <= next.ring.sequence && before.revision < next.revision);
        }
        let entries = next.ring.jwt.iter().map(|entry| (&entry.id, entry.state));
        let entries: Vec<_> = entries
            .chain(next.ring.x509.iter().map(|entry| (&entry.id, entry.state)))
            .collect();
        let present: BTreeSet<_> = entries
            .iter()
            .map(|(id, _)| *id)
            .chain(next.ring.roots.keys())
            .cloned()
            .collect();
        self.book.published.retain(|id, _| present.contains(id));
        for id in present {
            self.book.published.entry(id).or_insert(now);
        }
        let signing = entries.iter().filter(|(_, state)| *state == KeyState::Signing);
        self.book.let_sign.extend(signing.map(|(id, _)| (*id).clone()));
    }

    #[expect(clippy::too_many_arguments, reason = "one rule each")]
    fn check_use<M>(
        &self,
        old: &[Entry<M>],
        next: &[Entry<M>],
        revoked: &BTreeSet<String>,
        keys: &BTreeSet<String>,
        overlap: i64,
        alive: i64,
        sooner: impl Fn(&str, &str) -> bool,
    ) {
        let signer = |entries: &[Entry<M>]| {
            let mut signing = entries.iter().filter(|entry| entry.state == KeyState::Signing);
            let signer = signing.next().map(|entry| entry.id.clone());
            assert!(signing.next().is_none(), "at most one signs");
            signer
        };
        assert!(next.len() <= MAX_KEYS_PER_USE);
        let (was, is) = (signer(old), signer(next));
        if let Some(is) = is.as_ref().filter(|is| was.as_ref() != Some(is)) {
            // The two exceptions: nothing signed before, or what did is revoked.
            if let Some(was) = was.as_ref().filter(|was| !revoked.contains(*was)) {
                let since = self.book.published.get(is).expect("published before it signs");
                let waited = self.elapsed - since >= overlap;
                assert!(waited || sooner(is, was), "{is} signs after {} s", self.elapsed - since);
            }
        }
        if was.is_some() && is.is_none() {
            assert!(
                was.is_some_and(|was| revoked.contains(&was)),
                "only a revocation leaves nobody to sign"
            );
        }
        for entry in next {
            assert!(!revoked.contains(&entry.id), "a revoked key is published");
            let has_key = keys.contains(&entry.id);
            assert_eq!(
                has_key,
                entry.state != KeyState::Retired,
                "the private key of {}",
                entry.id
            );
        }
        for entry in old.iter().filter(|old| !next.iter().any(|entry| entry.id == old.id)) {
            let over = self
                .book
                .last_signed
                .get(&entry.id)
                .is_none_or(|last| self.elapsed - last >= alive);
            assert!(over || revoked.contains(&entry.id), "{} leaves too early", entry.id);
        }
    }

    /// Who signs was let sign by a stored state, and is not revoked.
    fn check_signers(&mut self) {
        for process in &self.processes {
            let Some(set) = &process.signing else { continue };
            let jwt = set.jwt.as_ref().ok().map(|jwt| jwt.kid().to_owned());
            let x509 = set.x509.as_ref().ok().map(|x509| x509.id().to_owned());
            for id in jwt.into_iter().chain(x509) {
                assert!(self.book.let_sign.contains(&id), "{id} signs before it was stored");
                self.book.last_signed.insert(id, self.elapsed);
            }
        }
    }

    fn check_revoked(&self) {
        for set in self.processes.iter().filter_map(|process| process.signing.as_ref()) {
            assert!(set.jwt.as_ref().is_ok_and(|jwt| !self.revoked.contains(jwt.kid())) || set.jwt.is_err());
            assert!(set.x509.as_ref().is_ok_and(|x509| !self.revoked.contains(x509.id())) || set.x509.is_err());
        }
    }

    fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Secret(which) => {
                let (uses, outcome) = (KeyUses::Both, Ok(Arc::new(POOL[which].clone())));
                let event = Event::Secret { uses, outcome };
                self.secret = Some(event.clone());
                self.everybody(&event);
            }
            Happening::Bad => {
                let (uses, outcome) = (KeyUses::Both, Err(AuthorityError::Mismatch));
                let event = Event::Secret { uses, outcome };
                self.secret = Some(event.clone());
                self.everybody(&event);
            }
            Happening::Revoke(which) => {
                self.revoked
                    .extend([kid(&POOL[which]).to_owned(), id(&POOL[which]).to_owned()]);
                self.everybody(&Event::Revoked(self.revoked.clone()));
            }
            Happening::Activate(which) => {
                self.activated = [id(&POOL[which]).to_owned()].into();
                self.everybody(&Event::Activated(self.activated.clone()));
            }
            Happening::Pass(seconds) => {
                self.elapsed += seconds;
                self.check_signers();
                self.everybody(&Event::Tick);
            }
            Happening::WallJumps(seconds) => self.wall_ahead = (self.wall_ahead + seconds).clamp(-DAY / 2, DAY),
            Happening::Skew(skew) => {
                self.skew = skew;
                self.everybody(&Event::ClockSkew(skew));
            }
            Happening::Next(outcome) => self.outcome = outcome,
            Happening::Restart(process) => self.restart(process),
            Happening::Lead(process) => self.lead(process),
            Happening::Detach => self.detach(),
        }
        self.check_revoked();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_rings_keep_their_promises(happenings in proptest::collection::vec(happening(), 1..60)) {
        let mut sim = Sim::new();
        for happening in happenings {
            sim.happen(&happening);
        }
    }
}
