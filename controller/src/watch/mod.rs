//! From the API server to the work queue: watches on the repository kinds, on their CRDs, on what they refer to, and
//! on single Secrets.

mod crd;
mod events;
mod namespaces;
mod objects;
mod queue;
mod referents;
mod secret;
mod signing_secret;
mod writers;

use std::fmt::Debug;

use kube::{Resource, api::ObjectMeta};
use mintmark_api::annotation::{EVENT_PREFIX, RECONCILE_REQUESTED_AT};
use serde::de::DeserializeOwned;

pub use crd::{CrdGuard, CrdState, CrdWatch, definition_state, read_schema};
pub use events::watch_events;
pub use namespaces::Namespaces;
pub use objects::{ObjectKey, ObjectStore, ObjectWatch, OnChange, OnDelete, OnForeignWrite, requested_at, version};
pub use queue::{Next, Queue};
pub use referents::{ReferentFollower, ReferentIndex, ReferentKey, ReferentKind, ReferentWatch, Version};
pub use secret::{SecretData, follow_secret};
pub use signing_secret::{SigningReading, SigningSecretWatch};
pub use writers::{FIELD_MANAGER, ForeignWrite};

/// Drops what the controller never reads of any kind: above all the copy that `kubectl apply` leaves in an annotation.
pub fn prune_metadata(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.labels = None;
    metadata.owner_references = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|name, _| name == RECONCILE_REQUESTED_AT || name.starts_with(EVENT_PREFIX));
    }
    metadata.annotations.take_if(|annotations| annotations.is_empty());
}

/// A repository kind that this controller reconciles.
pub trait Kind: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static {
    /// The kind as it stands in manifests.
    const KIND: &'static str;
    /// The plural, which is part of the SPIFFE ID and of the CRD's name.
    const PLURAL: &'static str;
    /// Fields of `spec` without which the CRD is not ours, and nothing of the kind is reconciled.
    const REQUIRED_FIELDS: &'static [&'static str];

    /// Without what the controller never reads (`managedFields`, labels, most annotations), which is most of an object's size.
    #[must_use]
    fn pruned(self) -> Self;

    /// Whether both ask for the same.
    fn same_spec(&self, other: &Self) -> bool;

    /// Host of the registry as the spec names it, with its port; empty if it names none.
    fn host(&self) -> &str;

    /// Whether the spec names a credential.
    fn has_credential(&self) -> bool;

    /// Whether Ready is True; `None` before the first status.
    fn is_ready(&self) -> Option<bool>;
}
