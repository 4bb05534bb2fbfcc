//! This controller adds no finalizer. An object that still carries the one of an earlier controller gets it removed when
//! it is being deleted, for nobody else will. Needs patch on the kind.

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use mintmark_api::annotation::FLUX_FINALIZER;
use serde_json::json;

use crate::watch::{Kind, Next};

/// Removes the foreign finalizer of an object that is being deleted, if it has it.
pub async fn release<K>(client: &Client, object: &K) -> Next
where
    K: Kind + Resource<Scope = NamespaceResourceScope>,
{
    let finalizers = object.finalizers();
    if !finalizers.iter().any(|finalizer| finalizer == FLUX_FINALIZER) {
        return Next::Never;
    }
    let kept: Vec<_> = finalizers
        .iter()
        .filter(|finalizer| *finalizer != FLUX_FINALIZER)
        .collect();
    let patch = json!({"metadata": {"finalizers": kept, "resourceVersion": object.resource_version()}});
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    match api
        .patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Next::Never,
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Next::Never,
        Err(error) => {
            tracing::error!(controllerKind = K::KIND, name = object.name_any(), %error, "finalizer not removed");
            Next::After(std::time::Duration::from_secs(5))
        }
    }
}
