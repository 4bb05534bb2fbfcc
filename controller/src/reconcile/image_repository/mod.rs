//! One pass over an ImageRepository: asks its registry for the tags when a scan is due, stores them, and tells what was
//! found. What is stored decides whether a scan is due, never the status.

mod events;
mod pass;
mod scan;
mod status;
#[cfg(test)]
mod tests;
mod validate;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use mintmark_api::{
    condition::{READY, reason},
    image_repository::{ImageRepository, ImageRepositoryStatus, KIND, PLURAL},
};

pub use validate::ValidatedImageRepository;

use super::{
    Context, Pass, Reconciled, StepError,
    conditions::is_true,
    image_policy::{Dependents, Passed},
};
use crate::{
    artifact::{Record, Storage},
    notify::Action,
    tags::{TagStore, TagStoreError},
    watch::{Kind, ObjectKey, prune_metadata},
};

impl Kind for ImageRepository {
    const KIND: &'static str = KIND;
    const PLURAL: &'static str = PLURAL;
    const REQUIRED_FIELDS: &'static [&'static str] = &["credential", "audiences"];

    fn pruned(mut self) -> Self {
        prune_metadata(&mut self.metadata);
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
        Some(is_true(READY, &self.status.as_ref()?.conditions))
    }
}

/// What scans work with.
pub struct Own {
    /// The tags of each object.
    pub tags: TagStore,
    /// The policies that select from them.
    pub dependents: Arc<Dependents>,
}

/// What there is after a pass.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The last scan that succeeded, if its tags are stored.
    pub record: Option<Arc<Record>>,
    /// Whether its tags are other ones than those that were stored before the pass.
    pub has_changed: bool,
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
        let pass = pass::run(ctx, key, object).await;
        ctx.own
            .dependents
            .passed(key, Passed::over(object), pass.found.has_changed);
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
        events::tell(ctx, object, pass);
    }

    fn gone(ctx: &Context<Self>, key: &ObjectKey) {
        ctx.own.dependents.repository_gone(key);
    }

    fn storage(ctx: &Context<Self>) -> Option<&Storage> {
        Some(ctx.own.tags.storage())
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
