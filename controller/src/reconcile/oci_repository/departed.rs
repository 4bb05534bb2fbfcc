//! Objects that left this shard's label selector. A watch tells that in the same words as a deletion, so one live GET tells
//! the two apart. The files of an object that only left are served on until its `status.artifact.url` names another
//! controller, and for the retention after that, at most for a day; if it comes back meanwhile nothing was missing. Status
//! is read for this courtesy only. Needs get on the kind.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::{Api, ResourceExt};
use mintmark_api::oci_repository::{KIND, OciRepository};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{artifact, reconcile::Context, runtime::api_server::timely, watch::ObjectKey};

/// Files go after this time, whoever is named as serving them.
const LONGEST: Duration = Duration::from_hours(24);
/// First and longest time between looks at an object.
const LOOKS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(10));

/// What a look at a departed object came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It is gone, or another object has its name.
    Gone,
    /// Consumers are still sent to us.
    Ours,
    /// Another controller serves it.
    Theirs,
    /// The API server did not say.
    Unknown,
}

#[derive(Debug, Clone)]
struct Departure {
    uid: String,
    left: Instant,
    due: Instant,
    pause: Duration,
    /// Another controller serves it; what is left is the retention.
    is_theirs: bool,
    /// Whether the index names its files; after a restart it does not yet.
    is_served: bool,
}

impl Departure {
    fn new(uid: &str, is_served: bool, now: Instant) -> Self {
        Self {
            uid: uid.to_owned(),
            left: now,
            due: now,
            pause: LOOKS.0,
            is_theirs: false,
            is_served,
        }
    }

    /// Whether the files go now, without another look.
    fn is_over(&self, now: Instant) -> bool {
        self.is_theirs && now >= self.due || now >= self.left + LONGEST
    }

    /// Plans what comes after a look. Returns whether the files go now.
    fn after(&mut self, seen: Seen, retention: Duration, now: Instant) -> bool {
        match seen {
            Seen::Gone => return true,
            Seen::Theirs => {
                self.is_theirs = true;
                self.due = now + retention;
            }
            Seen::Ours | Seen::Unknown => {
                self.due = now + self.pause;
                self.pause = (self.pause * 2).min(LOOKS.1);
            }
        }
        self.due = self.due.min(self.left + LONGEST);
        self.is_over(now)
    }
}

/// The objects that left and whose files are kept.
#[derive(Debug, Default)]
pub struct Departed {
    held: Mutex<HashMap<ObjectKey, Departure>>,
    changed: Notify,
}

impl Departed {
    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Departure>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The watch no longer shows the object of this UID: it left, or it is gone. `is_served`: its files are in the index.
    pub fn add(&self, key: &ObjectKey, uid: &str, is_served: bool) {
        self.lock()
            .insert(key.clone(), Departure::new(uid, is_served, Instant::now()));
        self.changed.notify_one();
    }

    /// The UID of the departed object whose files are kept under this key.
    pub fn uid(&self, key: &ObjectKey) -> Option<String> {
        self.lock().get(key).map(|departure| departure.uid.clone())
    }

