//! From a repository to the latest of its tags. Patterns and long lists run where blocking is allowed, and have a budget.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::ResourceExt;
use mintmark_api::{condition::reason, image_repository::ImageRepository};

use super::{Own, validate::ValidatedImagePolicy};
use crate::{
    artifact::{self, Record, Standing},
    policy::latest,
    reconcile::{StepError, context::generation},
    tags::{TagList, TagStoreError},
    watch::ObjectKey,
};

/// What a pattern may take: the worst ones need about 20 s for 100,000 tags.
const BUDGET: Duration = Duration::from_secs(5);

/// The first generation of an object is 1.
const ANY_GENERATION: i64 = 0;

/// What is known of a repository's tags.
pub(super) enum Tags {
    /// These were found.
    Found(Arc<TagList>),
    /// There are none: no scan of this image has succeeded, or it found none.
    None,
    /// The repository's first pass in this process, or over another image, will tell.
    Pending,
}

/// The tags of `image`, a name spelt out, that are stored for `repository`. Those of the image that it named before an edit
/// are none of them.
pub(super) async fn tags(
    own: &Own,
    key: &ObjectKey,
    repository: &ImageRepository,
    image: &str,
) -> Result<Tags, StepError> {
    let uid = repository.uid().unwrap_or_default();
    let storage_key = artifact::ObjectKey::new(&key.namespace, &key.name)
        .map_err(|error| failure(format!("failed to read tags from database: {error}")))?;
    if !own.dependents.has_passed(key, &uid, ANY_GENERATION) {
        return Ok(Tags::Pending);
    }
    let is_current = own.dependents.has_passed(key, &uid, generation(repository));
    let storage = own.repositories.own.tags.storage();
    let record = match storage.at_rest(&storage_key, &uid, Timestamp::now()) {
        Some(record) => record,
        None => match verified(own, &storage_key, uid).await? {
            Some(record) => record,
            None => return Ok(Tags::None),
        },
    };
    if record.binding.url != image {
        return Ok(if is_current { Tags::None } else { Tags::Pending });
    }
    let list = own
        .lists
        .get(&storage_key, &record)
        .await
        .map_err(|error| unread(&error))?;
    Ok(list.filter(|list| !list.is_empty()).map_or(Tags::None, Tags::Found))
}

/// The record of the stored tags after another look at them, which is due now and then.
async fn verified(own: &Own, key: &artifact::ObjectKey, uid: String) -> Result<Option<Arc<Record>>, StepError> {
    let (tags, key) = (own.repositories.own.tags.clone(), key.clone());
    let looked = tokio::task::spawn_blocking(move || tags.begin_pass(&key, &uid, Timestamp::now())).await;
    let standing = looked.map_err(|_| failure("reading was interrupted"))?;
    match standing.map_err(|error| unread(&error.into()))? {
        Standing::Stored(record) => Ok(Some(record)),
        Standing::Absent | Standing::Lost(..) => Ok(None),
    }
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

fn unread(error: &TagStoreError) -> StepError {
    failure(format!("failed to read tags from database: {error}"))
}

pub(super) fn failure(message: impl Into<String>) -> StepError {
    StepError {
        condition: None,
        ..StepError::fetch(reason::FAILURE, message)
    }
}
