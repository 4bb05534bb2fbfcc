//! The open connections of one port, and who of them gives way when there is no place left: the one that has waited longest
//! without a request in progress. A flood of connections that send nothing thus pushes itself out, instead of holding
//! every place until its timeouts.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{Limits, connection::Activity};

/// How soon another look is taken for a connection that can give way, when all were busy.
const LOOK: Duration = Duration::from_millis(100);

/// Places for [`Limits::max_connections`] connections.
pub(super) struct Table {
    permits: Arc<Semaphore>,
    limits: Limits,
    slots: Arc<Mutex<Slots>>,
}

#[derive(Default)]
struct Slots {
    next: u64,
    by_id: BTreeMap<u64, Slot>,
}

struct Slot {
    activity: Arc<Activity>,
    evict: CancellationToken,
}

/// One connection's place, free again when this is dropped.
pub(super) struct Place {
    pub(super) activity: Arc<Activity>,
    /// Cancelled when the connection is to give way.
    pub(super) evict: CancellationToken,
    id: u64,
    slots: Arc<Mutex<Slots>>,
    _permit: OwnedSemaphorePermit,
}

impl Table {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limits.max_connections)),
            limits,
            slots: Arc::default(),
        }
    }

    /// A place for a connection that was just accepted. Cancel safe.
    pub(super) async fn place(&self) -> Place {
        loop {
            let permits = Arc::clone(&self.permits);
            if let Ok(permit) = permits.clone().try_acquire_owned() {
                return self.fill(permit);
            }
            lock(&self.slots).evict_oldest();
            if let Ok(Ok(permit)) = timeout(LOOK, permits.acquire_owned()).await {
                return self.fill(permit);
            }
        }
    }

    fn fill(&self, permit: OwnedSemaphorePermit) -> Place {
        let (activity, evict) = (Arc::new(Activity::new(self.limits)), CancellationToken::new());
        let mut slots = lock(&self.slots);
        let id = slots.next;
        slots.next += 1;
        let slot = Slot {
            activity: Arc::clone(&activity),
            evict: evict.clone(),
        };
        slots.by_id.insert(id, slot);
        drop(slots);
        Place {
            activity,
            evict,
            id,
            slots: Arc::clone(&self.slots),
            _permit: permit,
        }
    }
}

impl Slots {
    /// Tells the longest idle connection to go, unless one is going already.
    fn evict_oldest(&self) {
        let idle = || {
            let slots = self.by_id.values();
            slots.filter_map(|slot| Some((slot.activity.idle_since()?, slot)))
        };
        if idle().any(|(_, slot)| slot.evict.is_cancelled()) {
            return;
        }
        if let Some((_, slot)) = idle().min_by_key(|(since, _)| *since) {
            slot.evict.cancel();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.slots).by_id.remove(&self.id);
    }
}

fn lock(slots: &Mutex<Slots>) -> MutexGuard<'_, Slots> {
    slots.lock().unwrap_or_else(PoisonError::into_inner)
}
