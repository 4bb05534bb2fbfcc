//! When a referent is read and when not, against a stand-in for the API server that counts what it is asked and takes a second
//! for each answer.

use std::{
    convert::Infallible,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use futures::future::{BoxFuture, join_all};
use http::{Request, Response};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{
    Client,
    client::Body,
    core::PartialObjectMeta,
    runtime::watcher::Event::{self, Apply, Delete, Init, InitDone},
};
use serde_json::json;

use super::*;
use crate::watch::{Queue, ReferentFollower};

/// Holds one Secret `proxy`, or none.
#[derive(Clone, Default)]
struct ApiServer {
    /// The version that is there.
    version: Arc<Mutex<Option<u32>>>,
    asked: Arc<AtomicUsize>,
}

impl ApiServer {
    fn answer(&self) -> (u16, serde_json::Value) {
        match *self.version.lock().unwrap_or_else(PoisonError::into_inner) {
            None => (404, json!({"kind": "Status", "code": 404, "reason": "NotFound"})),
            // The base64 of http://proxy.
            Some(version) => (
                200,
                json!({"metadata": {"name": "proxy", "uid": "u", "resourceVersion": version.to_string()},
                    "data": {"address": "aHR0cDovL3Byb3h5"}}),
            ),
        }
    }
}

impl tower_service::Service<Request<Body>> for ApiServer {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        self.asked.fetch_add(1, Ordering::Relaxed);
        // What is there when it is asked, told later.
        let (status, body) = self.answer();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut response = Response::new(Body::from(body.to_string().into_bytes()));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            Ok(response)
        })
    }
}

struct Scene {
    server: ApiServer,
    client: Client,
    known: KnownReferents,
    follower: ReferentFollower,
}

impl Scene {
    fn new() -> Self {
        let server = ApiServer::default();
        let follower = ReferentFollower {
            index: Arc::default(),
            queue: Arc::new(Queue::default()),
        };
        Self {
            client: Client::new(server.clone(), "default"),
            server,
            known: KnownReferents::new(&follower.index),
            follower,
        }
    }

    /// The same with a watch that has listed everything.
    fn watched() -> Self {
        let scene = Self::new();
        for event in [Init, InitDone] {
            scene.tell(&event);
        }
        for event in [Init, InitDone] {
            let kind = ReferentKind::ServiceAccount;
            scene.follower.handle::<ServiceAccount>(kind, &event);
        }
        scene
    }

    fn tell(&self, event: &Event<PartialObjectMeta<Secret>>) {
        self.follower.handle(ReferentKind::Secret, event);
    }

    fn set(&self, version: Option<u32>) {
        *self.server.version.lock().unwrap() = version;
    }

    /// What the object reads: the version, or why there is none. And how often the API server was asked in all.
    async fn read(&self, object: &str) -> (Result<String, Unread>, usize) {
        let read = self.known.proxies.get(&self.client, &key(object), &proxy()).await;
        let version = read.unwrap().map(|proxy| proxy.version.clone());
        (version, self.server.asked.load(Ordering::Relaxed))
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey {
        namespace: "a".into(),
        name: name.into(),
    }
}

fn proxy() -> ReferentKey {
    ReferentKey {
        kind: ReferentKind::Secret,
        key: key("proxy"),
    }
}

fn meta(version: u32) -> PartialObjectMeta<Secret> {
    let meta = json!({"metadata": {"namespace": "a", "name": "proxy", "resourceVersion": version.to_string()}});
    serde_json::from_value(meta).unwrap()
}

fn found(version: u32) -> String {
    format!("u/{version}")
}

#[tokio::test(start_paused = true)]
async fn unwatched_it_is_read_each_time() {
    let scene = Scene::new();
    assert_eq!(scene.read("app").await, (Err(Unread::NotFound), 1));
    scene.set(Some(5));
    assert_eq!(scene.read("app").await, (Ok(found(5)), 2));
    assert_eq!(scene.read("app").await, (Ok(found(5)), 3));
    assert!(scene.known.has_unwatched(&key("app")));
}

#[tokio::test(start_paused = true)]
async fn watched_it_is_read_once_for_each_change_and_all_objects() {
    let scene = Scene::watched();
    let names: Vec<_> = (0..50).map(|number| format!("app-{number}")).collect();
    let all = async || {
        let reads = join_all(names.iter().map(|name| scene.read(name))).await;
        assert!(reads.iter().all(|(read, _)| *read == reads[0].0), "all read the same");
        (reads[0].0.clone(), scene.server.asked.load(Ordering::Relaxed))
    };
    assert_eq!(all().await, (Err(Unread::NotFound), 1));
    assert_eq!(all().await, (Err(Unread::NotFound), 1), "that it is missing is known");
    scene.set(Some(5));
    scene.tell(&Apply(meta(5)));
    assert_eq!(all().await, (Ok(found(5)), 2));
    assert_eq!(all().await, (Ok(found(5)), 2));
    scene.set(None);
    scene.tell(&Delete(meta(6)));
    assert_eq!(all().await, (Err(Unread::NotFound), 3));
    assert!(!scene.known.has_unwatched(&key("app-0")));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_is_told_while_it_is_read_is_read_too() {
    let scene = Scene::watched();
    scene.set(Some(5));
    let change = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        scene.set(Some(7));
        scene.tell(&Apply(meta(7)));
    };
    let (read, ()) = futures::join!(scene.read("app"), change);
    assert_eq!(read, (Ok(found(7)), 2));
}

#[tokio::test(start_paused = true)]
async fn it_is_kept_until_nobody_refers_to_it() {
    let scene = Scene::watched();
    scene.set(Some(5));
    assert_eq!(scene.read("one").await, (Ok(found(5)), 1));
    assert_eq!(scene.read("two").await, (Ok(found(5)), 1));
    scene.known.forget(&key("one"));
    let kept = scene.known.proxies.kept(&key("two"), &proxy());
    assert!(kept.is_some_and(|kept| kept.is_ok()));
    scene.known.forget(&key("two"));
    assert!(scene.known.proxies.kept(&key("two"), &proxy()).is_none());
    assert_eq!(scene.read("two").await, (Ok(found(5)), 2));
}
