//! The pass itself. Access is asked for each time, before anything of the repository is read or looked up.

use std::{collections::BTreeMap, pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use mintmark_api::{
    condition::reason,
    image_policy::{DigestReflectionPolicy, ImagePolicy, ImageRef},
    image_repository::ImageRepository,
};

use super::{
    access::Foreign,
    select::{self, Tags, failure},
    status,
    validate::{self, ValidatedImagePolicy},
};
use crate::{
    reconcile::{
        Context, Outcome, Pass, Policy, Reconciled, StepError,
        access::{Door, registry_failure},
        image_repository::ValidatedImageRepository,
        pipeline::lost_its_credential,
        progress::{self, Drift},
    },
    tags::ImageName,
    watch::ObjectKey,
};

/// How long a pass waits for the labels of namespaces when the process starts.
const LABELS_PATIENCE: Duration = Duration::from_secs(10);

/// One pass over `object`; none while the repository's first pass, in this process or over its spec, is still to come and no tags
/// of its image are known: that pass has this one follow.
pub(super) async fn run(
    ctx: &Context<ImagePolicy>,
    key: &ObjectKey,
    object: &ImagePolicy,
) -> Option<Pass<ImagePolicy>> {
    // The definition may have changed since this pass came due.
    ImagePolicy::prepared(ctx).await;
    let mut pass = Pass::begun(ctx);
    ctx.own.dependents.depend(key, &validate::repository(object));
    if object.spec.suspend {
        return Some(pass);
    }
    let drift = Arc::new(Drift::default());
    pass.outcome = match look(ctx, key, object, &mut pass, &drift).await {
        Ok(Looked::Selected) => Outcome::Ready,
        Ok(Looked::TooEarly) => return None,
        Err(error) => Outcome::failed_while(drift.message(), error),
    };
    Some(pass)
}

enum Looked {
    Selected,
    TooEarly,
}

async fn look(
    ctx: &Context<ImagePolicy>,
    key: &ObjectKey,
    object: &ImagePolicy,
    pass: &mut Pass<ImagePolicy>,
    drift: &Arc<Drift>,
) -> Result<Looked, StepError> {
    let spec = ValidatedImagePolicy::new(object, &ctx.settings)?;
    pass.interval = spec.interval;
    let repository = find(ctx, key, &spec.repository).await?;
    let image = &repository.spec.image;
    let name = ImageName::parse(image, repository.spec.credential.is_some())
        .map_err(|error| StepError::terminal(reason::IMAGE_URL_INVALID, error.to_string()))?;
    let tags = match select::tags(&ctx.own, &spec.repository, &repository, &name.canonical).await? {
        Tags::Found(tags) => tags,
        Tags::Pending => return Ok(Looked::TooEarly),
        Tags::None => return Err(no_tags(ctx, &spec.repository)),
    };
    let mut found = ImageRef {
        name: image.clone(),
        tag: select::select(&spec, tags).await?.into(),
        digest: String::new(),
    };
    found.digest = Box::pin(digest(ctx, object, &spec, &repository, &found, drift)).await?;
    pass.found = Some(found);
    Ok(Looked::Selected)
}

/// The repository that the policy refers to, if it may use it.
async fn find(
    ctx: &Context<ImagePolicy>,
    policy: &ObjectKey,
    key: &ObjectKey,
) -> Result<Arc<ImageRepository>, StepError> {
    let repositories = &ctx.own.repositories;
    let found = repositories.store.get(key);
    let found = if key.namespace == policy.namespace {
        found.ok_or_else(|| {
            let why = format!("referenced ImageRepository does not exist: '{key}' not found");
            StepError::dependency(reason::DEPENDENCY_NOT_READY, why)
        })
    } else {
        Foreign::check_flags(key, &ctx.settings)?;
        let labels = labels(ctx, &policy.namespace).await?;
        let foreign = Foreign {
            labels: labels.as_deref(),
            repository: key,
        };
        foreign.admit(found, &ctx.settings)
    };
    let found = found.map_err(|error| StepError {
        message: format!("failed to get the referred ImageRepository: {}", error.message),
        ..error
    })?;
    if lost_its_credential(repositories, key, &found) {
        let message =
            "the ImageRepository's spec.credential vanished without a change of generation: another CRD pruned it";
        return Err(StepError::dependency(reason::DEPENDENCY_NOT_READY, message));
    }
    Ok(found)
}

/// The labels of the policy's namespace. Where only the controller's own namespace is watched, no other repository is known
/// and labels decide nothing.
async fn labels(
    ctx: &Context<ImagePolicy>,
    namespace: &str,
) -> Result<Option<Arc<BTreeMap<String, String>>>, StepError> {
    let Some(namespaces) = &ctx.own.namespaces else {
        return Ok(None);
    };
    if tokio::time::timeout(LABELS_PATIENCE, namespaces.synced())
        .await
        .is_err()
    {
        return Err(failure("the labels of namespaces cannot be read"));
    }
    Ok(namespaces.labels(namespace))
}

fn no_tags(ctx: &Context<ImagePolicy>, repository: &ObjectKey) -> StepError {
    let message = format!(
        "retrying in {} s: no tags of ImageRepository '{repository}' in database",
        ctx.settings.requeue_dependency.as_secs()
    );
    StepError::dependency(reason::DEPENDENCY_NOT_READY, message)
}

/// The digest to show beside the tag of `found`: looked up where the policy says so, with all that the repository asks its
/// registry with.
async fn digest(
    ctx: &Context<ImagePolicy>,
    object: &ImagePolicy,
    spec: &ValidatedImagePolicy,
    repository: &ImageRepository,
    found: &ImageRef,
    drift: &Arc<Drift>,
) -> Result<String, StepError> {
    let shown = object.status.as_ref().and_then(|status| status.latest_ref.as_ref());
    let is_same = |shown: &&ImageRef| shown.name == found.name && shown.tag == found.tag;
    let known = shown
        .filter(is_same)
        .map(|shown| shown.digest.as_str())
        .unwrap_or_default();
    match spec.digest {
        DigestReflectionPolicy::Never | DigestReflectionPolicy::Unknown => return Ok(String::new()),
        DigestReflectionPolicy::IfNotPresent if !known.is_empty() => return Ok(known.to_owned()),
        DigestReflectionPolicy::IfNotPresent | DigestReflectionPolicy::Always => {}
    }
    drift.known(format!("looking up the digest of tag {}", found.tag));
    let shown = |basis: &ImagePolicy, error: StepError| {
        status::after(
            basis,
            &Outcome::failed_while(drift.message(), error),
            None,
            Timestamp::now(),
        )
    };
    let work = pin!(look_up(ctx, &spec.repository, repository, &found.tag, drift));
    let digest = progress::watched(ctx, object, drift, shown, work).await;
    digest.map_err(|error| StepError {
        message: format!(
            "failed fetching digest of {}:{}: {}",
            found.name, found.tag, error.message
        ),
        ..error
    })
}

async fn look_up(
    ctx: &Context<ImagePolicy>,
    key: &ObjectKey,
    repository: &ImageRepository,
    tag: &str,
    drift: &Arc<Drift>,
) -> Result<String, StepError> {
    let repositories = &ctx.own.repositories;
    let asked = async {
        let spec = ValidatedImageRepository::new(repository, &ctx.settings)?;
        let mut door = Door::new(repositories, key, repository, &spec.access);
        let mut session = door.open(drift, reason::FAILURE).await?.session;
        let digest = session.resolve(tag).await;
        digest.map_err(|error| registry_failure(&error, reason::FAILURE, "failed fetching descriptor"))
    };
    let digest = asked.await.map_err(as_dependency)?;
    Ok(digest.to_string())
}

/// What only an edit of the repository or of what it refers to mends is nothing that this object is stalled by: nobody tells
/// of all of it.
fn as_dependency(error: StepError) -> StepError {
    let policy = match error.policy {
        Policy::Terminal => Policy::Dependency,
        policy => policy,
    };
    StepError {
        policy,
        condition: None,
        reason: reason::FAILURE,
        ..error
    }
}
