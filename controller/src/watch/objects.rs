//! The watch on one repository kind: keeps a pruned copy of every object and tells the queue which ones changed in a
//! way that asks for a pass. It needs list and watch on the kind; what ends it is a bug or a shutdown, for errors of the
//! API server are retried with backoff.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use futures::{Stream, StreamExt, pin_mut};
use kube::{
    Api, ResourceExt,
    core::{DeserializeGuard, Resource},
    runtime::watcher,
};
use mintmark_api::annotation::RECONCILE_REQUESTED_AT;
use tokio::sync::watch;

use crate::artifact;

use super::{
    CrdGuard, Kind, Queue, Version, watch_events,
    writers::{ForeignWrite, foreign_write},
};

/// How soon after the start of one pass a further reconcile request starts the next.
const REQUEST_SPACING: Duration = Duration::from_secs(1);

/// Namespace and name of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// The key of a namespaced object.
    pub fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            namespace: meta.namespace.as_deref().unwrap_or_default().into(),
            name: meta.name.as_deref().unwrap_or_default().into(),
        }
    }
}

impl From<&artifact::ObjectKey> for ObjectKey {
    fn from(key: &artifact::ObjectKey) -> Self {
        Self {
            namespace: key.namespace().into(),
            name: key.name().into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Told when an object is gone, with its UID: by then the store no longer holds it.
pub type OnDelete = Box<dyn Fn(&ObjectKey, &str) + Send + Sync>;

/// Told when somebody else wrote the status of an object after us; [`ObjectStore::foreign_write`] says who.
pub type OnForeignWrite = Box<dyn Fn(&ObjectKey) + Send + Sync>;

/// Told of every change of the store, with the object before and after it. It must not use the store.
pub type OnChange<K> = Box<dyn Fn(&ObjectKey, Option<&K>, Option<&K>) + Send + Sync>;

/// The objects of one kind as the API server last told them.
pub struct ObjectStore<K> {
    objects: RwLock<HashMap<ObjectKey, Arc<K>>>,
    /// Objects that lost their credential without a change of generation, which is kept here.
    stripped: Mutex<HashMap<ObjectKey, i64>>,
    /// Objects whose newest status is not ours.
    foreign: Mutex<HashMap<ObjectKey, ForeignWrite>>,
    synced: watch::Sender<bool>,
    on_change: OnceLock<OnChange<K>>,
}

impl<K: Kind> Default for ObjectStore<K> {
    fn default() -> Self {
        Self {
            objects: RwLock::default(),
            stripped: Mutex::default(),
            foreign: Mutex::default(),
            synced: watch::Sender::new(false),
            on_change: OnceLock::new(),
        }
    }
}

impl<K: Kind> ObjectStore<K> {
    /// Has `on_change` told of changes from now on. Only the first one is.
    pub fn observe(&self, on_change: OnChange<K>) {
        // A second observer would be a bug, which its tests show.
        let _ = self.on_change.set(on_change);
    }

    fn tell(&self, key: &ObjectKey, old: Option<&K>, new: Option<&K>) {
        if let Some(on_change) = self.on_change.get() {
            on_change(key, old, new);
        }
    }

    /// The object as last seen.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    /// Every key held now.
    pub fn keys(&self) -> Vec<ObjectKey> {
        self.objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .cloned()
            .collect()
    }

    /// How many objects are held.
    pub fn len(&self) -> usize {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every object held now.
    pub fn objects(&self) -> Vec<Arc<K>> {
        self.objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Whether the object lost its credential while it stayed at this generation: no edit does that, only a CRD that
    /// prunes the field.
    pub fn lost_credential(&self, key: &ObjectKey, generation: i64) -> bool {
        self.stripped.lock().unwrap_or_else(PoisonError::into_inner).get(key) == Some(&generation)
    }

    fn note_credential(&self, key: &ObjectKey, old: &K, new: &K) {
        let mut stripped = self.stripped.lock().unwrap_or_else(PoisonError::into_inner);
        let same_generation = old.meta().generation == new.meta().generation;
        if same_generation && old.has_credential() && !new.has_credential() {
            stripped.insert(key.clone(), new.meta().generation.unwrap_or_default());
        } else if !same_generation || new.has_credential() {
            stripped.remove(key);
        }
    }

    /// Who wrote the object's status after us, if somebody did.
    pub fn foreign_write(&self, key: &ObjectKey) -> Option<ForeignWrite> {
        let foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        foreign.get(key).cloned()
    }

    /// Returns whether this is news of another writer.
    fn note_foreign_write(&self, key: &ObjectKey, write: Option<ForeignWrite>) -> bool {
        let mut foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        match write {
            None => {
                foreign.remove(key);
                false
            }
            Some(write) if foreign.get(key) == Some(&write) => false,
            Some(write) => {
                foreign.insert(key.clone(), write);
                true
            }
        }
    }

    /// True while what is held goes back to a list that was read whole under our own CRD.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// Takes over what the API server answered to a write, unless the watch has already brought something newer.
    pub fn replace_if_newer(&self, object: K) {
        let key = ObjectKey::of(&object);
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = objects.get_mut(&key)
            && held.uid() == object.uid()
            && version(&object) > version(held.as_ref())
        {
            let old = std::mem::replace(held, Arc::new(object.pruned()));
            self.tell(&key, Some(&old), Some(held));
        }
    }

    fn insert(&self, key: &ObjectKey, object: K) -> Option<Arc<K>> {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let object = Arc::new(object);
        let old = objects.insert(key.clone(), object.clone());
        self.tell(key, old.as_deref(), Some(&object));
        old
    }

    fn remove(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.note_foreign_write(key, None);
        self.stripped.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        let old = objects.remove(key)?;
        self.tell(key, Some(&old), None);
        Some(old)
    }
}

/// Resource versions of one kind grow; an unreadable one counts as oldest.
pub fn version<K: Resource>(object: &K) -> Version {
    object
        .meta()
        .resource_version
        .as_deref()
        .and_then(|version| version.parse().ok())
        .unwrap_or(0)
}

/// Follows a watch and keeps `store` and `queue` up to date.
pub struct ObjectWatch<K: Kind> {
    store: Arc<ObjectStore<K>>,
    queue: Arc<Queue<ObjectKey>>,
    on_delete: OnDelete,
    on_foreign_write: OnForeignWrite,
    /// Keys seen in the list under way; what is missing at its end was deleted unseen.
    listed: HashSet<ObjectKey>,
}

impl<K: Kind> ObjectWatch<K> {
    /// A watch that feeds `store` and `queue`.
    pub fn new(store: Arc<ObjectStore<K>>, queue: Arc<Queue<ObjectKey>>, on_delete: OnDelete) -> Self {
        Self {
            store,
            queue,
            on_delete,
            on_foreign_write: Box::new(|_| {}),
            listed: HashSet::new(),
        }
    }

    /// The same, with somebody who is told of other writers.
    #[must_use]
    pub fn with_foreign_writes(self, on_foreign_write: OnForeignWrite) -> Self {
        Self {
            on_foreign_write,
            ..self
        }
    }

    /// Watches for ever, while the kind's CRD is ours: what another one has pruned is not taken in, and once ours is back
    /// everything is listed again. Needs `list` and `watch` on the kind.
    pub async fn run(mut self, api: Api<DeserializeGuard<K>>, config: watcher::Config, guard: CrdGuard) {
        loop {
            guard.complete().await;
            tokio::select! {
                () = self.follow(watch_events(api.clone(), config.clone())) => return,
                () = guard.incomplete() => {
                    self.store.synced.send_replace(false);
                }
            }
        }
    }

    async fn follow(&mut self, events: impl Stream<Item = watcher::Result<watcher::Event<DeserializeGuard<K>>>>) {
        pin_mut!(events);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.handle(event),
                Err(error) => tracing::error!(controllerKind = K::KIND, %error, "watch interrupted; retrying"),
            }
        }
    }

    fn handle(&mut self, event: watcher::Event<DeserializeGuard<K>>) {
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(object) => {
                self.listed.insert(ObjectKey::of(&object));
                self.apply(object);
            }
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                for key in self.store.keys().iter().filter(|key| !listed.contains(*key)) {
                    self.delete(key);
                }
                self.store.synced.send_replace(true);
            }
            watcher::Event::Apply(object) => self.apply(object),
            watcher::Event::Delete(object) => self.delete(&ObjectKey::of(&object)),
        }
    }

    fn apply(&self, object: DeserializeGuard<K>) {
        let key = ObjectKey::of(&object);
        let (object, foreign) = match object.0 {
            Ok(object) => {
                let foreign = foreign_write(object.managed_fields());
                (object.pruned(), foreign)
            }
            Err(error) => {
                tracing::error!(controllerKind = K::KIND, namespace = %key.namespace, name = %key.name, error = %error.error,
                    "object cannot be read; it is left as it was");
                return;
            }
        };
        let new_uid = object.uid();
        match self.store.insert(&key, object) {
            None => self.queue.push(&key),
            Some(old) if old.uid() != new_uid => {
                (self.on_delete)(&key, old.uid().as_deref().unwrap_or_default());
                self.queue.push(&key);
                self.queue.reset_failures(&key);
            }
            Some(old) => self.update(&key, &old),
        }
        if self.store.note_foreign_write(&key, foreign) {
            (self.on_foreign_write)(&key);
        }
    }

    fn update(&self, key: &ObjectKey, old: &K) {
        let Some(new) = self.store.get(key) else { return };
        self.store.note_credential(key, old, &new);
        if new.meta().generation != old.meta().generation
            || new.meta().deletion_timestamp != old.meta().deletion_timestamp
            || !new.same_spec(old)
        {
            self.queue.push(key);
            self.queue.reset_failures(key);
        } else if requested_at(new.as_ref()) != requested_at(old) {
            self.queue.push_spaced(key, REQUEST_SPACING);
        }
    }

    fn delete(&self, key: &ObjectKey) {
        let Some(old) = self.store.remove(key) else { return };
        self.queue.remove(key);
        (self.on_delete)(key, old.uid().as_deref().unwrap_or_default());
    }
}

/// The value of the annotation with which somebody asks for a pass.
pub fn requested_at<K: Resource>(object: &K) -> Option<&str> {
    object
        .meta()
        .annotations
        .as_ref()?
        .get(RECONCILE_REQUESTED_AT)
        .map(String::as_str)
}

#[cfg(test)]
mod tests;
