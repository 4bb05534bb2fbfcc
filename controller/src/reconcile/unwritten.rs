//! What passes found and could not write to the API server: it was away, or this process may not write until it leads again.
//! Pulls go on meanwhile; their outcome is written as soon as that is possible, not after the next interval or backoff.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};

use super::Shared;
use crate::{
    runtime::{
        api_server::{is_unreachable, timely},
        lease::LeaderState,
    },
    watch::{ObjectKey, Queue},
};

/// Time between questions whether the API server is back.
const PROBE: Duration = Duration::from_secs(1);
/// The longest time between two rounds in which what is left is tried again, although the API server seems to work.
const MAX_PAUSE: Duration = Duration::from_mins(1);

/// So often may the API server refuse to say whether it is ready, before it counts as working: at its start it knows nobody's
/// rights, and somewhere this question may be forbidden for good.
const REFUSALS: u32 = 5;

/// An object whose newest outcome is not written.
#[derive(Debug)]
struct Kept<T> {
    uid: String,
    /// What was there when its status was last true: decides what is announced.
    previous: T,
}

/// The objects of one kind whose outcome is still to be written. `T` is what is kept of what was there before.
#[derive(Debug)]
pub struct Unwritten<T> {
    kept: Mutex<HashMap<ObjectKey, Kept<T>>>,
    changed: Notify,
}

impl<T> Default for Unwritten<T> {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

impl<T: Clone> Unwritten<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Kept<T>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcome of a pass over the object was not written. `previous` is what was there before that pass; the first
    /// one counts.
    pub fn keep(&self, key: &ObjectKey, uid: &str, previous: T) {
        let mut kept = self.lock();
        if kept.get(key).is_none_or(|held| held.uid != uid) {
            let uid = uid.to_owned();
            kept.insert(key.clone(), Kept { uid, previous });
        }
        drop(kept);
        self.changed.notify_one();
    }

    /// What was there before the first pass whose outcome was not written, if there is one.
    pub fn previous(&self, key: &ObjectKey, uid: &str) -> Option<T> {
        let kept = self.lock();
        let held = kept.get(key).filter(|held| held.uid == uid)?;
        Some(held.previous.clone())
    }

    /// The object's status is true again, or the object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    /// Forgets everything: another process writes from now on.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn is_idle(&self, shared: &Shared) -> bool {
        !shared.api_server.is_down() && self.lock().is_empty()
    }

    /// Asks for the API server while it is away, and has what is unwritten reconciled once more when it is back and this
    /// process leads. Runs for ever.
    pub async fn run(self: Arc<Self>, shared: Arc<Shared>, queue: Arc<Queue<ObjectKey>>) {
        loop {
            while self.is_idle(&shared) {
                tokio::select! {
                    () = self.changed.notified() => {}
                    () = shared.api_server.down() => {}
                }
            }
            self.write_all(&shared, &queue).await;
        }
    }

    /// Ends when nothing is left. Rounds that leave something, though the API server seems to work, get rarer.
    async fn write_all(&self, shared: &Shared, queue: &Queue<ObjectKey>) {
        let mut states = shared.leadership.subscribe();
        // Whoever asks for another kind may be told first that it is back.
        let mut was_down = false;
        let mut pause = PROBE;
        let mut next_round = Instant::now();
        let mut refusals = 0;
        while !self.is_idle(shared) {
            // A failed wait means that nobody elects; then this process leads.
            let _ = states.wait_for(|state| *state == LeaderState::Leading).await;
            was_down |= shared.api_server.is_down();
            match timely(shared.client.request_text(request())).await {
                Ok(_) => refusals = REFUSALS,
                Err(error) if is_unreachable(&error) => refusals = 0,
                Err(_) => refusals += 1,
            }
            if refusals < REFUSALS {
                sleep(PROBE).await;
                continue;
            }
            shared.api_server.answered();
            if std::mem::take(&mut was_down) {
                next_round = Instant::now();
            }
            if Instant::now() >= next_round {
                let keys: Vec<_> = self.lock().keys().cloned().collect();
                for key in &keys {
                    queue.push(key);
                }
                next_round = Instant::now() + pause;
                pause = (pause * 2).min(MAX_PAUSE);
            }
            tokio::select! {
                () = sleep_until(next_round) => {}
                // It may have gone again, which is to be noticed before the next round.
                () = sleep(PROBE) => {}
            }
        }
    }
}

/// Answered by every API server, also to accounts without rights unless somebody took this one away.
fn request() -> http::Request<Vec<u8>> {
    let mut request = http::Request::new(Vec::new());
    *request.uri_mut() = http::Uri::from_static("/readyz");
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::Record;

    fn record() -> Arc<Record> {
        let record = serde_json::json!({"format": 1, "binding": {"uid": "u", "url": "oci://r/app"}, "revision": "v1",
            "file": {"name": "f", "digest": "sha256:0", "size": 1, "mtime": "2026-01-01T00:00:00Z"}, "path": "p",
            "last_update_time": "2026-01-01T00:00:00Z"});
        Arc::new(serde_json::from_value(record).unwrap())
    }

    fn key() -> ObjectKey {
        ObjectKey {
            namespace: "a".into(),
            name: "app".into(),
        }
    }

    #[test]
    fn the_first_unwritten_pass_decides_what_was_there_before() {
        let unwritten = Unwritten::default();
        assert_eq!(unwritten.previous(&key(), "u"), None);
        unwritten.keep(&key(), "u", None);
        unwritten.keep(&key(), "u", Some(record()));
        assert_eq!(unwritten.previous(&key(), "u"), Some(None));
        assert_eq!(unwritten.previous(&key(), "recreated"), None);
        unwritten.keep(&key(), "recreated", Some(record()));
        assert!(
            unwritten
                .previous(&key(), "recreated")
                .is_some_and(|held| held.is_some())
        );
        unwritten.forget(&key());
        assert_eq!(unwritten.previous(&key(), "recreated"), None);
    }
}
