//! The work queue: which object is to be reconciled next, and when. It holds each key at most once, never hands the
//! same key to two passes at a time, and remembers a wish that arrives while a pass is under way. Reads and writes
//! nothing but its own memory; nothing here can fail.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    hash::Hash,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Passes that are planned begin on the ticks of one clock, so that those due at about the same time share one awakening of
/// the process and one round through the scheduler.
const TICK: Duration = Duration::from_millis(100);
/// A plan shorter than this is kept to the instant.
const PUNCTUAL: Duration = Duration::from_secs(5);

/// A queue of keys, each with the time it is due.
#[derive(Debug)]
pub struct Queue<K> {
    inner: Mutex<Inner<K>>,
    changed: Notify,
    /// Keys handed out whose pass has not begun.
    lined_up: AtomicUsize,
}

#[derive(Debug)]
struct Inner<K> {
    /// Heap of (due, sequence, key); an item is void unless its sequence is the key's current one.
    heap: BinaryHeap<Reverse<(Instant, u64, K)>>,
    entries: HashMap<K, Entry>,
    sequence: u64,
    /// When the ticks began.
    epoch: Instant,
}

#[derive(Debug, Default)]
struct Entry {
    /// Sequence of the valid heap item and when it is due.
    queued: Option<(u64, Instant)>,
    running: bool,
    /// The object went while its pass was under way.
    removed: bool,
    /// A wish that arrived while the key was running.
    again: Option<Instant>,
    /// Start of the newest pass, and how many passes in a row have failed.
    last_start: Option<Instant>,
    failures: u32,
}

/// How a pass ended, which decides when the next one comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Not before something about the object changes.
    Never,
    /// After this time.
    After(Duration),
}

