//! One pass over an ImagePolicy: selects the latest of the tags that the ImageRepository's scan stored, and looks up its digest
//! when the policy wants one, as the repository. What decides is what is stored, never the repository's status.

mod access;
mod dependents;
mod events;
mod pass;
mod select;
mod status;
#[cfg(test)]
mod tests;
mod validate;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt;
use mintmark_api::{
    condition::READY,
    duration::GoDuration,
    image_policy::{ImagePolicy, ImagePolicyStatus, ImageRef, KIND, PLURAL},
    image_repository::ImageRepository,
};

pub use dependents::{Dependents, Passed};
pub use validate::ValidatedImagePolicy;

use super::{Context, Pass, Reconciled, conditions::is_true};
use crate::{
    artifact,
    notify::Action,
    tags::TagLists,
    watch::{Kind, Namespaces, ObjectKey, OnChange, prune_metadata},
};

impl Kind for ImagePolicy {
    const KIND: &'static str = KIND;
    const PLURAL: &'static str = PLURAL;
    const REQUIRED_FIELDS: &'static [&'static str] = &[];

    fn pruned(mut self) -> Self {
        prune_metadata(&mut self.metadata);
        self
    }

    fn same_spec(&self, other: &Self) -> bool {
        self.spec == other.spec
    }

    fn host(&self) -> &'static str {
        // The repository knows; most policies ask no registry at all.
        ""
    }

    fn has_credential(&self) -> bool {
        false
    }

    fn is_ready(&self) -> Option<bool> {
        Some(is_true(READY, &self.status.as_ref()?.conditions))
    }
}

/// What selections work with.
pub struct Own {
    /// The repositories, with all that their own passes work with.
    pub repositories: Arc<Context<ImageRepository>>,
    /// Their tags.
    pub lists: Arc<TagLists>,
    /// Who has to look again after a change.
    pub dependents: Arc<Dependents>,
    /// The labels of namespaces; none where no policy may refer to another namespace, or none is watched.
    pub namespaces: Option<Arc<Namespaces>>,
}

/// What the store of the repositories tells: of an edit or a deletion their policies learn at once. What a scan found is told by
/// the scan itself, since a status can be written by others.
pub fn observer(dependents: &Arc<Dependents>, lists: &Arc<TagLists>) -> OnChange<ImageRepository> {
    let (dependents, lists) = (dependents.clone(), lists.clone());
    Box::new(move |key, old, new| {
        let version =
            |object: Option<&ImageRepository>| object.map(|object| (object.uid(), object.metadata.generation));
        if version(old) == version(new) {
            return;
        }
        if new.is_none()
            && let Ok(key) = artifact::ObjectKey::new(&key.namespace, &key.name)
        {
            lists.forget(&key);
        }
        dependents.wake(key);
    })
}

impl Reconciled for ImagePolicy {
    type Status = ImagePolicyStatus;
    type Own = Own;
    type Found = Option<ImageRef>;
    type Kept = ();

    const ACTION: Action = Action::SelectImage;

    fn status(&self) -> Option<&ImagePolicyStatus> {
        self.status.as_ref()
    }

    fn with_status(&self, status: Option<ImagePolicyStatus>) -> Self {
        Self {
            metadata: self.metadata.clone(),
            spec: self.spec.clone(),
            status,
        }
    }

    fn interval(&self) -> Option<Duration> {
        self.spec.interval.map(GoDuration::to_std)
    }

    async fn pass(ctx: &Context<Self>, key: &ObjectKey, object: &Self) -> Option<Pass<Self>> {
        pass::run(ctx, key, object).await
    }

    fn status_of(_: &Context<Self>, basis: &Self, pass: &Pass<Self>) -> ImagePolicyStatus {
        status::after(basis, &pass.outcome, pass.found.as_ref(), Timestamp::now())
    }

    fn progressing(object: &Self, message: &str, now: Timestamp) -> ImagePolicyStatus {
        status::progressing(object, message, now)
    }

    fn tell(ctx: &Context<Self>, object: &Self, pass: &Pass<Self>) {
        events::tell(ctx, object, pass);
    }

    /// While the definition of the repositories is another project's, or not all of them are known, nothing is decided on them.
    async fn prepared(ctx: &Context<Self>) {
        ctx.own.repositories.ready().await;
    }

    async fn unprepared(ctx: &Context<Self>) {
        ctx.own.repositories.guard.incomplete().await;
    }

    fn gone(ctx: &Context<Self>, key: &ObjectKey) {
        ctx.own.dependents.forget(key);
    }
}
