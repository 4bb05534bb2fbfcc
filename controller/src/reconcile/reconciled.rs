//! What a kind brings along so that the pipeline can reconcile its objects: its pass, its status, what it keeps.

use std::{fmt::Debug, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use mintmark_api::credential::CredentialStatus;
use mintmark_issuer::SigningSet;
use serde::Serialize;

use super::{Context, StepError, context::generation};
use crate::{
    artifact::{self, Storage},
    notify::Action,
    watch::{Kind, ObjectKey, requested_at},
};

/// A kind whose objects are reconciled.
pub trait Reconciled: Kind + Resource<Scope = NamespaceResourceScope> {
    /// Its status.
    type Status: OwnedStatus;
    /// What passes of this kind work with beside what all do.
    type Own: Send + Sync + 'static;
    /// What a pass found and its status tells.
    type Found: Default + Send + Sync;
    /// What was there before a pass: decides what is announced.
    type Kept: Clone + Default + Debug + Send + Sync + 'static;

    /// What events say was being done.
    const ACTION: Action;

    /// The status as last seen.
    fn status(&self) -> Option<&Self::Status>;

    /// The same object with another status.
    #[must_use]
    fn with_status(&self, status: Option<Self::Status>) -> Self;

    /// Time between passes as the spec has it.
    fn interval(&self) -> Option<Duration>;

    /// One pass. None if nothing is written and none is planned: the object is left to another controller, or what it waits
    /// for has it queued.
    fn pass(ctx: &Context<Self>, key: &ObjectKey, object: &Self) -> impl Future<Output = Option<Pass<Self>>> + Send;

    /// The status that says what `pass` came to, over what `basis` says now.
    fn status_of(ctx: &Context<Self>, basis: &Self, pass: &Pass<Self>) -> Self::Status;

    /// The status while a pass is under way: Reconciling, and Ready set to Unknown directly.
    fn progressing(object: &Self, message: &str, now: Timestamp) -> Self::Status;

    /// Makes the events of a pass.
    fn tell(ctx: &Context<Self>, object: &Self, pass: &Pass<Self>);

    /// Where the files of its objects are, if there are any.
    fn storage(_: &Context<Self>) -> Option<&Storage> {
        None
    }

    /// The UID of the object whose files are kept under a key.
    fn live_uid(ctx: &Context<Self>, key: &artifact::ObjectKey) -> Option<String> {
        ctx.store.get(&ObjectKey::from(key))?.uid()
    }

    /// Whether the files of an object that the watch no longer shows stay, and somebody looks after them.
    fn keeps_files(_: &Context<Self>, _: &ObjectKey, _: &artifact::ObjectKey, _uid: &str) -> bool {
        false
    }

    /// Waits until passes may be made, beside what holds for every kind.
    fn prepared(_: &Context<Self>) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Waits until that is no longer so.
    fn unprepared(_: &Context<Self>) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// The object is gone; what all kinds keep of it is forgotten already.
    fn gone(_: &Context<Self>, _: &ObjectKey) {}

    /// What is to be done once between the first list of all objects and the first sweep.
    fn before_sweeps(_: &Arc<Context<Self>>) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// The status of a kind, all fields of which this controller owns.
pub trait OwnedStatus: Clone + Default + Serialize + Send + Sync + 'static {
    /// Every field that this controller writes or removes.
    const OWNED_FIELDS: &'static [&'static str];

    /// The generation that it speaks about.
    fn observed_generation(&self) -> Option<i64>;

    /// Whether writing it over `old` would tell anybody anything: the credential alone is written only when status is
    /// written anyway.
    fn differs(&self, old: &Self) -> bool;

    /// Takes from `before` what is known at the end of a pass only: what it has handled and presented.
    fn keep_handled(&mut self, before: &Self);
}

/// Whether `new` is worth writing over `old`.
pub fn differs<S: OwnedStatus>(old: Option<&S>, new: &S) -> bool {
    old.is_none_or(|old| new.differs(old))
}

/// How a pass ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// What the object asks for is there.
    Ready,
    /// It is not, for this reason.
    Failed {
        /// Why.
        error: StepError,
        /// A revision that the registry has and that was not fetched.
        outdated: Option<String>,
        /// What was being done, as `Reconciling` says it; nothing was known to be done when absent.
        doing: Option<String>,
    },
    /// The object is left alone.
    Suspended,
}

/// Notes in a status what a pass over `object` has seen. `observed_generation` moves when the spec was acted on or refused for
/// good, never on a retryable failure; one beyond the object's is of another object of this name, or forged. `handled` is
/// `lastHandledReconcileAt`.
pub fn observe<K: Resource>(
    object: &K,
    outcome: &Outcome,
    observed_generation: &mut Option<i64>,
    handled: &mut Option<String>,
) {
    let current = generation(object);
    let is_observed = match outcome {
        Outcome::Ready | Outcome::Suspended => true,
        Outcome::Failed { error, .. } => {
            error.policy.is_stalled() || observed_generation.is_some_and(|seen| seen > current)
        }
    };
    if is_observed {
        *observed_generation = Some(current);
    }
    if let Some(requested) = requested_at(object) {
        *handled = Some(requested.to_owned());
    }
}

impl Outcome {
    /// A failure before it was known what there is to do.
    pub fn failed(error: StepError) -> Self {
        Self::failed_while(None, error)
    }

    /// A failure of what was being done.
    pub fn failed_while(doing: Option<String>, error: StepError) -> Self {
        Self::Failed {
            error,
            outdated: None,
            doing,
        }
    }
}

/// What a pass found and did.
pub struct Pass<K: Reconciled> {
    /// How it ended.
    pub outcome: Outcome,
    /// What is there now.
    pub found: K::Found,
    /// What was there before.
    pub previous: K::Kept,
    /// What was presented.
    pub credential: Option<CredentialStatus>,
    /// Who signed when it began.
    pub signing: Arc<SigningSet>,
    /// When the next pass is due after a success; none if only a change makes one due.
    pub interval: Option<Duration>,
}

impl<K: Reconciled> Pass<K> {
    /// One that has found nothing yet, and leaves the object alone if nothing follows.
    pub fn begun(ctx: &Context<K>) -> Self {
        Self {
            outcome: Outcome::Suspended,
            found: K::Found::default(),
            previous: K::Kept::default(),
            credential: None,
            signing: ctx.signing.borrow().clone(),
            interval: None,
        }
    }
}
