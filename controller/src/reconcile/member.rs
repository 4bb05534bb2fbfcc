//! What the process asks of each kind that it reconciles, whichever it is.

use std::{collections::HashSet, sync::Arc, time::Duration};

use kube::ResourceExt;
use tokio::time::Instant;

use super::{Context, Reconciled};
use crate::{artifact::Usage, runtime::lease::LeaderState, watch::ObjectKey};

/// One of the kinds that a process reconciles.
pub trait Member: Send + Sync {
    /// How many objects there are.
    fn count(&self) -> usize;

    /// Calls `visit(kind, namespace, name, ready)` for each object.
    fn visit(&self, visit: &mut dyn FnMut(&str, &str, &str, bool));

    /// Plans a pass over each object with one of these UIDs, spread over the time `spread` from `now` on.
    fn plan(&self, uids: &HashSet<Arc<str>>, now: Instant, spread: Duration);

    /// Shows how many objects are due and how many have a pass.
    fn show_queue(&self);

    /// What its files take, if it has any, and the bytes that are free where they are.
    fn usage(&self) -> Option<(Usage, u64)>;
}

impl<K: Reconciled> Member for Context<K> {
    fn count(&self) -> usize {
        self.store.len()
    }

    fn visit(&self, visit: &mut dyn FnMut(&str, &str, &str, bool)) {
        for object in self.store.objects() {
            let key = ObjectKey::of(object.as_ref());
            visit(K::KIND, &key.namespace, &key.name, object.is_ready() == Some(true));
        }
    }

    fn plan(&self, uids: &HashSet<Arc<str>>, now: Instant, spread: Duration) {
        for object in self.store.objects() {
            if object.uid().is_some_and(|uid| uids.contains(uid.as_str())) {
                let at = now + spread.mul_f64(rand::random_range(0.0..1.0));
                self.queue.push_at(&ObjectKey::of(object.as_ref()), at);
            }
        }
    }

    fn show_queue(&self) {
        let is_standby = self.leadership.state() == LeaderState::Standby;
        let depth = if is_standby { 0 } else { self.queue.overdue() };
        self.metrics.set_queue_depth(K::KIND, depth);
        self.metrics.set_running_passes(K::KIND, self.queue.running());
    }

    fn usage(&self) -> Option<(Usage, u64)> {
        let storage = K::storage(self)?;
        Some((storage.usage(), storage.free_bytes().unwrap_or_default()))
    }
}
