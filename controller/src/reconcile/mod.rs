//! The reconcile pipeline: dereference, validate, resolve the revision, fetch and store, write status, notify. One folder
//! per kind holds what is special to it; the steps that all kinds share stand here.

mod access;
mod api_server;
mod conditions;
mod context;
mod events;
mod finalizer;
pub mod image_policy;
pub mod image_repository;
mod lanes;
mod member;
mod neighbours;
pub mod oci_repository;
mod patch;
mod pipeline;
mod progress;
mod reconciled;
mod referents;
mod revoked;
mod settings;
mod step;
mod unwritten;
mod waiting;

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use api_server::ApiServer;
pub use context::{Context, Shared};
pub use events::tell_of_foreign_write;
pub use member::Member;
pub use neighbours::Neighbours;
pub use reconciled::{Outcome, OwnedStatus, Pass, Reconciled};
pub use referents::{Account, KnownReferents, Referent};
pub use revoked::drop_revoked;
pub use settings::Settings;
pub use step::{Policy, StepError};
pub use unwritten::Unwritten;
pub use waiting::Waiting;

use self::lanes::{Bounds, Lane, Lanes};
use crate::{
    runtime::lease::LeaderState,
    watch::{Next, ObjectKey},
};

/// Passes that may be under way at a time, most of them waiting for a registry. What they may use at a time is bounded
/// elsewhere: requests per host, work on the processor, extractions. A lane is wide enough to keep a host busy while some
/// wait between two attempts.
const BOUNDS: Bounds = Bounds {
    per_lane: 64,
    per_namespace: 512,
    in_all: 1024,
};

/// How long the first pass waits at most for what credentials need; beyond it, each object tells for itself what is missing.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Runs passes as they come due while this process leads (or is detached), until `stop`; then lets those under way finish.
pub async fn run<K: Reconciled>(ctx: Arc<Context<K>>, stop: CancellationToken) {
    let mut is_first = true;
    let mut states = ctx.leadership.subscribe();
    loop {
        let was_standby = *states.borrow_and_update() == LeaderState::Standby;
        tokio::select! {
            () = stop.cancelled() => return,
            () = ctx.leadership.permits() => {}
        }
        if std::mem::replace(&mut is_first, false) {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tokio::time::timeout(START_PATIENCE, ctx.credentials.started()) => {}
            }
        }
        if was_standby {
            // Everything is looked at: what another process did meanwhile is not known.
            ctx.queue.restart(&ctx.store.keys());
        }
        let mut passes = JoinSet::new();
        tokio::select! {
            biased;
            _ = states.wait_for(|state| *state == LeaderState::Standby) => {}
            () = lead(&ctx, &mut passes, &stop) => return,
        }
        // Another process may pull by now. What runs is dropped where it waits: a request, or a write whose
        // resourceVersion the other's writes have made void. A file being stored on this process's own disk is finished.
        passes.shutdown().await;
        show(&ctx, 0, 0);
        ctx.unwritten.clear();
    }
}

/// Runs passes until `stop`, and the last ones to their end.
async fn lead<K: Reconciled>(ctx: &Arc<Context<K>>, passes: &mut JoinSet<Lane>, stop: &CancellationToken) {
    let mut lanes: Lanes<Running<K>> = Lanes::new(BOUNDS);
    loop {
        while let Some((lane, running)) = lanes.start() {
            passes.spawn(running.reconcile(lane));
        }
        show(ctx, lanes.waiting(), lanes.running());
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            // A pass that was aborted has no lane, and nobody to start after it.
            Some(ended) = passes.join_next(), if !passes.is_empty() => drop(ended.map(|lane| lanes.ended(&lane))),
            (key, overdue) = due(ctx) => lanes.line_up(&lane_of(ctx, &key), Running::new(ctx, key, overdue)),
        }
    }
    drop(lanes);
    while passes.join_next().await.is_some() {}
    show(ctx, 0, 0);
}

/// Tells how many are due and wait, and how many have a pass.
fn show<K: Reconciled>(ctx: &Context<K>, waiting: usize, running: usize) {
    ctx.queue.set_lined_up(waiting);
    ctx.metrics.set_running_passes(K::KIND, running);
}

fn lane_of<K: Reconciled>(ctx: &Context<K>, key: &ObjectKey) -> Lane {
    let object = ctx.store.get(key);
    Lane {
        namespace: Arc::clone(&key.namespace),
        host: object.as_deref().map(K::host).unwrap_or_default().into(),
    }
}

/// A key that was handed out; it goes back to the queue however its pass ends.
struct Running<K: Reconciled> {
    ctx: Arc<Context<K>>,
    key: ObjectKey,
    next: Next,
    overdue: Duration,
    handed_out: Instant,
}

impl<K: Reconciled> Running<K> {
    fn new(ctx: &Arc<Context<K>>, key: ObjectKey, overdue: Duration) -> Self {
        Self {
            ctx: Arc::clone(ctx),
            key,
            next: Next::Never,
            overdue,
            handed_out: Instant::now(),
        }
    }

    async fn reconcile(mut self, lane: Lane) -> Lane {
        let (ctx, key) = (&self.ctx, &self.key);
        ctx.metrics
            .observe_queue_latency(K::KIND, self.overdue + self.handed_out.elapsed());
        // The term may have ended while nothing was due.
        ctx.leadership.permits().await;
        let pass = AssertUnwindSafe(pipeline::reconcile(ctx, key)).catch_unwind().await;
        self.next = pass.unwrap_or_else(|_| {
            tracing::error!(
                controllerKind = K::KIND,
                namespace = &*key.namespace,
                name = &*key.name,
                "pass panicked; this is a bug"
            );
            Next::After(ctx.backoff.delay(ctx.queue.failed(key)))
        });
        lane
    }
}

impl<K: Reconciled> Drop for Running<K> {
    fn drop(&mut self) {
        self.ctx.queue.done(&self.key, self.next);
    }
}

/// The next due key, while the kind's CRD is ours and what is known of the objects was read under it.
async fn due<K: Reconciled>(ctx: &Context<K>) -> (ObjectKey, Duration) {
    loop {
        ctx.ready().await;
        K::prepared(ctx).await;
        tokio::select! {
            biased;
            () = ctx.guard.incomplete() => {}
            () = K::unprepared(ctx) => {}
            next = ctx.queue.next() => return next,
        }
    }
}
