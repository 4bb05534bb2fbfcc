//! Progress is shown lazily: a pass that knows of something to do and has worked on it for a second writes Reconciling and
//! Ready=Unknown once. A fast pull costs one status write, a slow one still shows that something is going on.

use std::{pin::Pin, time::Duration};

use jiff::Timestamp;
use kube::{Api, ResourceExt};
use tokio::sync::watch;

use super::{Context, OwnedStatus, Reconciled, StepError, patch, reconciled::differs};
use crate::watch::ObjectKey;

/// Work of this length is shown.
const LAZY: Duration = Duration::from_secs(1);

/// What a pass has to do, once it knows, and what it is waiting for.
pub struct Drift {
    todo: watch::Sender<Option<String>>,
    waiting: watch::Sender<Option<StepError>>,
}

impl Default for Drift {
    fn default() -> Self {
        Self {
            todo: watch::Sender::new(None),
            waiting: watch::Sender::new(None),
        }
    }
}

impl Drift {
    /// Something is to be done. A later, more exact reason replaces an earlier one.
    pub fn known(&self, message: String) {
        self.todo.send_replace(Some(message));
    }

    /// The latest of what is to be done.
    pub fn message(&self) -> Option<String> {
        self.todo.borrow().clone()
    }

    /// A request failed and is tried again after a wait.
    pub fn waiting(&self, cause: StepError) {
        self.waiting.send_replace(Some(cause));
    }

    /// Waits until the work has lasted long enough to be shown, and returns what it is.
    async fn overdue(&self) -> String {
        let mut todo = self.todo.subscribe();
        if todo.wait_for(Option::is_some).await.is_err() {
            return std::future::pending().await;
        }
        tokio::time::sleep(LAZY).await;
        self.message().unwrap_or_default()
    }
}

/// Runs `work`; shows its progress if it takes long, and the cause when it waits to try again. `failed` is the status of a
/// failure.
pub async fn watched<K: Reconciled, T>(
    ctx: &Context<K>,
    object: &K,
    drift: &Drift,
    failed: impl Fn(&K, StepError) -> K::Status,
    mut work: Pin<&mut impl Future<Output = Result<T, StepError>>>,
) -> Result<T, StepError> {
    let mut causes = drift.waiting.subscribe();
    let mut overdue = std::pin::pin!(drift.overdue());
    let mut shown = false;
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            Ok(()) = causes.changed() => {
                let cause = causes.borrow_and_update().clone();
                if let Some(error) = cause {
                    shown = true;
                    show(ctx, object, |basis| failed(basis, error)).await;
                }
            }
            message = &mut overdue, if !shown => {
                shown = true;
                show(ctx, object, |basis| K::progressing(basis, &message, Timestamp::now())).await;
            }
        }
    }
}

/// Writes a status in the middle of a pass. A failure to do so is no failure of the pass: its end writes the status anyway.
async fn show<K: Reconciled>(ctx: &Context<K>, object: &K, desired: impl FnOnce(&K) -> K::Status) {
    let Some(held) = ctx
        .store
        .get(&ObjectKey::of(object))
        .filter(|held| held.uid() == object.uid())
    else {
        return;
    };
    let basis = object.with_status(held.status().cloned());
    let mut desired = desired(&basis);
    // What a pass has handled and presented is known at its end only.
    if let Some(before) = basis.status() {
        desired.keep_handled(before);
    }
    if !ctx.may_write() || !differs(basis.status(), &desired) {
        return;
    }
    let version = held.resource_version().unwrap_or_default();
    let Ok(patch) = patch::merge_patch(&desired, basis.status(), K::Status::OWNED_FIELDS, &version) else {
        return;
    };
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &object.namespace().unwrap_or_default());
    match patch::write(&api, &object.name_any(), patch).await {
        Ok(Some(written)) => ctx.store.replace_if_newer(written),
        Ok(None) => {}
        Err(error) => {
            ctx.api_server.note(&error);
        }
    }
}
