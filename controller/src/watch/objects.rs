//! The watch on one repository kind: keeps a pruned copy of every object and tells the queue which ones changed in a
//! way that asks for a pass. It needs list and watch on the kind; what ends it is a bug or a shutdown, for errors of the
//! API server are retried with backoff.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use futures::{Stream, StreamExt, pin_mut};
use kube::{
    Api, ResourceExt,
    core::{DeserializeGuard, Resource},
    runtime::{WatchStreamExt, watcher},
};
use mintmark_api::annotation::RECONCILE_REQUESTED_AT;
use tokio::sync::watch;

use super::{CrdGuard, Kind, Queue};

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

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Told when an object is gone, with its UID: by then the store no longer holds it.
pub type OnDelete = Box<dyn Fn(&ObjectKey, &str) + Send + Sync>;

/// The objects of one kind as the API server last told them.
pub struct ObjectStore<K> {
    objects: RwLock<HashMap<ObjectKey, Arc<K>>>,
    /// Objects that lost their credential without a change of generation, which is kept here.
    stripped: Mutex<HashMap<ObjectKey, i64>>,
    synced: watch::Sender<bool>,
}

impl<K: Kind> Default for ObjectStore<K> {
    fn default() -> Self {
        Self {
            objects: RwLock::default(),
            stripped: Mutex::default(),
            synced: watch::Sender::new(false),
        }
    }
}

impl<K: Kind> ObjectStore<K> {
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
            *held = Arc::new(object.pruned());
        }
    }

    fn insert(&self, key: &ObjectKey, object: K) -> Option<Arc<K>> {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        objects.insert(key.clone(), Arc::new(object))
    }

    fn remove(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.stripped.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(key)
    }
}

