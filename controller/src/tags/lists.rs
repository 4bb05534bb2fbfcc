//! Stored tag lists in memory, for those who select from them: however many policies ask, a list is read once for each change.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

use super::{TagList, TagStore, TagStoreError};
use crate::artifact::{ObjectKey, Record};

/// Told of every list that is read from disk.
pub type OnRead = Box<dyn Fn() + Send + Sync>;

/// Tag lists read from a [`TagStore`].
pub struct TagLists {
    tags: TagStore,
    /// Bytes of tags that are kept at most; the ones used longest ago go.
    budget: usize,
    on_read: OnRead,
    held: Mutex<Held>,
}

/// What a read of one version of a list came to, or will.
type Reading = Arc<OnceCell<Option<Arc<TagList>>>>;

#[derive(Debug, Default)]
struct Held {
    lists: HashMap<ObjectKey, Entry>,
    /// Counts the requests.
    turn: u64,
}

#[derive(Debug)]
struct Entry {
    uid: Box<str>,
    revision: Box<str>,
    reading: Reading,
    used: u64,
}

impl Entry {
    fn size(&self) -> usize {
        let list = self.reading.get().and_then(Option::as_ref);
        list.map_or(0, |list| list.text().len())
    }
}

impl Held {
    /// The reading of this version, a new one if another version or none is held.
    fn reading(&mut self, key: &ObjectKey, record: &Record) -> Reading {
        self.turn += 1;
        let is_same = |entry: &&mut Entry| *entry.uid == *record.binding.uid && *entry.revision == *record.revision;
        if let Some(entry) = self.lists.get_mut(key).filter(is_same) {
            entry.used = self.turn;
            return entry.reading.clone();
        }
        let reading = Reading::default();
        let entry = Entry {
            uid: record.binding.uid.as_str().into(),
            revision: record.revision.as_str().into(),
            reading: reading.clone(),
            used: self.turn,
        };
        self.lists.insert(key.clone(), entry);
        reading
    }

    fn shrink(&mut self, budget: usize) {
        let mut size: usize = self.lists.values().map(Entry::size).sum();
        while size > budget {
            let loaded = self.lists.iter().filter(|(_, entry)| entry.size() > 0);
            let Some(oldest) = loaded.min_by_key(|(_, entry)| entry.used).map(|(key, _)| key.clone()) else {
                return;
            };
            size -= self.lists.remove(&oldest).map_or(0, |entry| entry.size());
        }
    }
}

impl TagLists {
    /// Nothing read yet. `budget`: bytes of tags that are kept at most.
    pub fn new(tags: TagStore, budget: usize, on_read: OnRead) -> Self {
        Self {
            tags,
            budget,
            on_read,
            held: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tags that `record` speaks of, stored under `key`; none if they are damaged or were replaced meanwhile. Those who
    /// ask for the same at the same time wait for one read.
    pub async fn get(&self, key: &ObjectKey, record: &Record) -> Result<Option<Arc<TagList>>, TagStoreError> {
        let reading = self.lock().reading(key, record);
        if let Some(list) = reading.get() {
            return Ok(list.clone());
        }
        let list = reading.get_or_try_init(|| self.read(key, record)).await?.clone();
        let mut held = self.lock();
        if list.is_none() {
            // The next one looks again.
            held.lists.remove(key);
        }
        held.shrink(self.budget);
        Ok(list)
    }

    async fn read(&self, key: &ObjectKey, record: &Record) -> Result<Option<Arc<TagList>>, TagStoreError> {
        (self.on_read)();
        let (tags, stored_at, uid) = (self.tags.clone(), key.clone(), record.binding.uid.clone());
        let read = tokio::task::spawn_blocking(move || tags.read(&stored_at, &uid)).await;
        let read = read.map_err(|_| TagStoreError::Interrupted { key: key.clone() })??;
        let current = read.filter(|(_, list)| list.revision() == record.revision);
        Ok(current.map(|(_, list)| Arc::new(list)))
    }

    /// The object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().lists.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use jiff::Timestamp;

    use super::*;
    use crate::{
        artifact::{Binding, StorageConfig},
        tags::{Exclusions, TagCollector},
    };

    struct Scene {
        _folder: tempfile::TempDir,
        tags: TagStore,
        lists: Arc<TagLists>,
        reads: Arc<AtomicUsize>,
    }

    impl Scene {
        fn new(budget: usize) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let config = StorageConfig {
                min_free_percent: 0,
                ..StorageConfig::new(folder.path())
            };
            let tags = TagStore::open(config).unwrap();
            let reads = Arc::new(AtomicUsize::new(0));
            let counted = reads.clone();
            let count = Box::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
            });
            Self {
                _folder: folder,
                lists: Arc::new(TagLists::new(tags.clone(), budget, count)),
                tags,
                reads,
            }
        }

        fn save(&self, name: &str, tags: &[&str]) -> Arc<Record> {
            let (key, now) = (key(name), Timestamp::now());
            self.tags.begin_pass(&key, "u", now).unwrap();
            let mut collector = TagCollector::new(Exclusions::new([]).unwrap());
            collector.add(tags.iter().copied(), || false).unwrap();
            let binding = Binding {
                uid: "u".to_owned(),
                ..Binding::default()
            };
            self.tags.save(&key, &collector.finish(), binding, None, now).unwrap()
        }

        async fn get(&self, name: &str, record: &Record) -> Option<Arc<TagList>> {
            self.lists.get(&key(name), record).await.unwrap()
        }

        fn reads(&self) -> usize {
            self.reads.load(Ordering::Relaxed)
        }
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("a", name).unwrap()
    }

    #[tokio::test]
    async fn a_thousand_who_ask_cost_one_read_for_each_change() {
        let scene = Scene::new(1000);
        for (change, tags) in [["1", "2"].as_slice(), &["1", "2", "3"]].into_iter().enumerate() {
            let record = scene.save("app", tags);
            let asking = (0..1000).map(|_| scene.get("app", &record));
            for list in futures::future::join_all(asking).await {
                assert_eq!(list.unwrap().len(), tags.len());
            }
            assert_eq!(scene.reads(), change + 1);
        }
    }

    #[tokio::test]
    async fn the_lists_used_longest_ago_go_first() {
        let scene = Scene::new(4);
        let [one, two, three] = ["one", "two", "three"].map(|name| scene.save(name, &["1"]));
        scene.get("one", &one).await.unwrap();
        scene.get("two", &two).await.unwrap();
        scene.get("one", &one).await.unwrap();
        scene.get("three", &three).await.unwrap();
        assert_eq!(scene.reads(), 3);
        scene.get("one", &one).await.unwrap();
        assert_eq!(scene.reads(), 3);
        scene.get("two", &two).await.unwrap();
        assert_eq!(scene.reads(), 4);
    }

    #[tokio::test]
    async fn what_was_replaced_meanwhile_is_not_taken_for_the_older() {
        let scene = Scene::new(1000);
        let older = scene.save("app", &["1"]);
        scene.save("app", &["2"]);
        assert_eq!(scene.get("app", &older).await, None);
    }
}
