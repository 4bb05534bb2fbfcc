//! One pass over an object of any kind, from the object in the store to its status, its events and the time of the next
//! pass. What the kind does in between is its own; the status is written at most once.

use std::{sync::Arc, time::Instant};

use kube::{Api, ResourceExt};
use mintmark_issuer::SigningSet;

use super::{
    Context, Outcome, OwnedStatus, Pass, Reconciled, StepError, context::generation, events, finalizer, patch,
    reconciled::differs, step::Policy,
};
use crate::{
    runtime::{api_server::timely, jitter::jittered, supervise::chain},
    watch::{CrdState, Next, ObjectKey, read_schema},
};

/// Reconciles the object of `key` once and says when to do it again.
pub async fn reconcile<K: Reconciled>(ctx: &Context<K>, key: &ObjectKey) -> Next {
    ctx.waiting.remove(key);
    let Some(object) = ctx.store.get(key) else {
        return Next::Never;
    };
    if object.meta().deletion_timestamp.is_some() {
        return finalizer::release(ctx, object.as_ref()).await;
    }
    if lost_its_credential(ctx, key, object.as_ref()) && !schema_is_ours(ctx).await {
        // The guard will say so in a moment; until then nothing is decided on a pruned object.
        return Next::After(ctx.backoff.delay(1));
    }
    events::tell_of_foreign_write(ctx, key, object.as_ref());
    let started = Instant::now();
    // Apart, so that the parts of a pass that are not under way take no room.
    let Some(pass) = Box::pin(K::pass(ctx, key, &object)).await else {
        return Next::Never;
    };
    let next = Box::pin(conclude(ctx, key, &object, pass)).await;
    if ctx.store.get(key).is_some() {
        // Of an object that was deleted meanwhile nobody would remove the series again.
        ctx.metrics
            .observe_reconcile(K::KIND, &key.namespace, &key.name, started.elapsed());
    }
    next
}

/// Whether the object's credential vanished without a change of generation.
pub fn lost_its_credential<K: Reconciled>(ctx: &Context<K>, key: &ObjectKey, object: &K) -> bool {
    !object.has_credential() && ctx.store.lost_credential(key, generation(object))
}

async fn schema_is_ours<K: Reconciled>(ctx: &Context<K>) -> bool {
    let schema = timely(read_schema::<K>(&ctx.client)).await;
    matches!(schema, Ok(CrdState::Complete))
}

/// Writes the status if it says anything new, tells events, and decides when the next pass is due.
async fn conclude<K: Reconciled>(ctx: &Context<K>, key: &ObjectKey, object: &K, mut pass: Pass<K>) -> Next {
    let uid = object.uid().unwrap_or_default();
    if let Some(previous) = ctx.unwritten.previous(key, &uid) {
        pass.previous = previous;
    }
    let pass = &pass;
    let written = write_status(ctx, key, object, pass).await;
    if ctx.store.get(key).is_none_or(|held| held.uid() != object.uid()) {
        // Deleted, and perhaps recreated, while the pass ran: nobody is there to be told anything.
        return Next::Never;
    }
    let is_kept = match &written {
        Ok(Written::NotNow) => true,
        Err(error) => ctx.api_server.note(error),
        Ok(_) => false,
    };
    if is_kept {
        // Told when it can be written; the next pull comes when it would anyway.
        ctx.unwritten.keep(key, &uid, pass.previous.clone());
        return next(ctx, key, pass);
    }
    ctx.unwritten.forget(key);
    K::tell(ctx, object, pass);
    match written {
        Ok(Written::Done | Written::NotNow) => {}
        // The watch brings the newer object; if it asks for a pass of its own, that one is queued.
        Ok(Written::Overtaken) => return Next::After(ctx.backoff.delay(1)),
        Err(error) => {
            let error = chain(&error);
            tracing::error!(
                controllerKind = K::KIND,
                namespace = &*key.namespace,
                name = &*key.name,
                error,
                "status not written"
            );
            return Next::After(ctx.backoff.delay(ctx.queue.failed(key)));
        }
    }
    if matches!(pass.outcome, Outcome::Ready) {
        events::interval_clamped(ctx, object);
    }
    next(ctx, key, pass)
}

