//! What all passes share. Everything in it is cheap to reach and safe to use from many passes at a time.

use std::sync::Arc;

use kube::{Client, Resource, ResourceExt};
use tokio::sync::Semaphore;

use super::{KnownReferents, Settings};
use crate::{
    artifact::{AdvertisedAddress, Storage},
    credential::{Credentials, ObjectIdentity, SigningReceiver},
    notify::EventRecorder,
    registry::RegistryClient,
    runtime::{backoff::BackoffPolicy, lease::Leadership, metrics::Metrics},
    watch::{CrdGuard, Kind, ObjectKey, ObjectStore, Queue},
};

/// The parts of the process that passes of one kind work with.
pub struct Context<K> {
    /// The API server.
    pub client: Client,
    /// Flag values.
    pub settings: Settings,
    /// The objects as last seen.
    pub store: Arc<ObjectStore<K>>,
    /// Who is next.
    pub queue: Arc<Queue<ObjectKey>>,
    /// Whether the kind's CRD is ours.
    pub guard: CrdGuard,
    /// Whether this process reconciles, and may write.
    pub leadership: Leadership,
    /// What could not be written.
    pub unwritten: Arc<super::Unwritten>,
    /// Objects that left this shard.
    pub departed: super::Departed,
    /// What was told of other controllers.
    pub neighbours: super::Neighbours,
    /// What objects refer to, as last read.
    pub known_referents: KnownReferents,
    /// Objects to be requeued when the issuer can sign.
    pub waiting: Arc<super::Waiting>,
    /// What can sign now.
    pub signing: SigningReceiver,
    /// What pulls present.
    pub credentials: Arc<Credentials>,
    /// The way to registries.
    pub registry: RegistryClient,
    /// What is served.
    pub storage: Storage,
    /// Where it is served, as consumers reach it.
    pub address: AdvertisedAddress,
    /// Kubernetes Events and the webhook.
    pub events: EventRecorder,
    /// Metrics.
    pub metrics: Metrics,
    /// Delays after failures.
    pub backoff: BackoffPolicy,
    /// Extractions at a time.
    pub extractions: Arc<Semaphore>,
}

impl<K> Context<K> {
    /// Whether anything may be written to the API server now: by the leader, while it can be reached.
    pub fn may_write(&self) -> bool {
        self.leadership.is_leading() && !self.unwritten.is_down()
    }
}

/// The identity that credentials of `object` speak for.
pub fn identity<K: Kind>(object: &K) -> ObjectIdentity {
    let key = ObjectKey::of(object);
    ObjectIdentity {
        kind: K::KIND,
        plural: K::PLURAL,
        namespace: key.namespace,
        name: key.name,
        uid: object.uid().unwrap_or_default().into(),
    }
}

/// `metadata.generation`; 0 for an object that never was in an API server.
pub fn generation<K: Resource>(object: &K) -> i64 {
    object.meta().generation.unwrap_or_default()
}
