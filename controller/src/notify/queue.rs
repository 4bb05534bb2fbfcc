//! A bounded queue that is fair between namespaces: they are served in turn, and when it is full, the namespace with the
//! most waiting loses its oldest item. One tenant's flood costs only that tenant.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The pure part.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    capacity: usize,
    waiting: HashMap<Arc<str>, VecDeque<T>>,
    /// Namespaces with waiting items and none in delivery, next first.
    turn: VecDeque<Arc<str>>,
    /// Namespaces with an item in delivery: the order within a namespace is kept.
    busy: HashSet<Arc<str>>,
    len: usize,
}

impl<T> FairQueue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            waiting: HashMap::new(),
            turn: VecDeque::new(),
            busy: HashSet::new(),
            len: 0,
        }
    }

    /// Adds `item`; returns what had to go for it.
    pub(super) fn push(&mut self, namespace: Arc<str>, item: T) -> Option<T> {
        let items = self.waiting.entry(Arc::clone(&namespace)).or_default();
        let first = items.is_empty();
        items.push_back(item);
        self.len += 1;
        if first && !self.busy.contains(&namespace) {
            self.turn.push_back(namespace);
        }
        if self.len > self.capacity { self.shed() } else { None }
    }

    fn shed(&mut self) -> Option<T> {
        let longest = self
            .waiting
            .iter()
            .max_by_key(|(_, items)| items.len())
            .map(|(name, _)| Arc::clone(name))?;
        let dropped = self.take(&longest);
        if !self.waiting.contains_key(&longest) {
            self.turn.retain(|namespace| *namespace != longest);
        }
        dropped
    }

    /// The next item, its namespace being busy from then on.
    pub(super) fn pop(&mut self) -> Option<(Arc<str>, T)> {
        let namespace = self.turn.pop_front()?;
        let item = self.take(&namespace)?;
        self.busy.insert(Arc::clone(&namespace));
        Some((namespace, item))
    }

    fn take(&mut self, namespace: &Arc<str>) -> Option<T> {
        let items = self.waiting.get_mut(namespace)?;
        let item = items.pop_front()?;
        self.len -= 1;
        if items.is_empty() {
            self.waiting.remove(namespace);
        }
        Some(item)
    }

    /// The delivery for `namespace` is over: its next item takes its place at the end of the turn.
    pub(super) fn release(&mut self, namespace: &Arc<str>) {
        if self.busy.remove(namespace) && self.waiting.contains_key(namespace) {
            self.turn.push_back(Arc::clone(namespace));
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The queue between recorders and one sink.
#[derive(Debug)]
pub(super) struct Queue<T> {
    items: Mutex<FairQueue<T>>,
    added: Notify,
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            items: Mutex::new(FairQueue::new(capacity)),
            added: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, FairQueue<T>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`FairQueue::push`].
    pub(super) fn push(&self, namespace: Arc<str>, item: T) -> Option<T> {
        let dropped = self.lock().push(namespace, item);
        self.added.notify_one();
        dropped
    }

    async fn next(&self) -> (Arc<str>, T) {
        loop {
            if let Some(next) = self.lock().pop() {
                return next;
            }
            self.added.notified().await;
        }
    }

    /// Calls `deliver` for each item, for up to `workers` namespaces at a time, until `stop` is cancelled and nothing is
    /// left.
    pub(super) async fn deliver_all<D, F>(&self, workers: usize, stop: CancellationToken, deliver: D)
    where
        D: Fn(T) -> F,
        F: Future<Output = ()>,
    {
        let mut deliveries = FuturesUnordered::new();
        loop {
            let drained = deliveries.is_empty() && self.lock().is_empty();
            tokio::select! {
                Some(namespace) = deliveries.next() => self.lock().release(&namespace),
                (namespace, item) = self.next(), if deliveries.len() < workers => {
                    let delivery = deliver(item);
                    deliveries.push(async move {
                        delivery.await;
                        namespace
                    });
                }
                () = stop.cancelled(), if drained => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn push(queue: &mut FairQueue<u32>, namespace: &str, item: u32) -> Option<u32> {
        queue.push(namespace.into(), item)
    }

    /// Pops and releases at once.
    fn pop(queue: &mut FairQueue<u32>) -> Option<u32> {
        let (namespace, item) = queue.pop()?;
        queue.release(&namespace);
        Some(item)
    }

    #[test]
    fn namespaces_take_turns() {
        let mut queue = FairQueue::new(10);
        for item in 1..=3 {
            push(&mut queue, "loud", item);
        }
        push(&mut queue, "quiet", 100);
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue)).collect();
        assert_eq!(order, [1, 100, 2, 3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn the_flooding_namespace_loses_its_oldest() {
        let mut queue = FairQueue::new(3);
        assert_eq!(push(&mut queue, "quiet", 100), None);
        assert_eq!(push(&mut queue, "loud", 1), None);
        assert_eq!(push(&mut queue, "loud", 2), None);
        assert_eq!(push(&mut queue, "loud", 3), Some(1));
        assert_eq!(push(&mut queue, "other", 200), Some(2));
        let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue)).collect();
        assert_eq!(order, [100, 3, 200]);
    }

    #[test]
    fn a_namespace_in_delivery_waits_for_its_release() {
        let mut queue = FairQueue::new(10);
        push(&mut queue, "a", 1);
        push(&mut queue, "a", 2);
        let (namespace, first) = queue.pop().unwrap();
        assert_eq!((first, queue.pop()), (1, None));
        queue.release(&namespace);
        assert_eq!(pop(&mut queue), Some(2));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_doubled_or_reordered(pushes in proptest::collection::vec((0_u8..5, any::<bool>()), 0..200)) {
            let mut queue = FairQueue::new(7);
            let (mut out, mut busy) = (Vec::new(), Vec::new());
            let mut dropped = Vec::new();
            for (number, (namespace, also_pop)) in (0_u32..).zip(&pushes) {
                dropped.extend(queue.push(namespace.to_string().into(), (*namespace, number)));
                prop_assert!(queue.len <= 7);
                if *also_pop {
                    if let Some((name, item)) = queue.pop() {
                        prop_assert!(!busy.contains(&name));
                        busy.push(name);
                        out.push(item);
                    } else if let Some(name) = busy.pop() {
                        queue.release(&name);
                    }
                }
            }
            for name in busy.drain(..) {
                queue.release(&name);
            }
            while let Some((name, item)) = queue.pop() {
                queue.release(&name);
                out.push(item);
            }
            prop_assert!(queue.is_empty());
            prop_assert_eq!(out.len() + dropped.len(), pushes.len());
            for namespace in 0..5 {
                let of_namespace: Vec<_> = out.iter().filter(|(of, _)| *of == namespace).collect();
                prop_assert!(of_namespace.is_sorted());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_stop_the_rest_is_delivered() {
        let queue = Queue::new(10);
        for item in 0..5 {
            queue.push("a".into(), item);
        }
        let stop = CancellationToken::new();
        stop.cancel();
        let delivered = Mutex::new(Vec::new());
        let seen = &delivered;
        queue
            .deliver_all(2, stop, |item| async move { seen.lock().unwrap().push(item) })
            .await;
        assert_eq!(delivered.into_inner().unwrap(), [0, 1, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_delivery_does_not_hold_up_another_namespace() {
        let queue = Arc::new(Queue::new(10));
        let (stop, fast) = (CancellationToken::new(), Arc::new(Notify::new()));
        let (source, seen, until) = (Arc::clone(&queue), Arc::clone(&fast), stop.clone());
        let sink = tokio::spawn(async move {
            let deliver = |item| {
                let seen = Arc::clone(&seen);
                async move {
                    match item {
                        "slow" => tokio::time::sleep(std::time::Duration::from_mins(1)).await,
                        _ => seen.notify_one(),
                    }
                }
            };
            source.deliver_all(2, until, deliver).await;
        });
        let start = tokio::time::Instant::now();
        queue.push("a".into(), "slow");
        queue.push("b".into(), "fast");
        fast.notified().await;
        assert_eq!(start.elapsed(), std::time::Duration::ZERO);
        stop.cancel();
        sink.await.unwrap();
    }
}