/// When the next pass is due after this outcome.
fn next<K: Reconciled>(ctx: &Context<K>, key: &ObjectKey, pass: &Pass<K>) -> Next {
    match &pass.outcome {
        Outcome::Suspended => Next::Never,
        Outcome::Ready => {
            ctx.queue.reset_failures(key);
            let Some(interval) = pass.interval else {
                return Next::Never;
            };
            Next::After(jittered(interval, ctx.settings.interval_jitter_percent, rand::random()))
        }
        Outcome::Failed { error, .. } if error.policy == Policy::Terminal && ctx.known_referents.has_unwatched(key) => {
            // It may be a referent's fault, and nobody tells when that is mended.
            Next::After(pass.interval.unwrap_or(ctx.settings.min_interval))
        }
        Outcome::Failed { error, .. } => after_failure(ctx, key, error, &pass.signing),
    }
}

fn after_failure<K: Reconciled>(
    ctx: &Context<K>,
    key: &ObjectKey,
    error: &StepError,
    signing: &Arc<SigningSet>,
) -> Next {
    // Who signs may have changed between this pass's look and its becoming one of those that wait for that.
    let has_changed = || !Arc::ptr_eq(signing, &ctx.signing.borrow());
    match error.policy {
        Policy::Terminal => Next::Never,
        Policy::Dependency => Next::After(ctx.settings.requeue_dependency),
        Policy::Transient => Next::After(ctx.backoff.delay(ctx.queue.failed(key))),
        Policy::WaitingForAnotherKey => {
            ctx.waiting.add(key.clone());
            if has_changed() {
                return Next::After(ctx.backoff.delay(1));
            }
            Next::Never
        }
        Policy::WaitingForIssuer => {
            ctx.waiting.add(key.clone());
            if has_changed() {
                return Next::After(ctx.backoff.delay(1));
            }
            Next::After(ctx.backoff.delay(ctx.queue.failed(key)))
        }
    }
}

enum Written {
    Done,
    Overtaken,
    /// There is something to write, and this process may not, or the API server is away.
    NotNow,
}

async fn write_status<K: Reconciled>(
    ctx: &Context<K>,
    key: &ObjectKey,
    object: &K,
    pass: &Pass<K>,
) -> kube::Result<Written> {
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &key.namespace);
    // A lazily written progress, or the watch, may have brought a newer status meanwhile.
    let held = ctx.store.get(key).filter(|held| held.uid() == object.uid());
    let Some(mut current) = held else {
        return Ok(Written::Overtaken);
    };
    for _ in 0..3 {
        // What the pass looked at decides generation and requestedAt; what is stored decides what is kept. Mostly it is one
        // and the same.
        let merged;
        let basis = if std::ptr::eq(current.as_ref(), object) {
            object
        } else {
            merged = object.with_status(current.status().cloned());
            &merged
        };
        let desired = K::status_of(ctx, basis, pass);
        if !differs(current.status(), &desired) {
            return Ok(Written::Done);
        }
        if !ctx.may_write() {
            return Ok(Written::NotNow);
        }
        let version = current.resource_version().unwrap_or_default();
        let patch = patch::merge_patch(&desired, current.status(), K::Status::OWNED_FIELDS, &version)
            .map_err(kube::Error::SerdeError)?;
        if let Some(written) = patch::write(&api, &key.name, patch).await? {
            ctx.store.replace_if_newer(written);
            return Ok(Written::Done);
        }
        match timely(api.get_opt(&key.name)).await? {
            Some(newer) if newer.uid() == object.uid() => current = Arc::new(newer),
            _ => return Ok(Written::Overtaken),
        }
    }
    Ok(Written::Overtaken)
}
