//! Applies objects in an order in which each finds what it needs.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context, Result};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
    discovery::{self, Scope},
    runtime::wait::{await_condition, conditions},
};

/// How long a CRD may take to be served.
const ESTABLISHED_DEADLINE: Duration = Duration::from_secs(30);

/// Kinds that others need, in their order; everything else comes after them as written.
const FIRST: &[&str] = &[
    "Namespace",
    "CustomResourceDefinition",
    "ServiceAccount",
    "ClusterRole",
    "Role",
    "ClusterRoleBinding",
    "RoleBinding",
    "ConfigMap",
    "Secret",
    "ValidatingAdmissionPolicy",
];

/// Applies all objects by server-side apply, and waits for each CRD to be established before what may be of its kind.
pub async fn apply(client: &Client, mut objects: Vec<DynamicObject>) -> Result<()> {
    sort(&mut objects);
    let mut resources = HashMap::new();
    for object in objects {
        let name = object.name_any();
        let kind = self::kind(&object).to_owned();
        apply_one(client, &object, &mut resources)
            .await
            .with_context(|| format!("cannot apply {kind} {name}"))?;
        if kind == "CustomResourceDefinition" {
            wait_established(client, &name).await?;
        }
    }
    Ok(())
}

/// Sorts objects into the order in which they can be applied, and in reverse be deleted.
pub fn sort(objects: &mut [DynamicObject]) {
    let rank = |object: &DynamicObject| FIRST.iter().position(|&first| first == kind(object));
    objects.sort_by_key(|object| rank(object).unwrap_or(FIRST.len()));
}

/// Where an object lives; asks the API server about its kind.
pub async fn api(client: &Client, object: &DynamicObject) -> Result<Api<DynamicObject>> {
    in_scope(client, object, &mut HashMap::new()).await
}

/// The kind of an object, empty if it has none.
pub fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map_or("", |types| types.kind.as_str())
}

async fn apply_one(
    client: &Client,
    object: &DynamicObject,
    resources: &mut HashMap<GroupVersionKind, (ApiResource, Scope)>,
) -> Result<()> {
    let api = in_scope(client, object, resources).await?;
    api.patch(
        &object.name_any(),
        &PatchParams::apply("mintmark-hack").force(),
        &Patch::Apply(object),
    )
    .await?;
    Ok(())
}

async fn in_scope(
    client: &Client,
    object: &DynamicObject,
    resources: &mut HashMap<GroupVersionKind, (ApiResource, Scope)>,
) -> Result<Api<DynamicObject>> {
    let types = object.types.as_ref().context("an object without kind")?;
    let gvk = GroupVersionKind::try_from(types)?;
    let (resource, scope) = if let Some(known) = resources.get(&gvk) {
        known.clone()
    } else {
        let (resource, capabilities) = discovery::pinned_kind(client, &gvk).await?;
        resources.entry(gvk).or_insert((resource, capabilities.scope)).clone()
    };
    Ok(match scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    })
}

async fn wait_established(client: &Client, name: &str) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let established = await_condition(crds, name, conditions::is_crd_established());
    tokio::time::timeout(ESTABLISHED_DEADLINE, established)
        .await
        .with_context(|| format!("the CRD {name} is not established in time"))??;
    Ok(())
}
