//! Requests by registry host, for the hosts that are used most. Tenants choose hosts, so their number is bounded: a host
//! without a place counts as `other` until it is used more than a host that has one.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Mutex, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};

/// Hosts with series of their own.
pub(super) const LISTED: usize = 256;

/// Hosts whose use is remembered while they have no place.
const CANDIDATES: usize = 1_024;

/// A candidate takes the place of the least used host when it was used twice as often, so that two hosts of like use do
/// not take turns.
const LEAD: u64 = 2;

/// Counters by outcome.
type Outcomes = BTreeMap<&'static str, u64>;

#[derive(Debug, Default)]
struct Host {
    /// Decays; decides who is listed.
    used: u64,
    /// Only grows; what is shown.
    outcomes: Outcomes,
}

#[derive(Debug, Default)]
struct Table {
    listed: HashMap<String, Host>,
    candidates: HashMap<String, u64>,
    other: Outcomes,
}

/// `mintmark_registry_requests_total{host,outcome}`.
#[derive(Debug, Default)]
pub(super) struct HostRequests(Mutex<Table>);

impl HostRequests {
    pub(super) fn record(&self, host: &str, outcome: &'static str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .record(host, outcome);
    }
}

impl Table {
    fn record(&mut self, host: &str, outcome: &'static str) {
        if self.listed.len() < LISTED && !self.listed.contains_key(host) {
            self.listed.insert(host.to_owned(), Host::default());
        }
        if !self.listed.contains_key(host) {
            self.consider(host);
        }
        match self.listed.get_mut(host) {
            Some(listed) => {
                listed.used = listed.used.saturating_add(1);
                *listed.outcomes.entry(outcome).or_default() += 1;
            }
            None => *self.other.entry(outcome).or_default() += 1,
        }
    }

    /// Counts a use of a host without a place, and gives it one if it has earned it.
    fn consider(&mut self, host: &str) {
        if self.candidates.len() >= CANDIDATES && !self.candidates.contains_key(host) {
            self.decay();
        }
        let used = self.candidates.entry(host.to_owned()).or_default();
        *used += 1;
        let used = *used;
        let least = self
            .listed
            .iter()
            .min_by_key(|(_, listed)| listed.used)
            .map(|(name, listed)| (name, listed.used));
        if let Some((least, least_used)) = least
            && used > least_used.saturating_mul(LEAD)
        {
            let least = least.clone();
            // Its counts go to `other`: a sum over all hosts never falls.
            for (outcome, count) in self.listed.remove(&least).unwrap_or_default().outcomes {
                *self.other.entry(outcome).or_default() += count;
            }
            self.candidates.remove(host);
            self.listed.insert(
                host.to_owned(),
                Host {
                    used,
                    outcomes: Outcomes::new(),
                },
            );
        }
    }

    /// Halves all uses and forgets the rarest candidates: use long ago counts less.
    fn decay(&mut self) {
        for listed in self.listed.values_mut() {
            listed.used /= 2;
        }
        self.candidates.retain(|_, used| {
            *used /= 2;
            *used > 0
        });
        // All candidates were used often: forget them rather than grow.
        if self.candidates.len() >= CANDIDATES {
            self.candidates.clear();
        }
    }
}

impl Collector for HostRequests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut metric = encoder.encode_descriptor(
            "mintmark_registry_requests",
            "Requests to registries by host (the most used, else other) and outcome.",
            None,
            MetricType::Counter,
        )?;
        let listed = table
            .listed
            .iter()
            .map(|(host, listed)| (host.as_str(), &listed.outcomes));
        for (host, outcomes) in listed.chain([("other", &table.other)]) {
            for (outcome, count) in outcomes {
                let labels = [("host", host), ("outcome", outcome)];
                ConstCounter::new(*count).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled() -> Table {
        let mut table = Table::default();
        for number in 0..LISTED {
            table.record(&format!("host{number}"), "ok");
            table.record(&format!("host{number}"), "ok");
        }
        table
    }

    fn total(table: &Table) -> u64 {
        table
            .listed
            .values()
            .map(|host| &host.outcomes)
            .chain([&table.other])
            .flat_map(BTreeMap::values)
            .sum()
    }

    #[test]
    fn the_257th_host_counts_as_other() {
        let mut table = filled();
        table.record("late", "ok");
        assert_eq!(table.listed.len(), LISTED);
        assert_eq!(table.other["ok"], 1);
    }

    #[test]
    fn a_busy_host_takes_the_place_of_an_unused_one() {
        let mut table = filled();
        for _ in 0..6 {
            table.record("busy", "ok");
        }
        assert_eq!(table.listed.len(), LISTED);
        assert_eq!(table.listed["busy"].outcomes["ok"], 2, "the first four went to other");
        assert_eq!(total(&table), 2 * LISTED as u64 + 6);
    }

    #[test]
    fn ever_new_hosts_do_not_grow_the_table() {
        let mut table = filled();
        for number in 0..10 * CANDIDATES {
            table.record(&format!("new{number}"), "error");
        }
        assert!(table.candidates.len() <= CANDIDATES);
        assert_eq!(table.listed.len(), LISTED);
        assert_eq!(total(&table), (2 * LISTED + 10 * CANDIDATES) as u64);
    }
}
