//! From events to the queue. What is asked of a real API server, and what happens without the rights, the e2e suites show.

use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    core::PartialObjectMeta,
    runtime::watcher::Event::{Apply, Init, InitApply, InitDone},
};
use serde_json::json;

use super::*;
use crate::watch::Queue;

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        namespace: "a".into(),
        name: name.into(),
    }
}

fn referent(name: &str) -> ReferentKey {
    ReferentKey {
        kind: ReferentKind::Secret,
        key: key(name),
    }
}

fn secret(name: &str, version: &str) -> PartialObjectMeta<Secret> {
    serde_json::from_value(json!({"metadata": {"namespace": "a", "name": name, "resourceVersion": version}})).unwrap()
}

fn follower() -> ReferentFollower {
    ReferentFollower {
        index: Arc::default(),
        queue: Arc::default(),
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_refer_to_it_are_queued_the_first_at_once() {
    let follower = follower();
    for name in ["one", "two"] {
        follower.index.depend(&key(name), &referent("login"));
    }
    follower.index.has_read(&referent("login"), 5, true);
    let queue: &Queue<_> = &follower.queue;
    for event in [
        Init,
        InitApply(secret("login", "5")),
        InitApply(secret("other", "6")),
        InitDone,
    ] {
        follower.handle(ReferentKind::Secret, &event);
    }
    assert!(queue.next().now_or_never().is_none(), "nothing has changed");
    follower.handle(ReferentKind::Secret, &Apply(secret("login", "7")));
    let (first, _) = queue.next().now_or_never().unwrap();
    assert!(queue.next().now_or_never().is_none(), "the other a moment later");
    let (second, _) = queue.next().await;
    assert_ne!(first, second);
}
