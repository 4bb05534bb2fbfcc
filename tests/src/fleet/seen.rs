//! What one registry saw of a fleet: which key stood behind the requests of which object, from when to when, and every
//! request or handshake that it refused.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use mintmark_hack::registry::{ADMIN, AccessEntry, AccessMark, RegistryServer};

/// Requests of one subject with credentials of one key.
#[derive(Debug, Clone, Copy)]
pub struct Use {
    /// The first.
    pub first: Timestamp,
    /// The latest.
    pub last: Timestamp,
    /// How many.
    pub count: usize,
}

/// Aggregated access log.
#[derive(Debug, Default)]
pub struct Seen {
    mark: AccessMark,
    /// By key, then by subject: what was answered.
    answered: BTreeMap<String, BTreeMap<String, Use>>,
    /// By key: when it was presented last, whatever the answer.
    presented: BTreeMap<String, Timestamp>,
    /// What was refused, in words.
    refused: Vec<String>,
}

impl Seen {
    /// Reads what is new.
    pub fn look(&mut self, registry: &RegistryServer) -> Result<()> {
        for entry in registry.access_log_since(&mut self.mark)? {
            if entry.subject != ADMIN {
                self.add(&entry)?;
            }
        }
        Ok(())
    }

    fn add(&mut self, entry: &AccessEntry) -> Result<()> {
        let time = entry.time.parse()?;
        if !entry.key.is_empty() {
            self.presented.insert(entry.key.clone(), time);
        }
        if entry.status >= 400 {
            let AccessEntry {
                time,
                method,
                path,
                status,
                kind,
                key,
                reason,
                ..
            } = entry;
            self.refused.push(format!(
                "{time} {method} {path}: {status} to {kind} of key {key}: {reason}"
            ));
            return Ok(());
        }
        let uses = self.answered.entry(entry.key.clone()).or_default();
        let seen = uses.entry(entry.subject.clone()).or_insert(Use {
            first: time,
            last: time,
            count: 0,
        });
        seen.last = time;
        seen.count += 1;
        Ok(())
    }

    /// How this subject pulled with this key.
    pub fn uses(&self, key: &str, subject: &str) -> Option<Use> {
        self.answered.get(key)?.get(subject).copied()
    }

    /// When this key was first taken from anybody.
    pub fn first_use(&self, key: &str) -> Option<Timestamp> {
        self.answered.get(key)?.values().map(|it| it.first).min()
    }

    /// When this key was last presented by anybody, taken or not.
    pub fn last_presented(&self, key: &str) -> Option<Timestamp> {
        self.presented.get(key).copied()
    }

    /// All answered requests of a subject.
    pub fn count(&self, subject: &str) -> usize {
        let uses = self.answered.values().filter_map(|uses| uses.get(subject));
        uses.map(|it| it.count).sum()
    }

    /// Every refused request.
    pub fn refused(&self) -> &[String] {
        &self.refused
    }
}
