//! The pass itself: what is stored decides whether a scan is due, and only then is anything presented to the registry. A
//! pass without a scan asks nobody for anything but what the object refers to, and that only where no watch tells of it.

use std::{collections::BTreeSet, pin::pin, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt;
use mintmark_api::{condition::reason, image_repository::ImageRepository};

use super::{ValidatedImageRepository, blocking, failure, scan, status};
use crate::{
    artifact::{self, Binding, Record, Standing},
    reconcile::{
        Context, Outcome, Pass, StepError,
        access::{Door, Identity},
        pipeline::lost_its_credential,
        progress::{self, Drift},
    },
    tags::{Due, Wanted, due},
    watch::{ObjectKey, requested_at},
};

/// One pass over `object`.
pub(super) async fn run(
    ctx: &Context<ImageRepository>,
    key: &ObjectKey,
    object: &ImageRepository,
) -> Pass<ImageRepository> {
    let mut pass = Pass::begun(ctx);
    let drift = Arc::new(Drift::default());
    if let Err(error) = look(ctx, key, object, &mut pass, &drift).await {
        pass.outcome = Outcome::failed_while(drift.message(), error);
    }
    pass
}

/// Looks at what is stored, and scans if that is due.
async fn look(
    ctx: &Context<ImageRepository>,
    key: &ObjectKey,
    object: &ImageRepository,
    pass: &mut Pass<ImageRepository>,
    drift: &Arc<Drift>,
) -> Result<(), StepError> {
    let storage_key = artifact::ObjectKey::new(&key.namespace, &key.name)
        .map_err(|error| failure(format!("cannot store tags: {error}")))?;
    let standing = standing(ctx, &storage_key, object).await?;
    match &standing {
        Standing::Absent => {}
        Standing::Stored(record) => {
            pass.previous = Some(record.clone());
            pass.found.record = Some(record.clone());
        }
        Standing::Lost(record, _) => pass.previous = Some(record.clone()),
    }
    if object.spec.suspend {
        return Ok(());
    }
    if lost_its_credential(ctx, key, object) {
        let message = "spec.credential vanished without a change of generation: another CRD pruned it";
        return Err(StepError::terminal(reason::CREDENTIAL_INVALID, message));
    }
    let spec = ValidatedImageRepository::new(object, &ctx.settings)?;
    pass.interval = Some(spec.interval);
    pass.found.interval = spec.interval;
    let mut door = Door::new(ctx, key, object, &spec.access);
    let identity = door.identity().await;
    pass.credential = door.credential();
    let wanted = Wanted {
        binding: &binding(object, &spec, identity?),
        requested_at: requested_at(object),
        interval: spec.interval,
    };
    match due(&wanted, &standing, Timestamp::now()) {
        Due::In(left) => pass.interval = Some(left),
        Due::Now(why) => {
            if pass.found.record.is_some() {
                ctx.own.dependents.known(key);
            }
            drift.known(format!("scanning: {why}"));
            let scan = Scan {
                ctx,
                key: storage_key,
                object,
                spec: &spec,
                drift,
            };
            // Apart from the pass itself, which most often ends before it comes to this.
            Box::pin(scan.make(&mut door, pass)).await?;
        }
    }
    pass.outcome = Outcome::Ready;
    Ok(())
}

/// A scan that is due.
struct Scan<'a> {
    ctx: &'a Context<ImageRepository>,
    key: artifact::ObjectKey,
    object: &'a ImageRepository,
    spec: &'a ValidatedImageRepository,
    drift: &'a Arc<Drift>,
}

impl Scan<'_> {
    /// Shows its progress if it takes long.
    async fn make(
        &self,
        door: &mut Door<'_, ImageRepository>,
        pass: &mut Pass<ImageRepository>,
    ) -> Result<(), StepError> {
        let found = pass.found.clone();
        let shown = |basis: &ImageRepository, error: StepError| {
            status::after(
                basis,
                &Outcome::failed_while(self.drift.message(), error),
                &found,
                None,
                Timestamp::now(),
            )
        };
        let scanned = {
            let work = pin!(async {
                let opened = door.open(self.drift, reason::READ_OPERATION_FAILED).await?;
                let binding = binding(self.object, self.spec, opened.identity);
                scan::scan(self.ctx, &self.key, self.object, self.spec, opened.session, binding).await
            });
            progress::watched(self.ctx, self.object, self.drift, shown, work).await
        };
        pass.credential = door.credential();
        let record = scanned?;
        // Of another image the same tags are other ones.
        let is_same =
            |before: &Arc<Record>| before.revision == record.revision && before.binding.url == record.binding.url;
        pass.found.has_changed = !pass.found.record.as_ref().is_some_and(is_same);
        pass.found.record = Some(record);
        Ok(())
    }
}

/// What is stored for the object.
async fn standing(
    ctx: &Context<ImageRepository>,
    key: &artifact::ObjectKey,
    object: &ImageRepository,
) -> Result<Standing, StepError> {
    let uid = object.uid().unwrap_or_default();
    if let Some(record) = ctx.own.tags.storage().at_rest(key, &uid, Timestamp::now()) {
        return Ok(Standing::Stored(record));
    }
    let key = key.clone();
    blocking(&ctx.own.tags, move |tags| {
        Ok(tags.begin_pass(&key, &uid, Timestamp::now())?)
    })
    .await
}

/// Everything that decides what a scan finds, but the registry.
fn binding(object: &ImageRepository, spec: &ValidatedImageRepository, identity: Identity) -> Binding {
    let patterns = object.spec.exclusion_list();
    Binding {
        uid: object.uid().unwrap_or_default(),
        url: spec.canonical.clone(),
        credential: identity.credential,
        referents: identity.referents,
        exclusions: patterns.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(),
        ..Binding::default()
    }
}
