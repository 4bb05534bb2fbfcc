//! One scan: the pages of the tag list, without the excluded tags, into the tag store. What may take long on the processor
//! or the disk runs where blocking is allowed; the exclusions have a budget.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use mintmark_api::{condition::reason, image_repository::ImageRepository};

use super::{ValidatedImageRepository, blocking, failure};
use crate::{
    artifact::{Binding, ObjectKey, Record},
    reconcile::{Context, StepError, access::registry_failure},
    registry::{Session, TagPage},
    tags::{TagCollector, TooSlow},
    watch::requested_at,
};

/// What the exclusions may take in all: the worst patterns need about 20 s for 100,000 tags.
const BUDGET: Duration = Duration::from_secs(5);

/// Lists the tags and stores them.
pub(super) async fn scan(
    ctx: &Context<ImageRepository>,
    key: &ObjectKey,
    object: &ImageRepository,
    spec: &ValidatedImageRepository,
    mut session: Session,
    binding: Binding,
) -> Result<Arc<Record>, StepError> {
    let mut gathered = Gathered {
        collector: TagCollector::new(spec.exclusions.clone()),
        left: BUDGET,
    };
    let mut pages = session.tags();
    let context = format!("failed to list tags of '{}'", spec.canonical);
    while let Some(page) = pages
        .next()
        .await
        .map_err(|error| registry_failure(&error, reason::READ_OPERATION_FAILED, &context))?
    {
        gathered = tokio::task::spawn_blocking(move || gathered.with(&page))
            .await
            .map_err(|_| failure("the scan was interrupted"))?
            .map_err(|slow| StepError::fetch(reason::READ_OPERATION_FAILED, slow.to_string()))?;
    }
    // The registry is done with; others may have its permit while the list is stored.
    session.leave();
    let (key, requested) = (key.clone(), requested_at(object).map(str::to_owned));
    blocking(&ctx.own.tags, move |tags| {
        tags.save(&key, &gathered.collector.finish(), binding, requested, Timestamp::now())
    })
    .await
}

struct Gathered {
    collector: TagCollector,
    /// Of the budget.
    left: Duration,
}

impl Gathered {
    fn with(mut self, page: &TagPage) -> Result<Self, TooSlow> {
        let (started, left) = (Instant::now(), self.left);
        self.collector.add(page.iter(), || started.elapsed() >= left)?;
        self.left = left.saturating_sub(started.elapsed());
        Ok(self)
    }
}
