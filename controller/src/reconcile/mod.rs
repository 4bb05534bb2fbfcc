//! The reconcile pipeline: dereference, validate, resolve the revision, fetch and store, write status, notify. One folder
//! per kind holds what is special to it; the steps that all kinds share stand here.

mod conditions;
mod context;
mod finalizer;
pub mod oci_repository;
mod patch;
mod settings;
mod step;
mod waiting;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use mintmark_api::oci_repository::OciRepository;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use context::Context;
pub use settings::Settings;
pub use step::{Policy, StepError};
pub use waiting::Waiting;

use crate::watch::{Kind, Next};

/// Passes that may be under way at a time, most of them waiting for a registry. What they may use at a time is bounded
/// elsewhere: requests per host, work on the processor, extractions.
const MAX_PASSES: usize = 1024;

/// How long the first pass waits at most for what credentials need; beyond it, each object tells for itself what is missing.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// Runs passes as they come due, until `stop`; then lets those under way finish.
pub async fn run(ctx: Arc<Context<OciRepository>>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        _ = tokio::time::timeout(START_PATIENCE, ctx.credentials.started()) => {}
    }
    let slots = Arc::new(Semaphore::new(MAX_PASSES));
    let mut passes = JoinSet::new();
    loop {
        let slot = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = passes.join_next(), if !passes.is_empty() => continue,
            Ok(slot) = Arc::clone(&slots).acquire_owned() => slot,
        };
        let key = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            (key, overdue) = due(&ctx) => {
                ctx.metrics.observe_queue_latency(OciRepository::KIND, overdue);
                key
            }
        };
        let ctx = ctx.clone();
        passes.spawn(async move {
            let _slot = slot;
            let pass = AssertUnwindSafe(oci_repository::reconcile(&ctx, &key))
                .catch_unwind()
                .await;
            let next = pass.unwrap_or_else(|_| {
                tracing::error!(
                    controllerKind = OciRepository::KIND,
                    namespace = &*key.namespace,
                    name = &*key.name,
                    "pass panicked; this is a bug"
                );
                Next::After(ctx.backoff.delay(ctx.queue.failed(&key)))
            });
            ctx.queue.done(&key, next);
        });
    }
    while passes.join_next().await.is_some() {}
}

/// The next due key, while the kind's CRD is ours and what is known of the objects was read under it.
async fn due(ctx: &Context<OciRepository>) -> (crate::watch::ObjectKey, Duration) {
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
