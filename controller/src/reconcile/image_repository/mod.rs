//! One pass over an ImageRepository: asks its registry for the tags when a scan is due, stores them, and tells what was
//! found. What is stored decides whether a scan is due, never the status.

mod scan;
mod status;
#[cfg(test)]
mod tests;
mod validate;

use std::{collections::BTreeSet, pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt;
use mintmark_api::{
    annotation::{EVENT_PREFIX, RECONCILE_REQUESTED_AT},
    condition::{READY, reason},
    image_repository::{ImageRepository, ImageRepositoryStatus, KIND, PLURAL},
};

pub use validate::ValidatedImageRepository;

use super::{
    Context, Outcome, Pass, Reconciled, StepError,
    access::{Door, Opened},
    events,
    pipeline::lost_its_credential,
    progress::{self, Drift},
};
use crate::{
    artifact::{self, Binding, Record, Standing, Storage},
    notify::{Action, EventType},
    tags::{Due, TagStore, TagStoreError, Wanted, due},
    watch::{Kind, ObjectKey, requested_at},
};

/// The group in which Flux's image kinds write metadata keys.
const REVISION: &str = "image.toolkit.fluxcd.io/revision";

impl Kind for ImageRepository {
    const KIND: &'static str = KIND;
    const PLURAL: &'static str = PLURAL;
    const REQUIRED_FIELDS: &'static [&'static str] = &["credential", "audiences"];

    fn pruned(mut self) -> Self {
        let metadata = &mut self.metadata;
        metadata.managed_fields = None;
        metadata.labels = None;
        metadata.owner_references = None;
        if let Some(annotations) = &mut metadata.annotations {
            annotations.retain(|name, _| name == RECONCILE_REQUESTED_AT || name.starts_with(EVENT_PREFIX));
        }
        metadata.annotations.take_if(|annotations| annotations.is_empty());
        self
    }

    fn same_spec(&self, other: &Self) -> bool {
        self.spec == other.spec
    }

    fn host(&self) -> &str {
        self.spec.image.split('/').next().unwrap_or_default()
    }

    fn has_credential(&self) -> bool {
        self.spec.credential.is_some()
    }

    fn is_ready(&self) -> Option<bool> {
        let conditions = &self.status.as_ref()?.conditions;
        Some(conditions.iter().any(|c| c.type_ == READY && c.status == "True"))
    }
}

/// What scans work with.
pub struct Own {
    /// The tags of each object.
    pub tags: TagStore,
}

/// What there is after a pass.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The last scan that succeeded.
    pub record: Option<Arc<Record>>,
    /// The image's name, spelt out.
    pub canonical: Option<String>,
    /// Time between scans.
    pub interval: Duration,
}

impl Reconciled for ImageRepository {
    type Status = ImageRepositoryStatus;
    type Own = Own;
    type Found = Found;
    type Kept = Option<Arc<Record>>;

    const ACTION: Action = Action::Scan;

    fn status(&self) -> Option<&ImageRepositoryStatus> {
        self.status.as_ref()
    }

    fn with_status(&self, status: Option<ImageRepositoryStatus>) -> Self {
        Self {
            metadata: self.metadata.clone(),
            spec: self.spec.clone(),
            status,
        }
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.spec.interval.to_std())
    }

    async fn pass(ctx: &Context<Self>, key: &ObjectKey, object: &Self) -> Option<Pass<Self>> {
        let mut pass = Pass {
            outcome: Outcome::Suspended,
            found: Found::default(),
            previous: None,
            credential: None,
            signing: ctx.signing.borrow().clone(),
            interval: None,
        };
        pass.outcome = match run(ctx, key, object, &mut pass).await {
            Ok(outcome) => outcome,
            Err(error) => Outcome::failed(error),
        };
        Some(pass)
    }

    fn status_of(_: &Context<Self>, basis: &Self, pass: &Pass<Self>) -> ImageRepositoryStatus {
        status::after(
            basis,
            &pass.outcome,
            &pass.found,
            pass.credential.clone(),
            Timestamp::now(),
        )
    }

    fn progressing(object: &Self, message: &str, now: Timestamp) -> ImageRepositoryStatus {
        status::progressing(object, message, now)
    }

    fn tell(ctx: &Context<Self>, object: &Self, pass: &Pass<Self>) {
        tell(ctx, object, pass);
    }

    fn storage(ctx: &Context<Self>) -> Option<&Storage> {
        Some(ctx.own.tags.storage())
    }
}

