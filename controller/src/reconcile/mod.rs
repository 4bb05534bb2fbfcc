//! The reconcile pipeline: dereference, validate, resolve the revision, fetch and store, write status, notify. One folder
//! per kind holds what is special to it; the steps that all kinds share stand here.

mod conditions;
mod context;
mod departed;
mod finalizer;
mod neighbours;
pub mod oci_repository;
mod patch;
mod referents;
mod revoked;
mod settings;
mod step;
mod unwritten;
mod waiting;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use mintmark_api::oci_repository::OciRepository;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use context::Context;
pub use departed::{Departed, live_uid, run as look_after_departed};
pub use neighbours::Neighbours;
pub use referents::{Account, KnownReferents, Referent};
pub use revoked::drop_revoked;
pub use settings::Settings;
pub use step::{Policy, StepError};
pub use unwritten::Unwritten;
pub use waiting::Waiting;

use crate::{
    runtime::lease::LeaderState,
    watch::{Kind, Next, ObjectKey},
};

/// Passes that may be under way at a time, most of them waiting for a registry. What they may use at a time is bounded
/// elsewhere: requests per host, work on the processor, extractions.
const MAX_PASSES: usize = 1024;

/// How long the first pass waits at most for what credentials need; beyond it, each object tells for itself what is missing.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Runs passes as they come due while this process leads (or is detached), until `stop`; then lets those under way finish.
pub async fn run(ctx: Arc<Context<OciRepository>>, stop: CancellationToken) {
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
        ctx.unwritten.clear();
    }
}

/// Runs passes until `stop`, and the last ones to their end.
async fn lead(ctx: &Arc<Context<OciRepository>>, passes: &mut JoinSet<()>, stop: &CancellationToken) {
    let slots = Arc::new(Semaphore::new(MAX_PASSES));
    loop {
        let slot = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = passes.join_next(), if !passes.is_empty() => continue,
            Ok(slot) = Arc::clone(&slots).acquire_owned() => slot,
        };
        let running = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            (key, overdue) = due(ctx) => {
                ctx.metrics.observe_queue_latency(OciRepository::KIND, overdue);
                Running { ctx: ctx.clone(), key, next: Next::Never }
            }
        };
        passes.spawn(async move {
            let _slot = slot;
            running.reconcile().await;
        });
    }
    while passes.join_next().await.is_some() {}
}

/// A key that was handed out; it goes back to the queue however its pass ends.
struct Running {
    ctx: Arc<Context<OciRepository>>,
    key: ObjectKey,
    next: Next,
}

impl Running {
    async fn reconcile(mut self) {
        let (ctx, key) = (&self.ctx, &self.key);
        // The term may have ended while nothing was due.
        ctx.leadership.permits().await;
        let pass = AssertUnwindSafe(oci_repository::reconcile(ctx, key))
            .catch_unwind()
            .await;
        self.next = pass.unwrap_or_else(|_| {
            tracing::error!(
                controllerKind = OciRepository::KIND,
                namespace = &*key.namespace,
                name = &*key.name,
                "pass panicked; this is a bug"
            );
            Next::After(ctx.backoff.delay(ctx.queue.failed(key)))
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ctx.queue.done(&self.key, self.next);
    }
}

/// The next due key, while the kind's CRD is ours and what is known of the objects was read under it.
async fn due(ctx: &Context<OciRepository>) -> (ObjectKey, Duration) {
    loop {
        ctx.guard.complete().await;
        // A closed channel means the watch ended, which ends the process.
        if ctx.store.synced().wait_for(|synced| *synced).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::select! {
            biased;
            () = ctx.guard.incomplete() => {}
            next = ctx.queue.next() => return next,
        }
    }
}
