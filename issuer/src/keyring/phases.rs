//! The life of the keys of one use: `Published`, `Signing`, `Retired`, gone. One signs, at most one waits for it, and a
//! retired one without a signing time is one that was superseded before it signed.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use super::notice::{KeyUse, Notice};
use super::plan::{Step, later};
use super::state::{Entry, KeyState, MAX_KEYS_PER_USE};

/// How a use differs from the other.
pub(super) struct Rules<'a, M> {
    pub(super) kind: KeyUse,
    /// How long a superseded key stays.
    pub(super) overlap: Duration,
    /// How long a key stays that has signed.
    pub(super) retention: Duration,
    /// Before this a key may not sign.
    pub(super) starts: &'a dyn Fn(&Entry<M>) -> Option<Timestamp>,
    /// Whether the pending key may follow the one that signs.
    pub(super) due: &'a dyn Fn(&Entry<M>, &Entry<M>) -> Due,
}

/// Whether a pending key may sign.
pub(super) enum Due {
    Now,
    /// Before its time, because somebody wants it.
    Activated,
    /// Not before this moment.
    From(Timestamp),
}

/// The entries of one use while they are planned.
pub(super) struct Phases<'a, M> {
    pub(super) rules: Rules<'a, M>,
    pub(super) entries: &'a mut Vec<Entry<M>>,
    pub(super) revoked: &'a BTreeSet<String>,
    pub(super) step: &'a Step<'a>,
    pub(super) notices: &'a mut Vec<Notice>,
    pub(super) conditions: &'a mut Vec<Notice>,
}

impl<M: PartialEq> Phases<'_, M> {
    /// One step: what is revoked or over goes, the key of the Secret comes, the pending one signs if it may.
    pub(super) fn advance(mut self, arrival: Option<(&str, M)>) {
        let kind = self.rules.kind;
        let revoked = self.revoked;
        self.drop_where(|entry| revoked.contains(&entry.id), |id| Notice::Revoked { kind, id });
        if !self.step.frozen {
            let (step, overlap, retention) = (self.step, self.rules.overlap, self.rules.retention);
            let over = |entry: &Entry<M>| {
                let stay = if entry.signing_at.is_some() { retention } else { overlap };
                let at = entry.retired_at.filter(|_| entry.state == KeyState::Retired);
                at.is_some_and(|at| step.timer.passed(step.timer.since.retired(&entry.id), at, stay))
            };
            self.drop_where(over, |id| Notice::Gone { kind, id });
        }
        let came = arrival.is_some_and(|(id, material)| self.arrive(id, material));
        self.promote(came);
    }

    fn drop_where(&mut self, gone: impl Fn(&Entry<M>) -> bool, notice: impl Fn(String) -> Notice) {
        let (notices, entries) = (&mut *self.notices, &mut *self.entries);
        entries.retain(|entry| {
            let gone = gone(entry);
            notices.extend(gone.then(|| notice(entry.id.clone())));
            !gone
        });
    }

    /// Takes in the key of the signing Secret; whether it begins to wait.
    fn arrive(&mut self, id: &str, material: M) -> bool {
        if self.revoked.contains(id) {
            self.conditions.push(Notice::NotAccepted(id.to_owned()));
            return false;
        }
        if self.step.frozen && self.entries.iter().any(|entry| entry.state == KeyState::Signing) {
            return false;
        }
        let is_full = self.entries.len() >= MAX_KEYS_PER_USE;
        let known = self.entries.iter_mut().find(|entry| entry.id == id);
        let came = match known {
            Some(entry) => {
                // The same key with new dates is replaced at once.
                entry.material = material;
                let comes_back = entry.state == KeyState::Retired;
                if comes_back {
                    entry.state = KeyState::Published;
                    entry.retired_at = None;
                }
                comes_back
            }
            None if is_full => {
                self.conditions.push(Notice::Full {
                    kind: self.rules.kind,
                    id: id.to_owned(),
                });
                return false;
            }
            None => {
                self.entries
                    .push(Entry::published(id.to_owned(), material, self.step.timer.wall()));
                true
            }
        };
        self.supersede_all_but(id);
        came
    }

    fn supersede_all_but(&mut self, id: &str) {
        let wall = self.step.timer.wall();
        let overtaken = |entry: &&mut Entry<M>| entry.state == KeyState::Published && entry.id != id;
        for entry in self.entries.iter_mut().filter(overtaken) {
            entry.retire(wall);
            let signed = entry.signing_at.is_some();
            let stay = if signed {
                self.rules.retention
            } else {
                self.rules.overlap
            };
            self.notices.push(Notice::Superseded {
                kind: self.rules.kind,
                id: entry.id.clone(),
                until: later(wall, stay),
            });
        }
    }

    /// The pending key signs when it may; what signed before is retired in the same step. Where nothing signs, because
    /// nothing did before or because the signer is revoked, waiting would help nobody.
    fn promote(&mut self, came: bool) {
        let is = |state: KeyState| move |entry: &&Entry<M>| entry.state == state;
        let Some(pending) = self.entries.iter().find(is(KeyState::Published)) else {
            return;
        };
        let signer = self.entries.iter().find(is(KeyState::Signing));
        let (kind, id) = (self.rules.kind, pending.id.clone());
        let starts = (self.rules.starts)(pending).filter(|starts| !self.step.timer.reached(*starts));
        if let Some(at) = starts {
            self.conditions.push(Notice::NotYetValid { id: id.clone(), at });
        }
        let due = signer.map_or(Due::Now, |signer| (self.rules.due)(pending, signer));
        let frozen = self.step.frozen && signer.is_some();
        if let (Due::From(from), true) = (&due, came) {
            let from = starts.map_or(*from, |starts| starts.max(*from));
            self.notices.push(Notice::Published {
                kind,
                id: id.clone(),
                from,
            });
        }
        if frozen || starts.is_some() || matches!(due, Due::From(_)) || !(self.step.can_sign)(&id) {
            return;
        }
        if matches!(due, Due::Activated) {
            self.notices.push(Notice::Activated(id.clone()));
        }
        self.sign(&id);
    }

    fn sign(&mut self, id: &str) {
        let (kind, wall) = (self.rules.kind, self.step.timer.wall());
        for entry in self.entries.iter_mut() {
            if entry.id == id {
                entry.sign(wall);
                self.notices.push(Notice::Signs {
                    kind,
                    id: id.to_owned(),
                });
            } else if entry.state == KeyState::Signing {
                entry.retire(wall);
                self.notices.push(Notice::Retired {
                    kind,
                    id: entry.id.clone(),
                    until: later(wall, self.rules.retention),
                });
            }
        }
    }
}