/// Resource versions of one kind grow; an unreadable one counts as oldest.
fn version<K: Resource>(object: &K) -> u128 {
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
            listed: HashSet::new(),
        }
    }

    /// Watches for ever, while the kind's CRD is ours: what another one has pruned is not taken in, and once ours is back
    /// everything is listed again. Needs `list` and `watch` on the kind.
    pub async fn run(mut self, api: Api<DeserializeGuard<K>>, config: watcher::Config, guard: CrdGuard) {
        loop {
            guard.complete().await;
            tokio::select! {
                () = self.follow(watcher(api.clone(), config.clone()).default_backoff()) => return,
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
        let object = match object.0 {
            Ok(object) => object.pruned(),
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
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt;
    use mintmark_api::oci_repository::OciRepository;
    use serde_json::{Value, json};

    use super::*;

    struct Fixture {
        watch: ObjectWatch<OciRepository>,
        deleted: Arc<Mutex<Vec<String>>>,
    }

    impl Fixture {
        fn new() -> Self {
            let deleted: Arc<Mutex<Vec<String>>> = Arc::default();
            let log = deleted.clone();
            let on_delete: OnDelete = Box::new(move |_, uid| log.lock().unwrap().push(uid.to_owned()));
            Self {
                watch: ObjectWatch::new(Arc::default(), Arc::default(), on_delete),
                deleted,
            }
        }

        fn see(&mut self, event: watcher::Event<DeserializeGuard<OciRepository>>) -> Option<ObjectKey> {
            self.watch.handle(event);
            let key = self.watch.queue.next().now_or_never().map(|(key, _)| key)?;
            self.watch.queue.done(&key, crate::watch::Next::Never);
            Some(key)
        }
    }

    fn object(uid: &str, generation: i64, more: &Value) -> DeserializeGuard<OciRepository> {
        let mut object = json!({
            "apiVersion": "source.toolkit.fluxcd.io/v1",
            "kind": "OCIRepository",
            "metadata": {"name": "app", "namespace": "a", "uid": uid, "generation": generation, "resourceVersion": "1"},
            "spec": {"url": "oci://r.example/app", "interval": "1m"},
        });
        merge(&mut object, more);
        serde_json::from_value(object).unwrap()
    }

    fn merge(into: &mut Value, more: &Value) {
        match (into, more) {
            (Value::Object(into), Value::Object(more)) => {
                for (key, value) in more {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, more) => *into = more.clone(),
        }
    }

    use watcher::Event::{Apply, Delete, Init, InitApply, InitDone};

    #[tokio::test(start_paused = true)]
    async fn only_what_asks_for_a_pass_is_queued() {
        let mut fixture = Fixture::new();
        assert!(fixture.see(Apply(object("u", 1, &json!({})))).is_some(), "new");
        assert!(
            fixture
                .see(Apply(object("u", 1, &json!({"status": {"url": "x"}}))))
                .is_none(),
            "status"
        );
        assert!(
            fixture
                .see(Apply(object("u", 1, &json!({"metadata": {"labels": {"a": "b"}}}))))
                .is_none(),
            "label"
        );
        assert!(fixture.see(Apply(object("u", 2, &json!({})))).is_some(), "generation");
        let asked = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "1"}}});
        assert!(
            fixture.see(Apply(object("u", 2, &asked))).is_none(),
            "asked within a second of the last pass"
        );
        tokio::time::advance(REQUEST_SPACING).await;
        assert!(
            fixture.watch.queue.next().now_or_never().is_some(),
            "deferred, not dropped"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn another_uid_is_another_object() {
        let mut fixture = Fixture::new();
        fixture.see(Apply(object("old", 1, &json!({}))));
        assert!(fixture.see(Apply(object("new", 1, &json!({})))).is_some());
        assert_eq!(*fixture.deleted.lock().unwrap(), ["old"]);
        fixture.see(Delete(object("new", 1, &json!({}))));
        assert_eq!(*fixture.deleted.lock().unwrap(), ["old", "new"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_new_list_lacks_was_deleted_unseen() {
        let mut fixture = Fixture::new();
        fixture.see(Init);
        fixture.see(InitApply(object("u", 1, &json!({}))));
        fixture.see(InitDone);
        assert!(*fixture.watch.store.synced().borrow());
        fixture.see(Init);
        assert!(fixture.see(InitDone).is_none());
        assert_eq!(*fixture.deleted.lock().unwrap(), ["u"]);
        assert!(fixture.watch.store.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_credential_that_vanishes_without_an_edit_is_noticed() {
        let mut fixture = Fixture::new();
        let with = json!({"spec": {"credential": "SpiffeCertificate"}});
        fixture.see(Apply(object("u", 1, &with)));
        let key = fixture
            .see(Apply(object("u", 1, &json!({}))))
            .expect("a pass that refuses it");
        assert!(fixture.watch.store.lost_credential(&key, 1));
        fixture.see(Apply(object("u", 1, &with)));
        assert!(!fixture.watch.store.lost_credential(&key, 1), "healed");
        fixture.see(Apply(object("u", 2, &json!({}))));
        assert!(
            !fixture.watch.store.lost_credential(&key, 2),
            "somebody edited the object"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreadable_object_leaves_the_earlier_one() {
        let mut fixture = Fixture::new();
        let key = fixture.see(Apply(object("u", 1, &json!({})))).unwrap();
        fixture.see(Apply(object("u", 2, &json!({"spec": {"url": 7}}))));
        assert_eq!(fixture.watch.store.get(&key).unwrap().metadata.generation, Some(1));
        let mut newer = OciRepository::clone(&fixture.watch.store.get(&key).unwrap());
        newer.metadata.resource_version = Some("10".to_owned());
        fixture.watch.store.replace_if_newer(newer.clone());
        newer.metadata.resource_version = Some("9".to_owned());
        fixture.watch.store.replace_if_newer(newer);
        assert_eq!(
            fixture
                .watch
                .store
                .get(&key)
                .unwrap()
                .metadata
                .resource_version
                .as_deref(),
            Some("10")
        );
    }
}
