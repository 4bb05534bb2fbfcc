//! Objects that another controller serves or writes. Its artifact is shown until ours replaces it ([`super::status`]); an
//! object that this version cannot serve at all is left to it untouched. Status is read for these courtesies only.

use kube::ResourceExt;
use mintmark_api::{
    condition::reason,
    oci_repository::{KIND, OciRepository},
};

use super::events;
use crate::{
    reconcile::{Context, StepError, context::generation},
    watch::ObjectKey,
};

/// Whether `error` means that this version cannot serve the object, which another controller has served. `is_ours`: there
/// is an artifact of ours.
pub(super) fn is_theirs(
    ctx: &Context<OciRepository>,
    object: &OciRepository,
    error: &StepError,
    is_ours: bool,
) -> bool {
    let unable = [reason::PROVIDER_NOT_SUPPORTED, reason::VERIFICATION_NOT_SUPPORTED];
    let artifact = object.status.as_ref().and_then(|status| status.artifact.as_ref());
    !is_ours && unable.contains(&error.reason) && artifact.is_some_and(|artifact| !ctx.own.address.names(&artifact.url))
}

/// Tells, once per generation, that the object stays as another controller left it. Nothing of it is written.
pub(super) fn leave(ctx: &Context<OciRepository>, key: &ObjectKey, object: &OciRepository, error: &StepError) {
    let is_new = ctx
        .neighbours
        .leave(key, &object.uid().unwrap_or_default(), generation(object));
    ctx.metrics.set_left_alone(KIND, ctx.neighbours.left());
    if !is_new {
        return;
    }
    let message = format!("left to the controller that stored its artifact: {}", error.message);
    tracing::info!(
        controllerKind = KIND,
        namespace = &*key.namespace,
        name = &*key.name,
        "{message}"
    );
    events::left_alone(ctx, object, error.reason, message);
}

/// The object is ours to reconcile.
pub(super) fn take(ctx: &Context<OciRepository>, key: &ObjectKey) {
    if ctx.neighbours.take(key) {
        ctx.metrics.set_left_alone(KIND, ctx.neighbours.left());
    }
}
