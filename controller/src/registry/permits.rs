//! Who may talk to a host now: a bounded number of passes, handed out round robin between namespaces, at most half of them
//! to one namespace. Waiting holds nothing, and a waiter that goes away leaves no trace.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

pub(super) struct Permits {
    per_host: usize,
    hosts: Mutex<HashMap<Arc<str>, Host>>,
}

#[derive(Default)]
struct Host {
    in_use: usize,
    namespaces: HashMap<Arc<str>, Namespace>,
    /// Namespaces with waiters, the next one to serve first.
    turn: VecDeque<Arc<str>>,
}

#[derive(Default)]
struct Namespace {
    in_use: usize,
    waiting: VecDeque<oneshot::Sender<Permit>>,
}

/// The right to talk to one host, given back on drop.
pub(super) struct Permit {
    permits: Arc<Permits>,
    host: Arc<str>,
    namespace: Arc<str>,
    armed: bool,
}

impl Permits {
    /// `per_host` passes at a time per host, at least one.
    pub(super) fn new(per_host: usize) -> Arc<Self> {
        Arc::new(Self {
            per_host: per_host.max(1),
            hosts: Mutex::default(),
        })
    }

    /// Waits for a permit. Dropping the future gives up the place.
    pub(super) async fn acquire(self: &Arc<Self>, host: &Arc<str>, namespace: &Arc<str>) -> Permit {
        loop {
            let receiver = {
                let mut hosts = self.lock();
                let entry = hosts.entry(Arc::clone(host)).or_default();
                let (sender, receiver) = oneshot::channel();
                entry.enqueue(namespace, sender);
                self.serve(host, entry);
                receiver
            };
            // A sender is only dropped unused when its queue is discarded, which happens to empty queues alone.
            if let Ok(permit) = receiver.await {
                return permit;
            }
        }
    }

    /// Hands out what is free.
    fn serve(self: &Arc<Self>, host: &Arc<str>, entry: &mut Host) {
        let half = (self.per_host / 2).max(1);
        let mut passed_over = 0;
        while entry.in_use < self.per_host && passed_over < entry.turn.len() {
            let Some(name) = entry.turn.pop_front() else { return };
            let Some(namespace) = entry.namespaces.get_mut(&name) else {
                continue;
            };
            if namespace.in_use >= half {
                entry.turn.push_back(name);
                passed_over += 1;
                continue;
            }
            let Some(sender) = namespace.waiting.pop_front() else {
                continue;
            };
            // Whether or not the waiter is still there, the next one of this namespace has not been looked at.
            passed_over = 0;
            if !namespace.waiting.is_empty() {
                entry.turn.push_back(Arc::clone(&name));
            }
            let permit = Permit {
                permits: Arc::clone(self),
                host: Arc::clone(host),
                namespace: Arc::clone(&name),
                armed: true,
            };
            match sender.send(permit) {
                Ok(()) => {
                    namespace.in_use += 1;
                    entry.in_use += 1;
                }
                // The waiter is gone. Its permit was never counted, and dropping it armed would lock again.
                Err(mut permit) => permit.armed = false,
            }
        }
    }