impl<K: Clone + Eq + Hash + Ord> Default for Queue<K> {
    fn default() -> Self {
        let inner = Inner {
            heap: BinaryHeap::new(),
            entries: HashMap::new(),
            sequence: 0,
            epoch: Instant::now(),
        };
        Self {
            inner: Mutex::new(inner),
            changed: Notify::new(),
            lined_up: AtomicUsize::new(0),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes `key` due now, whatever it was due before.
    pub fn push(&self, key: &K) {
        self.push_at(key, Instant::now());
    }

    /// Makes `key` due at `at`, or earlier if it already is.
    pub fn push_at(&self, key: &K, at: Instant) {
        self.lock().schedule(key, at);
        self.changed.notify_one();
    }

    /// Makes `key` due now, but not within `gap` of the start of its newest pass.
    pub fn push_spaced(&self, key: &K, gap: Duration) {
        let mut inner = self.lock();
        let now = Instant::now();
        let at = inner
            .entries
            .get(key)
            .and_then(|entry| entry.last_start)
            .map_or(now, |start| now.max(start + gap));
        inner.schedule(key, at);
        drop(inner);
        self.changed.notify_one();
    }

    /// Makes the first of `keys` due now and each further one `gap` later, or earlier if it already is. Failures are
    /// forgotten: what has changed may have mended them.
    pub fn push_spread(&self, keys: &[K], gap: Duration) {
        if keys.is_empty() {
            return;
        }
        let mut inner = self.lock();
        let mut due = Instant::now();
        for key in keys {
            if let Some(entry) = inner.entries.get_mut(key) {
                entry.failures = 0;
            }
            inner.schedule(key, due);
            due += gap;
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Makes all of `keys` due now, as if they were new: earlier due times and failures are forgotten.
    pub fn restart(&self, keys: &[K]) {
        let mut inner = self.lock();
        let now = Instant::now();
        for key in keys {
            if let Some(entry) = inner.entries.get_mut(key) {
                entry.queued = None;
                entry.failures = 0;
            }
            inner.schedule(key, now);
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Forgets `key`: a pass under way ends without a successor.
    pub fn remove(&self, key: &K) {
        let mut inner = self.lock();
        if let Some(entry) = inner.entries.get_mut(key) {
            if entry.running {
                entry.again = None;
                entry.removed = true;
            } else {
                inner.entries.remove(key);
            }
        }
    }

    /// Waits for the next due key and marks it as running, together with how long it was overdue.
    /// Every key handed out must be returned by [`Queue::done`].
    pub async fn next(&self) -> (K, Duration) {
        loop {
            let changed = self.changed.notified();
            let wait_until = {
                let mut inner = self.lock();
                match inner.take_due(Instant::now()) {
                    Ok(taken) => {
                        drop(inner);
                        // Another waiter may have slept through the item behind this one.
                        self.changed.notify_one();
                        return taken;
                    }
                    Err(due) => due,
                }
            };
            match wait_until {
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => changed.await,
            }
        }
    }

    /// Ends the running pass of `key`. A wish that arrived meanwhile wins over a later `next`.
    pub fn done(&self, key: &K, next: Next) {
        let mut inner = self.lock();
        let epoch = inner.epoch;
        let Some(entry) = inner.entries.get_mut(key) else {
            return;
        };
        entry.running = false;
        if entry.removed {
            inner.entries.remove(key);
            return;
        }
        let planned = match next {
            Next::Never => None,
            Next::After(delay) if delay < PUNCTUAL => Some(Instant::now() + delay),
            Next::After(delay) => Some(next_tick(epoch, Instant::now() + delay)),
        };
        let due = match (entry.again.take(), planned) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if let Some(due) = due {
            inner.schedule(key, due);
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Counts a failed pass and returns how many have failed in a row, this one included.
    pub fn failed(&self, key: &K) -> u32 {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(key) else {
            return 1;
        };
        entry.failures = entry.failures.saturating_add(1);
        entry.failures
    }

    /// Forgets earlier failures of `key`: its pass succeeded, or somebody edited the object.
    pub fn reset_failures(&self, key: &K) {
        if let Some(entry) = self.lock().entries.get_mut(key) {
            entry.failures = 0;
        }
    }

    /// Says how many of the keys that were handed out wait for the begin of their pass.
    pub fn set_lined_up(&self, waiting: usize) {
        self.lined_up.store(waiting, Ordering::Relaxed);
    }

    /// How many keys are due now and wait for their pass.
    pub fn overdue(&self) -> usize {
        let now = Instant::now();
        let overdue = self
            .lock()
            .entries
            .values()
            .filter(|entry| entry.queued.is_some_and(|(_, due)| due <= now))
            .count();
        overdue + self.lined_up.load(Ordering::Relaxed)
    }

    /// How many passes are under way.
    pub fn running(&self) -> usize {
        self.lock().entries.values().filter(|entry| entry.running).count()
    }
}

/// The first tick that is not before `at`.
fn next_tick(epoch: Instant, at: Instant) -> Instant {
    let past = at.saturating_duration_since(epoch).as_nanos() % TICK.as_nanos();
    let missing = (TICK.as_nanos() - past) % TICK.as_nanos();
    at + Duration::from_nanos(u64::try_from(missing).unwrap_or_default())
}

impl<K: Clone + Eq + Hash + Ord> Inner<K> {
    fn schedule(&mut self, key: &K, at: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.running {
            entry.removed = false;
            entry.again = Some(entry.again.map_or(at, |earlier| earlier.min(at)));
            return;
        }
        if entry.queued.is_some_and(|(_, due)| due <= at) {
            return;
        }
        self.sequence += 1;
        entry.queued = Some((self.sequence, at));
        self.heap.push(Reverse((at, self.sequence, key.clone())));
    }

    /// The first key due at `now`, or when the first one will be.
    fn take_due(&mut self, now: Instant) -> Result<(K, Duration), Option<Instant>> {
        while let Some(Reverse((due, sequence, _))) = self.heap.peek() {
            let (due, sequence) = (*due, *sequence);
            if due > now && self.is_current(sequence) {
                return Err(Some(due));
            }
            let Some(Reverse((_, _, key))) = self.heap.pop() else {
                break;
            };
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            if entry.queued.is_none_or(|(current, _)| current != sequence) {
                continue;
            }
            entry.queued = None;
            entry.running = true;
            entry.last_start = Some(now);
            return Ok((key, now.saturating_duration_since(due)));
        }
        Err(None)
    }

    fn is_current(&self, sequence: u64) -> bool {
        self.heap.peek().is_some_and(|Reverse((_, _, key))| {
            self.entries
                .get(key)
                .is_some_and(|entry| entry.queued.is_some_and(|(current, _)| current == sequence))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn hands_out_by_due_time_and_each_key_once() {
        let queue = Queue::default();
        queue.push_at(&"late", Instant::now() + 2 * SECOND);
        queue.push_at(&"soon", Instant::now() + SECOND);
        queue.push(&"soon");
        assert_eq!(queue.next().await.0, "soon");
        assert_eq!(queue.next().await.0, "late");
        assert!(
            queue.next().now_or_never().is_none(),
            "the earlier wish for `soon` replaced the later one"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_wish_during_a_pass_is_kept_and_never_runs_beside_it() {
        let queue = Queue::default();
        queue.push(&"a");
        let (key, _) = queue.next().await;
        queue.push(&"a");
        assert!(queue.next().now_or_never().is_none(), "one pass at a time");
        queue.done(&key, Next::After(60 * SECOND));
        assert_eq!(queue.next().now_or_never().map(|(key, _)| key), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn removed_while_running_has_no_successor() {
        let queue = Queue::default();
        queue.push(&"a");
        let (key, _) = queue.next().await;
        queue.push(&"a");
        queue.remove(&"a");
        queue.done(&key, Next::Never);
        assert!(queue.next().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn spaced_wishes_are_deferred_not_dropped() {
        let queue = Queue::default();
        queue.push(&"a");
        let (key, _) = queue.next().await;
        queue.done(&key, Next::Never);
        let before = Instant::now();
        queue.push_spaced(&"a", SECOND);
        queue.push_spaced(&"a", SECOND);
        assert_eq!(queue.next().await.0, "a");
        assert_eq!(before.elapsed(), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn many_are_spread_and_none_is_made_later() {
        let queue = Queue::default();
        queue.push_at(&"late", Instant::now() + 3600 * SECOND);
        queue.push_at(&"soon", Instant::now() + SECOND);
        queue.failed(&"late");
        let before = Instant::now();
        queue.push_spread(&["first", "late", "soon"], SECOND);
        let mut order = Vec::new();
        for _ in 0..3 {
            order.push((queue.next().await.0, before.elapsed()));
        }
        assert_eq!(order, [("first", Duration::ZERO), ("soon", SECOND), ("late", SECOND)]);
        assert_eq!(queue.failed(&"late"), 1, "mended, perhaps");
    }

    #[tokio::test(start_paused = true)]
    async fn planned_passes_begin_together_and_never_early() {
        let queue = Queue::default();
        let start = Instant::now();
        let plans = [
            ("a", 9_910),
            ("b", 9_999),
            ("c", 10_000),
            ("d", 10_001),
            ("soon", 4_999),
        ];
        for (key, _) in plans {
            queue.push(&key);
        }
        for (key, delay) in plans {
            assert_eq!(queue.next().await.0, key);
            queue.done(&key, Next::After(Duration::from_millis(delay)));
        }
        let mut begun = Vec::new();
        for _ in plans {
            begun.push((queue.next().await.0, start.elapsed().as_millis()));
        }
        assert_eq!(
            begun,
            [
                ("soon", 4_999),
                ("a", 10_000),
                ("b", 10_000),
                ("c", 10_000),
                ("d", 10_100)
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_forgets_what_was_planned() {
        let queue = Queue::default();
        queue.push(&"overdue");
        queue.push_at(&"late", Instant::now() + 3600 * SECOND);
        tokio::time::advance(60 * SECOND).await;
        queue.restart(&["overdue", "late"]);
        for key in ["overdue", "late"] {
            assert_eq!(queue.next().now_or_never(), Some((key, Duration::ZERO)), "due now");
            queue.done(&key, Next::Never);
        }
        tokio::time::advance(3600 * SECOND).await;
        assert!(queue.next().now_or_never().is_none(), "once");
    }

    #[tokio::test(start_paused = true)]
    async fn counts_failures_until_reset() {
        let queue = Queue::default();
        queue.push(&"a");
        assert_eq!((queue.failed(&"a"), queue.failed(&"a")), (1, 2));
        queue.reset_failures(&"a");
        assert_eq!(queue.failed(&"a"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleeping_waiter_wakes_for_an_earlier_wish() {
        let queue = std::sync::Arc::new(Queue::default());
        queue.push_at(&"late", Instant::now() + 3600 * SECOND);
        let waiter = tokio::spawn({
            let queue = queue.clone();
            async move { queue.next().await.0 }
        });
        tokio::task::yield_now().await;
        queue.push(&"now");
        assert_eq!(waiter.await.unwrap(), "now");
    }
}
