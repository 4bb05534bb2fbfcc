//! Which events a scan makes: other tags than before, a recovery, a failure. A quiet scan makes none. The old status is read
//! for one courtesy only: to know what was told before, where the storage does not know it.

use mintmark_api::{condition::reason, image_repository::ImageRepository};

use super::status;
use crate::{
    artifact::Record,
    notify::EventType,
    reconcile::{Context, Outcome, Pass, events},
    watch::Kind as _,
};

/// The metadata key of what was found, in the group of Flux's image kinds.
const REVISION: &str = "image.toolkit.fluxcd.io/revision";

/// Tells what `pass` came to.
pub(super) fn tell(ctx: &Context<ImageRepository>, object: &ImageRepository, pass: &Pass<ImageRepository>) {
    let record = pass.found.record.as_deref();
    let (event_type, reason, message) = match (&pass.outcome, record) {
        (Outcome::Failed { error, .. }, _) => (EventType::Warning, error.reason, error.message.clone()),
        (Outcome::Ready, Some(record)) if is_news(object, record, pass.previous.as_deref()) => {
            (EventType::Normal, reason::SUCCEEDED, status::success(record))
        }
        _ => return,
    };
    let mut metadata = events::annotated(object);
    if let Some(record) = record {
        metadata.insert(REVISION.to_owned(), record.revision.clone());
    }
    events::record(ctx, object, metadata, event_type, reason, message);
}

/// Whether other tags were found than before, or any after a failure.
fn is_news(object: &ImageRepository, record: &Record, previous: Option<&Record>) -> bool {
    let told = || {
        let status = object.status.as_ref()?;
        Some(&*status.last_scan_result.as_ref()?.revision)
    };
    let before = previous.map(|previous| &*previous.revision).or_else(told);
    before != Some(&*record.revision) || object.is_ready() == Some(false)
}