    fn release(self: &Arc<Self>, host: &Arc<str>, namespace: &Arc<str>) {
        let mut hosts = self.lock();
        let Some(entry) = hosts.get_mut(host) else { return };
        entry.in_use = entry.in_use.saturating_sub(1);
        if let Some(namespace) = entry.namespaces.get_mut(namespace) {
            namespace.in_use = namespace.in_use.saturating_sub(1);
        }
        self.serve(host, entry);
        entry
            .namespaces
            .retain(|_, namespace| namespace.in_use > 0 || !namespace.waiting.is_empty());
        if entry.namespaces.is_empty() {
            hosts.remove(host);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Host>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    fn enqueue(&mut self, name: &Arc<str>, sender: oneshot::Sender<Permit>) {
        let namespace = self.namespaces.entry(Arc::clone(name)).or_default();
        if namespace.waiting.is_empty() && !self.turn.contains(name) {
            self.turn.push_back(Arc::clone(name));
        }
        namespace.waiting.push_back(sender);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.armed {
            self.permits.release(&self.host, &self.namespace);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, future::BoxFuture};
    use proptest::prelude::*;

    use super::*;

    fn start(permits: &Arc<Permits>, namespace: &str) -> BoxFuture<'static, Permit> {
        let (permits, namespace) = (Arc::clone(permits), Arc::<str>::from(namespace));
        async move { permits.acquire(&"host".into(), &namespace).await }.boxed()
    }

    fn now(future: &mut BoxFuture<'static, Permit>) -> Option<Permit> {
        future.now_or_never()
    }

    #[test]
    fn a_namespace_gets_at_most_half() {
        let permits = Permits::new(4);
        let held: Vec<_> = (0..2).map(|_| now(&mut start(&permits, "a")).unwrap()).collect();
        let mut third = start(&permits, "a");
        assert!(now(&mut third).is_none());
        let others: Vec<_> = (0..2).map(|_| now(&mut start(&permits, "b")).unwrap()).collect();
        assert!(now(&mut start(&permits, "c")).is_none(), "the host is full");
        drop(others);
        assert!(now(&mut third).is_none(), "a still has its half");
        drop(held);
        assert!(now(&mut third).is_some());
    }

    #[test]
    fn namespaces_take_turns() {
        let permits = Permits::new(2);
        let first = now(&mut start(&permits, "a")).unwrap();
        let second = now(&mut start(&permits, "z")).unwrap();
        let mut waiting: Vec<_> = ["a", "a", "b", "b"]
            .map(|name| start(&permits, name))
            .into_iter()
            .collect();
        assert!(waiting.iter_mut().all(|future| now(future).is_none()));
        drop(first);
        let a = now(&mut waiting[0]).expect("a waited first");
        drop(second);
        let b = now(&mut waiting[2]).expect("then it is b's turn");
        drop((a, b));
        assert!(now(&mut waiting[1]).is_some() && now(&mut waiting[3]).is_some());
    }

    #[test]
    fn a_waiter_that_left_takes_nothing_along() {
        let permits = Permits::new(1);
        let held = now(&mut start(&permits, "a")).unwrap();
        let mut abandoned = start(&permits, "a");
        assert!(now(&mut abandoned).is_none());
        let mut granted_and_dropped = start(&permits, "b");
        assert!(now(&mut granted_and_dropped).is_none());
        let mut last = start(&permits, "c");
        assert!(now(&mut last).is_none());
        drop(abandoned);
        drop(held);
        drop(granted_and_dropped);
        assert!(now(&mut last).is_some());
        assert!(permits.lock().is_empty(), "nothing is kept for idle hosts");
    }

    /// Grants go by namespace, not by place in the queue: who comes last waits for one turn, whatever the others queued.
    #[test]
    fn a_crowd_of_one_namespace_does_not_delay_another() {
        let permits = Permits::new(4);
        let mut crowd: Vec<_> = (0..300).map(|_| start(&permits, "crowd")).collect();
        let mut held: Vec<_> = crowd.iter_mut().filter_map(now).collect();
        assert_eq!(held.len(), 2, "half of the host");
        let rest: Vec<_> = (0..2).map(|_| now(&mut start(&permits, "a")).unwrap()).collect();
        let mut late = start(&permits, "late");
        assert!(now(&mut late).is_none(), "the host is full");
        drop(rest);
        assert!(now(&mut late).is_some(), "before 298 who waited longer");
        held.clear();
        assert_eq!(
            crowd.iter_mut().skip(2).filter_map(now).count(),
            298,
            "and nobody is forgotten"
        );
    }

    #[test]
    fn those_who_left_do_not_hide_those_behind_them() {
        let permits = Permits::new(2);
        let held: Vec<_> = ["full", "b"]
            .iter()
            .map(|name| now(&mut start(&permits, name)).unwrap())
            .collect();
        let [mut full, mut gone, mut stays] = ["full", "b", "b"].map(|name| start(&permits, name));
        for future in [&mut full, &mut gone, &mut stays] {
            assert!(now(future).is_none());
        }
        drop(gone);
        let [_full, b] = held.try_into().ok().unwrap();
        drop(b);
        assert!(now(&mut stays).is_some(), "a permit is free for it");
    }

    #[test]
    fn hosts_know_nothing_of_each_other() {
        let permits = Permits::new(1);
        let namespace = Arc::from("a");
        let held = permits.acquire(&"first".into(), &namespace).now_or_never().unwrap();
        assert!(permits.acquire(&"first".into(), &namespace).now_or_never().is_none());
        assert!(permits.acquire(&"second".into(), &namespace).now_or_never().is_some());
        drop(held);
        assert!(permits.acquire(&"first".into(), &namespace).now_or_never().is_some());
    }

    proptest! {
        /// Whatever comes and goes: never more than the host allows, never more than half of it to one namespace, and
        /// nothing is left free that somebody may have.
        #[test]
        fn the_bounds_hold_and_nothing_lies_idle(
            per_host in 1_usize..6,
            steps in prop::collection::vec((0_usize..3, any::<bool>(), 0_usize..8), 1..80),
        ) {
            let permits = Permits::new(per_host);
            let half = (per_host / 2).max(1);
            let mut waiting: Vec<(usize, BoxFuture<'static, Permit>)> = Vec::new();
            let mut held: Vec<(usize, Permit)> = Vec::new();
            for (namespace, comes, which) in steps {
                if comes {
                    waiting.push((namespace, start(&permits, ["a", "b", "c"][namespace])));
                } else if which % 3 == 0 && !waiting.is_empty() {
                    drop(waiting.swap_remove(which % waiting.len()));
                } else if !held.is_empty() {
                    drop(held.swap_remove(which % held.len()));
                }
                for (namespace, mut future) in std::mem::take(&mut waiting) {
                    match now(&mut future) {
                        Some(permit) => held.push((namespace, permit)),
                        None => waiting.push((namespace, future)),
                    }
                }
                let of = |wanted: usize| held.iter().filter(|(namespace, _)| *namespace == wanted).count();
                prop_assert!(held.len() <= per_host);
                prop_assert!((0..3).all(|namespace| of(namespace) <= half));
                let starved = waiting.iter().any(|(namespace, _)| of(*namespace) < half);
                prop_assert!(held.len() == per_host || !starved, "{} held, {} wait", held.len(), waiting.len());
            }
        }
    }
}
