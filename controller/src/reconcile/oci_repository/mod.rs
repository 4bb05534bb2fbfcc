//! One pass over an OCIRepository, from the object in the store to its status, its event and the time of the next pass.
//! Reads the registry and the Secrets that the object refers to; writes the artifact, then the status, each at most once.

mod dereference;
mod events;
mod fetch;
mod login;
mod newest;
mod progress;
mod status;
mod store;
mod takeover;
#[cfg(test)]
mod tests;
mod validate;

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;
use kube::{Api, ResourceExt};
use mintmark_api::{
    annotation::{EVENT_PREFIX, RECONCILE_REQUESTED_AT},
    condition::reason,
    credential::CredentialStatus,
    oci_repository::{KIND, OciRepository, OciRepositoryStatus, PLURAL},
};
use mintmark_issuer::SigningSet;

pub use fetch::Pull;
pub use status::Outcome;
pub use takeover::tell_of_foreign_write;
pub use validate::{Reference, ValidatedOciRepository};

use super::{Context, StepError, context::generation, finalizer, patch, step::Policy};
use crate::{
    artifact::{self, Record},
    runtime::{api_server::timely, jitter::jittered, supervise::chain},
    watch::{CrdState, Kind, Next, ObjectKey, read_schema},
};

impl Kind for OciRepository {
    const KIND: &'static str = KIND;
    const PLURAL: &'static str = PLURAL;

    fn pruned(mut self) -> Self {
        let metadata = &mut self.metadata;
        metadata.managed_fields = None;
        metadata.labels = None;
        metadata.owner_references = None;
        // Above all the copy that `kubectl apply` leaves.
        if let Some(annotations) = &mut metadata.annotations {
            annotations.retain(|name, _| name == RECONCILE_REQUESTED_AT || name.starts_with(EVENT_PREFIX));
        }
        metadata.annotations.take_if(|annotations| annotations.is_empty());
        if let Some(status) = &mut self.status {
            status.conditions.shrink_to_fit();
        }
        self
    }

    fn same_spec(&self, other: &Self) -> bool {
        self.spec == other.spec
    }

    fn host(&self) -> &str {
        let rest = self.spec.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }

    fn has_credential(&self) -> bool {
        self.spec.credential.is_some()
    }

    fn is_ready(&self) -> Option<bool> {
        let conditions = &self.status.as_ref()?.conditions;
        Some(
            conditions
                .iter()
                .any(|c| c.type_ == mintmark_api::condition::READY && c.status == "True"),
        )
    }
}

/// What a pass found and did.
struct Pass {
    outcome: Outcome,
    record: Option<Arc<Record>>,
    /// What was stored before this pass.
    previous: Option<Arc<Record>>,
    credential: Option<CredentialStatus>,
    /// Who signed when it began.
    signing: Arc<SigningSet>,
    /// When the next pass is due after a success.
    interval: Option<std::time::Duration>,
}

/// Reconciles the object of `key` once and says when to do it again.
pub async fn reconcile(ctx: &Context<OciRepository>, key: &ObjectKey) -> Next {
    ctx.waiting.remove(key);
    let Some(object) = ctx.store.get(key) else {
        return Next::Never;
    };
    if object.metadata.deletion_timestamp.is_some() {
        return finalizer::release(ctx, object.as_ref()).await;
    }
    if lost_its_credential(ctx, key, &object) && !schema_is_ours(ctx).await {
        // The guard will say so in a moment; until then nothing is decided on a pruned object.
        return Next::After(ctx.backoff.delay(1));
    }
    tell_of_foreign_write(ctx, key, &object);
    let started = Instant::now();
    let pass = match run(ctx, key, &object).await {
        Ok(pass) => pass,
        Err(Theirs(error)) => {
            takeover::leave(ctx, key, &object, &error);
            return Next::Never;
        }
    };
    takeover::take(ctx, key);
    let next = conclude(ctx, key, &object, pass).await;
    if ctx.store.get(key).is_some() {
        // Of an object that was deleted meanwhile nobody would remove the series again.
        ctx.metrics
            .observe_reconcile(KIND, &key.namespace, &key.name, started.elapsed());
    }
    next
}

/// One pass over an object that is in no cluster: all of a pass but its status and events.
pub async fn pull_once(ctx: &Context<OciRepository>, object: &OciRepository) -> Result<Arc<Record>, StepError> {
    let pass = run(ctx, &ObjectKey::of(object), object).await;
    match pass.map_err(|Theirs(error)| error)? {
        Pass {
            outcome: Outcome::Failed { error, .. },
            ..
        } => Err(error),
        pass => pass
            .record
            .ok_or_else(|| StepError::storage(reason::ARCHIVE_OPERATION_FAILED, "nothing was stored")),
    }
}

fn lost_its_credential(ctx: &Context<OciRepository>, key: &ObjectKey, object: &OciRepository) -> bool {
    object.spec.credential.is_none() && ctx.store.lost_credential(key, generation(object))
}

async fn schema_is_ours(ctx: &Context<OciRepository>) -> bool {
    let schema = timely(read_schema::<OciRepository>(&ctx.client)).await;
    matches!(schema, Ok(CrdState::Complete))
}

/// Why an object is left to the controller that has served it: nothing of it is written.
struct Theirs(StepError);