    async fn next(&self) -> (ObjectKey, Departure) {
        loop {
            let changed = self.changed.notified();
            let first = self
                .lock()
                .iter()
                .min_by_key(|(_, departure)| departure.due)
                .map(|(key, departure)| (key.clone(), departure.clone()));
            match first {
                Some(first) if first.1.due <= Instant::now() => return first,
                Some((_, departure)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(departure.due) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Puts back what was looked at, unless the object left anew meanwhile.
    fn keep(&self, key: &ObjectKey, departure: Departure) {
        if let Some(held) = self.lock().get_mut(key)
            && held.left == departure.left
        {
            *held = departure;
        }
    }

    fn forget(&self, key: &ObjectKey, departure: &Departure) {
        let mut held = self.lock();
        if held.get(key).is_some_and(|held| held.left == departure.left) {
            held.remove(key);
        }
    }
}

/// Looks after departed objects for ever; where there is no selector, none departs.
pub async fn run(ctx: Arc<Context<OciRepository>>, retention: Duration) {
    let Some(departed) = &ctx.own.departed else {
        return std::future::pending().await;
    };
    loop {
        let (key, departure) = departed.next().await;
        look(&ctx, departed, &key, departure, retention).await;
    }
}

/// Objects whose files an earlier process of this shard left and that the watch does not show: they may have left only.
pub(super) async fn find(ctx: &Arc<Context<OciRepository>>) {
    let Some(departed) = &ctx.own.departed else { return };
    let asked = ctx.clone();
    let unclaimed = tokio::task::spawn_blocking(move || asked.own.storage.unclaimed(|key| live_uid(&asked, key))).await;
    match unclaimed {
        Ok(Ok(unclaimed)) => {
            for (key, uid) in unclaimed {
                departed.add(&ObjectKey::from(&key), &uid, false);
            }
        }
        Ok(Err(error)) => tracing::error!(%error, "files of departed objects not looked for"),
        Err(_) => tracing::error!("the look for files of departed objects panicked"),
    }
}

/// Keeps the files of an object that the watch no longer shows, if they are its own and it may only have left. Returns
/// whether they are kept.
pub(super) fn keep(
    ctx: &Context<OciRepository>,
    key: &ObjectKey,
    storage_key: &artifact::ObjectKey,
    uid: &str,
) -> bool {
    let Some(departed) = &ctx.own.departed else {
        return false;
    };
    let may_have_left = ctx.store.get(key).is_none() && ctx.own.storage.owner(storage_key).as_deref() == Some(uid);
    if may_have_left {
        departed.add(key, uid, true);
    }
    may_have_left
}

async fn look(
    ctx: &Arc<Context<OciRepository>>,
    departed: &Departed,
    key: &ObjectKey,
    mut departure: Departure,
    retention: Duration,
) {
    if ctx.store.get(key).is_some() {
        // It came back, or another one has its name: the next pass and the sweep know what to do.
        departed.forget(key, &departure);
        return;
    }
    let is_over = departure.is_over(Instant::now()) || {
        let seen = ask(ctx, key, &departure.uid).await;
        if matches!(seen, Seen::Ours | Seen::Theirs) && !departure.is_served {
            serve(ctx, key, &departure.uid).await;
            departure.is_served = true;
        }
        departure.after(seen, retention, Instant::now())
    };
    if is_over {
        departed.forget(key, &departure);
        release(ctx, key).await;
    } else {
        departed.keep(key, departure);
    }
}

async fn ask(ctx: &Context<OciRepository>, key: &ObjectKey, uid: &str) -> Seen {
    let api: Api<OciRepository> = Api::namespaced(ctx.client.clone(), &key.namespace);
    match timely(api.get_opt(&key.name)).await {
        Ok(Some(object)) if object.uid().as_deref() == Some(uid) => {
            let artifact = object.status.and_then(|status| status.artifact);
            if artifact.is_some_and(|artifact| ctx.own.address.names(&artifact.url)) {
                Seen::Ours
            } else {
                Seen::Theirs
            }
        }
        Ok(_) => Seen::Gone,
        Err(error) => {
            tracing::debug!(controllerKind = KIND, namespace = &*key.namespace, name = &*key.name, %error,
                "a departed object could not be looked at");
            Seen::Unknown
        }
    }
}

/// Has the files of an earlier process served again.
async fn serve(ctx: &Arc<Context<OciRepository>>, key: &ObjectKey, uid: &str) {
    let (ctx, uid) = (ctx.clone(), uid.to_owned());
    let Ok(key) = artifact::ObjectKey::new(&key.namespace, &key.name) else {
        return;
    };
    // A failure leaves them unserved, as they were.
    let begun = tokio::task::spawn_blocking(move || ctx.own.storage.begin_pass(&key, &uid, Timestamp::now())).await;
    if let Ok(Err(error)) = begun {
        tracing::error!(%error, "files of a departed object not served");
    }
}

/// Removes the files, unless an object of the store has the key by now.
async fn release(ctx: &Arc<Context<OciRepository>>, key: &ObjectKey) {
    let Ok(storage_key) = artifact::ObjectKey::new(&key.namespace, &key.name) else {
        return;
    };
    let released = tokio::task::spawn_blocking({
        let ctx = ctx.clone();
        move || ctx.own.storage.release(&storage_key, |key| live_uid(&ctx, key))
    });
    match released.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::error!(%error, namespace = &*key.namespace, name = &*key.name,
                "files of an object that is gone or left were not removed; the next sweep tries again");
        }
        Err(_) => tracing::error!("the removal of an object's files panicked"),
    }
}

/// The UID of the object whose files are kept under a key: one of ours, or one that left.
pub(super) fn live_uid(ctx: &Context<OciRepository>, key: &artifact::ObjectKey) -> Option<String> {
    let key = ObjectKey::from(key);
    match ctx.store.get(&key) {
        Some(object) => object.uid(),
        None => ctx.own.departed.as_ref()?.uid(&key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETENTION: Duration = Duration::from_mins(1);

    fn departure() -> (Departure, Instant) {
        let now = Instant::now();
        (Departure::new("u", true, now), now)
    }

    #[tokio::test(start_paused = true)]
    async fn a_deleted_object_is_over_at_once() {
        let (mut departure, now) = departure();
        assert!(departure.after(Seen::Gone, RETENTION, now));
    }

    #[tokio::test(start_paused = true)]
    async fn files_stay_while_consumers_are_sent_here_and_for_the_retention() {
        let (mut departure, left) = departure();
        let mut now = left;
        for _ in 0..20 {
            assert!(!departure.after(Seen::Ours, RETENTION, now));
            now = departure.due;
        }
        assert_eq!(departure.pause, LOOKS.1);
        assert!(!departure.after(Seen::Theirs, RETENTION, now));
        assert_eq!(departure.due, now + RETENTION);
        assert!(!departure.is_over(now + RETENTION - Duration::from_secs(1)));
        assert!(departure.is_over(now + RETENTION));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_longer_than_a_day() {
        for seen in [Seen::Ours, Seen::Unknown, Seen::Theirs] {
            let (mut departure, left) = departure();
            let mut now = left;
            let mut looks = 0;
            while !departure.after(seen, 2 * LONGEST, now) {
                now = departure.due;
                looks += 1;
            }
            assert_eq!(now, left + LONGEST, "{seen:?}");
            assert!(looks < 200, "{seen:?}: {looks}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_left_anew_is_not_forgotten_by_an_earlier_look() {
        let departed = Departed::default();
        let key = ObjectKey {
            namespace: "a".into(),
            name: "app".into(),
        };
        departed.add(&key, "u", true);
        let (_, earlier) = departed.next().await;
        tokio::time::advance(RETENTION).await;
        departed.add(&key, "u", true);
        departed.forget(&key, &earlier);
        assert_eq!(departed.uid(&key).as_deref(), Some("u"));
        let (_, newer) = departed.next().await;
        departed.forget(&key, &newer);
        assert_eq!(departed.uid(&key), None);
    }
}
