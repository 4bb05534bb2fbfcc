//! A map with a budget: least recently used entries go first, and no namespace may hold more than half of it.
//!
//! Insertion scans the map (a few thousand entries at most, once per new pool); lookups do not.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, sync::Arc};

pub(super) struct Lru<K, V> {
    entries: HashMap<K, Entry<V>>,
    clock: u64,
    budget: usize,
}

struct Entry<V> {
    value: V,
    namespace: Arc<str>,
    used: u64,
}

impl<K: Hash + Eq + Clone, V> Lru<K, V> {
    /// A map whose weights add up to at most `budget`.
    pub(super) fn new(budget: usize) -> Self {
        Self {
            entries: HashMap::new(),
            clock: 0,
            budget,
        }
    }

    /// Looks up and marks as used.
    pub(super) fn get<Q>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.clock += 1;
        let entry = self.entries.get_mut(key)?;
        entry.used = self.clock;
        Some(&entry.value)
    }

    /// Inserts on behalf of `namespace`, then evicts what exceeds the namespace's half and the whole budget. The new
    /// entry itself stays. Returns what had to go.
    pub(super) fn insert(&mut self, key: &K, namespace: &Arc<str>, value: V, weight: impl Fn(&V) -> usize) -> Vec<K> {
        self.clock += 1;
        let entry = Entry {
            value,
            namespace: Arc::clone(namespace),
            used: self.clock,
        };
        self.entries.insert(key.clone(), entry);
        self.reweigh(key, weight)
    }

    /// Evicts what is too much now that the entry of `key` has another weight, as [`Self::insert`] does.
    pub(super) fn reweigh(&mut self, key: &K, weight: impl Fn(&V) -> usize) -> Vec<K> {
        let Some(namespace) = self.entries.get(key).map(|entry| Arc::clone(&entry.namespace)) else {
            return Vec::new();
        };
        let half = (self.budget / 2).max(1);
        let mut evicted = self.evict(key, half, &weight, |entry| entry.namespace == namespace);
        evicted.extend(self.evict(key, self.budget.max(1), &weight, |_| true));
        evicted
    }

    /// Keeps only what is wanted.
    pub(super) fn retain(&mut self, wanted: impl Fn(&V) -> bool) {
        self.entries.retain(|_, entry| wanted(&entry.value));
    }

    pub(super) fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.entries.remove(key).map(|entry| entry.value)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn evict(
        &mut self,
        keep: &K,
        limit: usize,
        weight: impl Fn(&V) -> usize,
        of: impl Fn(&Entry<V>) -> bool,
    ) -> Vec<K> {
        let mut evicted = Vec::new();
        let mut total: usize = self
            .entries
            .values()
            .filter(|entry| of(entry))
            .map(|entry| weight(&entry.value))
            .sum();
        while total > limit {
            let oldest = self.entries.iter().filter(|(key, entry)| *key != keep && of(entry));
            let Some(key) = oldest.min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone()) else {
                break;
            };
            total -= self.entries.remove(&key).map_or(0, |entry| weight(&entry.value));
            evicted.push(key);
        }
        evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(lru: &mut Lru<u32, usize>, key: u32, namespace: &str, weight: usize) -> Vec<u32> {
        lru.insert(&key, &namespace.into(), weight, |weight| *weight)
    }

    #[test]
    fn least_recently_used_goes_first() {
        let mut lru = Lru::new(4);
        insert(&mut lru, 1, "a", 1);
        insert(&mut lru, 2, "a", 1);
        assert!(lru.get(&1).is_some());
        insert(&mut lru, 3, "a", 1);
        assert!(lru.get(&2).is_none(), "a's half is 2, and 2 was used longest ago");
        assert!(lru.get(&1).is_some() && lru.get(&3).is_some());
    }

    #[test]
    fn a_namespace_evicts_its_own_first() {
        let mut lru = Lru::new(4);
        insert(&mut lru, 1, "a", 1);
        insert(&mut lru, 2, "b", 1);
        insert(&mut lru, 3, "b", 1);
        insert(&mut lru, 4, "b", 1);
        assert!(lru.get(&1).is_some());
        assert_eq!(lru.len(), 3);
    }

    #[test]
    fn weights_count() {
        let mut lru = Lru::new(8);
        insert(&mut lru, 1, "a", 3);
        insert(&mut lru, 2, "b", 3);
        insert(&mut lru, 3, "c", 3);
        assert!(lru.get(&1).is_none() && lru.get(&2).is_some() && lru.get(&3).is_some());
    }

    #[test]
    fn what_grows_makes_others_go_and_is_told() {
        let mut lru = Lru::new(4);
        assert!(insert(&mut lru, 1, "a", 1).is_empty());
        insert(&mut lru, 2, "b", 1);
        insert(&mut lru, 3, "c", 1);
        assert!(lru.reweigh(&3, |weight| *weight).is_empty());
        assert_eq!(lru.reweigh(&3, |weight| weight * 2), [1]);
        assert!(lru.reweigh(&9, |weight| *weight).is_empty(), "gone meanwhile");
        lru.retain(|weight| *weight > 1_usize);
        assert_eq!(lru.len(), 0);
    }
}