async fn run(ctx: &Context<OciRepository>, key: &ObjectKey, object: &OciRepository) -> Result<Pass, Theirs> {
    let mut pass = Pass {
        outcome: Outcome::Suspended,
        record: None,
        previous: None,
        credential: None,
        signing: ctx.signing.borrow().clone(),
        interval: None,
    };
    let opened = match store::open(ctx, key, object).await {
        Ok(opened) => opened,
        Err(error) => {
            pass.outcome = Outcome::failed(error);
            return Ok(pass);
        }
    };
    pass.previous.clone_from(&opened.record);
    pass.record.clone_from(&opened.record);
    let validated = if lost_its_credential(ctx, key, object) {
        let message = "spec.credential vanished without a change of generation: another CRD pruned it";
        Err(StepError::terminal(reason::CREDENTIAL_INVALID, message))
    } else {
        ValidatedOciRepository::new(object, &ctx.settings)
    };
    if let Err(error) = &validated
        && takeover::is_theirs(ctx, object, error, pass.record.is_some())
    {
        return Err(Theirs(error.clone()));
    }
    if object.spec.suspend {
        return Ok(pass);
    }
    let validated = match validated {
        Ok(validated) => validated,
        Err(error) => {
            pass.outcome = Outcome::failed(error);
            return Ok(pass);
        }
    };
    pass.interval = Some(validated.interval);
    if object.spec.interval.to_std() < validated.interval {
        tracing::info!(
            controllerKind = KIND,
            namespace = &*key.namespace,
            name = &*key.name,
            "spec.interval is shorter than --min-interval, which is used instead"
        );
    }
    let mut pull = Pull::new(ctx, key, object, &validated, opened);
    pass.outcome = match progress::watched(ctx, object, &mut pull).await {
        Ok(()) => Outcome::Ready,
        Err(error) => Outcome::Failed {
            error,
            outdated: pull.outdated(),
            doing: pull.drift().message(),
        },
    };
    pass.record = pull.record();
    pass.credential = pull.credential();
    Ok(pass)
}

/// Writes the status if it says anything new, tells events, and decides when the next pass is due.
async fn conclude(ctx: &Context<OciRepository>, key: &ObjectKey, object: &OciRepository, mut pass: Pass) -> Next {
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
        Err(error) => ctx.unwritten.note(error),
        Ok(_) => false,
    };
    if is_kept {
        // Told when it can be written; the next pull comes when it would anyway.
        ctx.unwritten.keep(key, &uid, pass.previous.clone());
        return next(ctx, key, pass);
    }
    ctx.unwritten.forget(key);
    events::tell(ctx, object, pass);
    match written {
        Ok(Written::Done | Written::NotNow) => {}
        // The watch brings the newer object; if it asks for a pass of its own, that one is queued.
        Ok(Written::Overtaken) => return Next::After(ctx.backoff.delay(1)),
        Err(error) => {
            let error = chain(&error);
            tracing::error!(
                controllerKind = KIND,
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
fn next(ctx: &Context<OciRepository>, key: &ObjectKey, pass: &Pass) -> Next {
    match &pass.outcome {
        Outcome::Suspended => Next::Never,
        Outcome::Ready => {
            ctx.queue.reset_failures(key);
            let interval = pass.interval.unwrap_or(ctx.settings.min_interval);
            Next::After(jittered(interval, ctx.settings.interval_jitter_percent, rand::random()))
        }
        Outcome::Failed { error, .. } if error.policy == Policy::Terminal && ctx.known_referents.has_unwatched(key) => {
            // It may be a referent's fault, and nobody tells when that is mended.
            Next::After(pass.interval.unwrap_or(ctx.settings.min_interval))
        }
        Outcome::Failed { error, .. } => after_failure(ctx, key, error, &pass.signing),
    }
}

fn after_failure(ctx: &Context<OciRepository>, key: &ObjectKey, error: &StepError, signing: &Arc<SigningSet>) -> Next {
    // Who signs may have changed between this pass's look and its becoming one of those that wait for that.
    let has_changed = || !Arc::ptr_eq(signing, &ctx.signing.borrow());
    match error.policy {
        Policy::Terminal => Next::Never,
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

async fn write_status(
    ctx: &Context<OciRepository>,
    key: &ObjectKey,
    object: &OciRepository,
    pass: &Pass,
) -> kube::Result<Written> {
    let api: Api<OciRepository> = Api::namespaced(ctx.client.clone(), &key.namespace);
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
            merged = OciRepository {
                status: current.status.clone(),
                ..object.clone()
            };
            &merged
        };
        let desired = status_of(ctx, basis, &pass.outcome, pass.record.as_ref(), pass.credential.clone());
        if !status::differs(current.status.as_ref(), &desired) {
            return Ok(Written::Done);
        }
        if !ctx.may_write() {
            return Ok(Written::NotNow);
        }
        let version = current.resource_version().unwrap_or_default();
        let patch = patch::merge_patch(&desired, &status::OWNED_FIELDS, &version).map_err(kube::Error::SerdeError)?;
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

/// The status that says `outcome` over what `basis` says now.
fn status_of(
    ctx: &Context<OciRepository>,
    basis: &OciRepository,
    outcome: &Outcome,
    record: Option<&Arc<Record>>,
    credential: Option<CredentialStatus>,
) -> OciRepositoryStatus {
    let key = artifact::ObjectKey::new(&basis.namespace().unwrap_or_default(), &basis.name_any());
    let latest = key.map(|key| ctx.storage.latest_path(&key)).unwrap_or_default();
    let stored = record.map(|record| status::Stored {
        record,
        url: ctx.address.url(&record.path),
        latest_url: ctx.address.url(&latest),
    });
    let findings = status::Findings {
        outcome,
        stored,
        credential,
        address: &ctx.address,
    };
    findings.status(basis, Timestamp::now())
}
