//! What all passes share. Everything in it is cheap to reach and safe to use from many passes at a time. [`Shared`] exists
//! once per process, a [`Context`] once per kind.

use std::{ops::Deref, sync::Arc};

use kube::{Client, Resource, ResourceExt};

use super::{ApiServer, KnownReferents, Reconciled, Settings};
use crate::{
    credential::{Credentials, ObjectIdentity, SigningReceiver},
    notify::EventRecorder,
    registry::RegistryClient,
    runtime::{backoff::BackoffPolicy, lease::Leadership, metrics::Metrics},
    watch::{CrdGuard, Kind, ObjectKey, ObjectStore, Queue},
};

/// The parts of the process that passes of every kind work with.
pub struct Shared {
    /// The API server.
    pub client: Client,
    /// Whether it can be reached.
    pub api_server: ApiServer,
    /// Flag values.
    pub settings: Settings,
    /// Whether this process reconciles, and may write.
    pub leadership: Leadership,
    /// What can sign now.
    pub signing: SigningReceiver,
    /// What pulls present.
    pub credentials: Arc<Credentials>,
    /// The way to registries.
    pub registry: RegistryClient,
    /// Kubernetes Events and the webhook.
    pub events: EventRecorder,
    /// Metrics.
    pub metrics: Metrics,
    /// Delays after failures.
    pub backoff: BackoffPolicy,
}

impl Shared {
    /// Whether anything may be written to the API server now: by the leader, while it can be reached.
    pub fn may_write(&self) -> bool {
        self.leadership.is_leading() && !self.api_server.is_down()
    }
}

/// The parts of the process that passes of one kind work with. What all kinds share is reached through it.
pub struct Context<K: Reconciled> {
    /// What all kinds share.
    pub shared: Arc<Shared>,
    /// The objects as last seen.
    pub store: Arc<ObjectStore<K>>,
    /// Who is next.
    pub queue: Arc<Queue<ObjectKey>>,
    /// Whether the kind's CRD is ours.
    pub guard: CrdGuard,
    /// What could not be written.
    pub unwritten: Arc<super::Unwritten<K::Kept>>,
    /// What was told of other controllers.
    pub neighbours: super::Neighbours,
    /// What objects refer to, as last read.
    pub known_referents: KnownReferents,
    /// Objects to be requeued when the issuer can sign.
    pub waiting: Arc<super::Waiting>,
    /// What only this kind has.
    pub own: K::Own,
}

impl<K: Reconciled> Context<K> {
    /// The context of a kind of which nothing is known yet.
    pub fn new(shared: Arc<Shared>, guard: CrdGuard, known_referents: KnownReferents, own: K::Own) -> Self {
        Self {
            shared,
            store: Arc::new(ObjectStore::default()),
            queue: Arc::new(Queue::default()),
            guard,
            unwritten: Arc::default(),
            neighbours: super::Neighbours::default(),
            known_referents,
            waiting: Arc::default(),
            own,
        }
    }
}

impl<K: Reconciled> Context<K> {
    /// Waits until the kind's CRD is ours and what is known of the objects was read under it.
    pub async fn ready(&self) {
        self.guard.complete().await;
        // A closed channel means the watch ended, which ends the process.
        if self.store.synced().wait_for(|synced| *synced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl<K: Reconciled> Deref for Context<K> {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
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
