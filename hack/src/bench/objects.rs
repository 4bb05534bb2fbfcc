//! Objects of any kind in the one namespace of the bench: several clients create them, and a watch tells when all of them are
//! as wanted.

use std::{collections::BTreeSet, fmt::Debug};

use anyhow::{Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Namespace};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ObjectMeta, PostParams},
    runtime::watcher,
};
use mintmark_api::condition::{Condition, READY};
use serde::{Serialize, de::DeserializeOwned};

/// Namespace of all objects.
pub const TENANT: &str = "bench";
/// Clients that create objects at a time.
const CLIENTS: usize = 8;

/// A kind of which the bench creates objects.
pub trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// What its status says; empty before the first pass.
    fn conditions(&self) -> &[Condition];

    /// Whether Ready is True.
    fn is_ready(&self) -> bool {
        let mut conditions = self.conditions().iter();
        conditions.any(|condition| condition.type_ == READY && condition.status == "True")
    }
}

macro_rules! object {
    ($($kind:ty),*) => {
        $(impl Object for $kind {
            fn conditions(&self) -> &[Condition] {
                self.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default()
            }
        })*
    };
}

object!(
    mintmark_api::oci_repository::OciRepository,
    mintmark_api::image_repository::ImageRepository,
    mintmark_api::image_policy::ImagePolicy
);

/// The objects of a kind.
pub fn api<K: Object>(client: &Client) -> Api<K> {
    Api::namespaced(client.clone(), TENANT)
}

/// The name of the object with this number.
pub fn name(index: usize) -> String {
    format!("app-{index:05}")
}

/// Creates the namespace of all objects.
pub async fn create_namespace(client: &Client) -> Result<()> {
    let metadata = ObjectMeta {
        name: Some(TENANT.to_owned()),
        ..ObjectMeta::default()
    };
    let namespace = Namespace {
        metadata,
        ..Namespace::default()
    };
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await?;
    Ok(())
}

/// Creates objects, several at a time.
pub async fn create<K: Object>(client: &Client, objects: Vec<K>) -> Result<()> {
    let api = &api::<K>(client);
    stream::iter(objects)
        .map(|object| async move { api.create(&PostParams::default(), &object).await.map(drop) })
        .buffer_unordered(CLIENTS)
        .try_collect::<()>()
        .await?;
    Ok(())
}

/// Ends when a watch has shown `count` objects as wanted.
pub async fn all<K: Object>(api: Api<K>, count: usize, is_wanted: impl Fn(&K) -> bool + Send) -> Result<()> {
    let mut found = BTreeSet::new();
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    while let Some(event) = events.next().await {
        let (watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = event? else {
            continue;
        };
        if is_wanted(&object) {
            found.insert(object.name_any());
        }
        if found.len() == count {
            return Ok(());
        }
    }
    bail!("the watch ended")
}
