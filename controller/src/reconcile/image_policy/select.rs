//! From a repository to the latest of its tags. Patterns and long lists run where blocking is allowed, and have a budget.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kube::ResourceExt;
use mintmark_api::{condition::reason, image_repository::ImageRepository};

use super::{Own, dependents::Passed, validate::ValidatedImagePolicy};
use crate::{artifact, policy::latest, reconcile::StepError, tags::TagList, watch::ObjectKey};

/// What a pattern may take: the worst ones need about 20 s for 100,000 tags.
const BUDGET: Duration = Duration::from_secs(5);

/// What is known of a repository's tags.
pub(super) enum Tags {
    /// These were found.
    Found(Arc<TagList>),
    /// There are none: no scan of this image has succeeded, or it found none.
    None,
    /// The repository's first pass in this process, or over this generation, will tell.
    Pending,
}

/// The tags of `image`, the canonical name in the spec of `repository`, that are stored for it. Those of an image that it named
/// before are not: a reference made of both would be to something that may not exist.
pub(super) async fn tags(
    own: &Own,
    key: &ObjectKey,
    repository: &ImageRepository,
    image: &str,
) -> Result<Tags, StepError> {
    let uid = repository.uid().unwrap_or_default();
    let storage_key = artifact::ObjectKey::new(&key.namespace, &key.name)
        .map_err(|error| failure(format!("failed to read tags from database: {error}")))?;
    // Asked first: a pass that ends from here on has this one follow.
    let has_passed = own.dependents.has_passed(key, &Passed::over(repository));
    // Looked at only: what is stored is for the repository's own passes to verify and to replace.
    let storage = own.repositories.own.tags.storage();
    let stored = || {
        storage
            .current(&storage_key, &uid)
            .filter(|record| record.binding.url == image)
    };
    let mut unread = None;
    while let Some(record) = stored().filter(|record| unread.as_ref() != Some(&record.revision)) {
        let list = own.lists.get(&storage_key, &record).await;
        if let Some(list) = list.map_err(|error| failure(format!("failed to read tags from database: {error}")))? {
            return Ok(if list.is_empty() { Tags::None } else { Tags::Found(list) });
        }
        // Replaced meanwhile, or damaged.
        unread = Some(record.revision.clone());
    }
    Ok(if has_passed { Tags::None } else { Tags::Pending })
}

/// The latest of `tags`.
pub(super) async fn select(spec: &ValidatedImagePolicy, tags: Arc<TagList>) -> Result<Box<str>, StepError> {
    let policy = spec.policy.clone();
    let selected = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        latest(&policy, tags.iter(), || begun.elapsed() >= BUDGET)
    });
    let selected = selected.await.map_err(|_| failure("the selection was interrupted"))?;
    selected.map_err(|error| failure(error.to_string()))
}

pub(super) fn failure(message: impl Into<String>) -> StepError {
    StepError {
        condition: None,
        ..StepError::fetch(reason::FAILURE, message)
    }
}
