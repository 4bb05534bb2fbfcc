//! What a watch event makes of store and queue: which changes ask for a pass, what counts as deleted, who else wrote.

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
async fn another_writer_is_told_once_per_write() {
    let mut fixture = Fixture::new();
    let told: Arc<Mutex<u32>> = Arc::default();
    let count = told.clone();
    fixture.watch = fixture
        .watch
        .with_foreign_writes(Box::new(move |_| *count.lock().unwrap() += 1));
    let written = |ours: u8, theirs: u8| {
        let entry = |manager: &str, second: u8| {
            json!({"manager": manager, "operation": "Update", "subresource": "status",
                "time": format!("2026-01-01T00:00:{second:02}Z")})
        };
        let fields = json!([entry("mintmark", ours), entry("other", theirs)]);
        object("u", 1, &json!({"metadata": {"managedFields": fields}}))
    };
    let key = fixture.see(Apply(written(1, 0))).unwrap();
    assert_eq!(fixture.watch.store.foreign_write(&key), None);
    for _ in 0..2 {
        fixture.see(Apply(written(1, 2)));
    }
    let held = fixture.watch.store.get(&key).unwrap();
    assert!(held.metadata.managed_fields.is_none(), "pruned");
    let write = fixture.watch.store.foreign_write(&key).unwrap();
    assert_eq!((write.manager.as_str(), *told.lock().unwrap()), ("other", 1));
    fixture.see(Apply(written(3, 2)));
    assert_eq!(fixture.watch.store.foreign_write(&key), None, "ours is newer again");
    fixture.see(Apply(written(3, 4)));
    assert_eq!(*told.lock().unwrap(), 2);
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
