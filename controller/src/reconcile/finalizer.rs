//! This controller adds no finalizer. An object that still carries the one of an earlier controller gets it removed when
//! it is being deleted, for nobody else will. Needs patch on the kind.

use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use mintmark_api::annotation::FLUX_FINALIZER;
use serde_json::json;

use super::{Context, Reconciled};
use crate::{
    runtime::api_server::timely,
    watch::{Next, ObjectKey},
};

/// Removes the foreign finalizer of an object that is being deleted, if it has it.
pub async fn release<K: Reconciled>(ctx: &Context<K>, object: &K) -> Next {
    let finalizers = object.finalizers();
    if !finalizers.iter().any(|finalizer| finalizer == FLUX_FINALIZER) {
        return Next::Never;
    }
    let (key, uid) = (ObjectKey::of(object), object.uid().unwrap_or_default());
    if !ctx.may_write() {
        ctx.unwritten.keep(&key, &uid, K::Kept::default());
        return Next::Never;
    }
    let kept: Vec<_> = finalizers
        .iter()
        .filter(|finalizer| *finalizer != FLUX_FINALIZER)
        .collect();
    let patch = json!({"metadata": {"finalizers": kept, "resourceVersion": object.resource_version()}});
    let api: Api<K> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    match timely(api.patch(&key.name, &params, &patch)).await {
        Ok(_) => Next::Never,
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Next::Never,
        Err(error) if ctx.api_server.note(&error) => {
            ctx.unwritten.keep(&key, &uid, K::Kept::default());
            Next::Never
        }
        Err(error) => {
            tracing::error!(controllerKind = K::KIND, name = object.name_any(), %error, "finalizer not removed");
            Next::After(std::time::Duration::from_secs(5))
        }
    }
}