async fn run(
    ctx: &Context<ImageRepository>,
    key: &ObjectKey,
    object: &ImageRepository,
    pass: &mut Pass<ImageRepository>,
) -> Result<Outcome, StepError> {
    let storage_key = artifact::ObjectKey::new(&key.namespace, &key.name)
        .map_err(|error| failure(format!("cannot store tags: {error}")))?;
    let standing = standing(ctx, &storage_key, object).await?;
    if let Standing::Stored(record) | Standing::Lost(record, _) = &standing {
        pass.previous = Some(record.clone());
        pass.found.record = Some(record.clone());
    }
    if lost_its_credential(ctx, key, object) {
        let message = "spec.credential vanished without a change of generation: another CRD pruned it";
        return Err(StepError::terminal(reason::CREDENTIAL_INVALID, message));
    }
    if object.spec.suspend {
        return Ok(Outcome::Suspended);
    }
    let spec = ValidatedImageRepository::new(object, &ctx.settings)?;
    pass.interval = Some(spec.interval);
    pass.found.interval = spec.interval;
    pass.found.canonical = Some(spec.canonical.clone());
    let drift = Arc::new(Drift::default());
    let mut door = Door::new(ctx, key, object, &spec.access);
    let opened = door.open(&drift, reason::READ_OPERATION_FAILED).await;
    pass.credential = door.credential();
    let opened = opened?;
    let binding = binding(object, &spec, &opened);
    let wanted = Wanted {
        binding: &binding,
        requested_at: requested_at(object),
        interval: spec.interval,
    };
    match due(&wanted, &standing, Timestamp::now()) {
        Due::In(left) => pass.interval = Some(left),
        Due::Now(why) => {
            drift.known(format!("scanning: {why}"));
            let (found, credential) = (pass.found.clone(), pass.credential.clone());
            let failed = |basis: &ImageRepository, error: StepError| {
                let outcome = Outcome::failed(error);
                status::after(basis, &outcome, &found, credential.clone(), Timestamp::now())
            };
            let record = {
                let work = pin!(scan::scan(
                    ctx,
                    &storage_key,
                    object,
                    &spec,
                    opened.session,
                    binding.clone()
                ));
                progress::watched(ctx, object, &drift, failed, work).await?
            };
            pass.found.record = Some(record);
        }
    }
    Ok(Outcome::Ready)
}

/// What is stored for the object.
async fn standing(
    ctx: &Context<ImageRepository>,
    key: &artifact::ObjectKey,
    object: &ImageRepository,
) -> Result<Standing, StepError> {
    let (key, uid) = (key.clone(), object.uid().unwrap_or_default());
    blocking(&ctx.own.tags, move |tags| {
        Ok(tags.begin_pass(&key, &uid, Timestamp::now())?)
    })
    .await
}

/// Everything that decides what a scan finds, but the registry.
fn binding(object: &ImageRepository, spec: &ValidatedImageRepository, opened: &Opened) -> Binding {
    let patterns = object.spec.exclusion_list();
    Binding {
        uid: object.uid().unwrap_or_default(),
        url: spec.canonical.clone(),
        credential: opened.credential.clone(),
        referents: opened.referents.clone(),
        exclusions: patterns.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(),
        ..Binding::default()
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    tags: &TagStore,
    work: impl FnOnce(&TagStore) -> Result<T, TagStoreError> + Send + 'static,
) -> Result<T, StepError> {
    let tags = tags.clone();
    match tokio::task::spawn_blocking(move || work(&tags)).await {
        Ok(done) => done.map_err(|error| failure(error.to_string())),
        Err(_) => Err(failure("storing was interrupted")),
    }
}

fn failure(message: impl Into<String>) -> StepError {
    StepError::fetch(reason::FAILURE, message)
}

fn tell(ctx: &Context<ImageRepository>, object: &ImageRepository, pass: &Pass<ImageRepository>) {
    let record = pass.found.record.as_deref();
    let (event_type, reason, message) = match &pass.outcome {
        Outcome::Suspended => return,
        Outcome::Failed { error, .. } => (EventType::Warning, error.reason, error.message.clone()),
        Outcome::Ready => {
            let Some(record) = record else { return };
            let before = pass.previous.as_deref();
            let is_new = before.is_none_or(|before| before.revision != record.revision);
            if !is_new && object.is_ready() != Some(false) {
                return;
            }
            (EventType::Normal, reason::SUCCEEDED, status::success(record))
        }
    };
    let mut metadata = events::annotated(object);
    if let Some(record) = record {
        metadata.insert(REVISION.to_owned(), record.revision.clone());
    }
    events::record(ctx, object, metadata, event_type, reason, message);
}
