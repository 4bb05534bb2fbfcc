//! The small tasks around the reconcile loops: the leader's gate, sweeps, gauges, what happens on deletion, events about the signing
//! Secret.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use mintmark_issuer::{KeyUses, TrustDomain};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    RunFlags,
    cluster::Cluster,
    run::{READINGS, task},
};
use crate::{
    artifact,
    credential::CredentialSettings,
    issuing::OnNews,
    notify::{Action, EventRecorder, EventType, NewEvent},
    reconcile::{self, Context, Member, Reconciled, Shared},
    runtime::{
        health::Health,
        lease::{LeaderState, Leadership},
        metrics::ReadySource,
        supervise::Supervisor,
    },
    watch::{OnDelete, OnForeignWrite, ReferentFollower, ReferentWatch, SigningReading, SigningSecretWatch},
};

/// Time between sweeps of storage and caches.
const SWEEP: Duration = Duration::from_mins(10);
/// Time between looks at queue depth and cache sizes.
const GAUGES: Duration = Duration::from_secs(5);

/// Only the replica that reconciles is ready, so that the Service of the artifacts finds it; a detached one still does.
pub(super) fn leader_gate(supervisor: &mut Supervisor, leadership: &Leadership, health: &Health) {
    let gate = health.gate("leader");
    let (mut states, leadership) = (leadership.subscribe(), leadership.clone());
    task(supervisor, "leader gate", async move {
        loop {
            match *states.borrow_and_update() {
                LeaderState::Leading | LeaderState::Detached => gate.open(),
                LeaderState::Standby => gate.close("another replica leads"),
            }
            // The sender lives as long as `leadership`.
            if states.changed().await.is_err() {
                drop(leadership);
                return;
            }
        }
    });
}

/// Removes files that belong to objects that are gone, at start and every ten minutes.
pub(super) fn sweep<K: Reconciled>(supervisor: &mut Supervisor, context: &Arc<Context<K>>) {
    if K::storage(context).is_none() {
        return;
    }
    let context = context.clone();
    task(supervisor, format!("{} sweep", K::KIND), async move {
        let mut synced = context.store.synced();
        if synced.wait_for(|synced| *synced).await.is_err() {
            return;
        }
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_first = true;
        loop {
            ticks.tick().await;
            // What a replica on standby has stored is of its earlier term; it goes when it leads again.
            context.leadership.permits().await;
            if std::mem::replace(&mut is_first, false) {
                K::before_sweeps(&context).await;
            }
            sweep_now(context.clone()).await;
        }
    });
}

async fn sweep_now<K: Reconciled>(context: Arc<Context<K>>) {
    let swept = tokio::task::spawn_blocking(move || {
        let report = K::storage(&context)?.sweep(|key| K::live_uid(&context, key));
        Some(report)
    });
    match swept.await {
        Ok(None) => {}
        Ok(Some(Ok(report))) => {
            tracing::debug!(
                controllerKind = K::KIND,
                objects = report.objects,
                files = report.files,
                "swept"
            );
        }
        Ok(Some(Err(error))) => tracing::error!(controllerKind = K::KIND, %error, "storage not swept"),
        Err(_) => tracing::error!(controllerKind = K::KIND, "the sweep of the storage panicked"),
    }
}

/// Drops credentials that have ended.
pub(super) fn sweep_credentials(supervisor: &mut Supervisor, shared: &Arc<Shared>) {
    let shared = shared.clone();
    task(supervisor, "credential sweep", async move {
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            shared.credentials.sweep();
        }
    });
}

/// Keeps the gauges.
pub(super) fn gauges(supervisor: &mut Supervisor, shared: &Arc<Shared>, kinds: &[Arc<dyn Member>]) {
    let (shared, kinds) = (shared.clone(), kinds.to_vec());
    task(supervisor, "gauges", async move {
        let mut ticks = interval(GAUGES);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for kind in &kinds {
                kind.show_queue();
            }
            let metrics = &shared.metrics;
            metrics.set_cache_entries("credentials", shared.credentials.len());
            let (transports, connections) = shared.registry.kept();
            metrics.set_cache_entries("transports", transports);
            metrics.set_cache_entries("connections", connections);
            let (mut objects, mut bytes, mut free) = (0, 0, 0);
            for (usage, free_bytes) in kinds.iter().filter_map(|kind| kind.usage()) {
                objects += usize::try_from(usage.objects).unwrap_or(usize::MAX);
                bytes += usage.bytes;
                free = free_bytes;
            }
            metrics.set_storage(objects, bytes, free);
        }
    });
}

/// What goes with an object: its files unless somebody looks after them, its credential and everything obtained with it, its
/// metrics.
pub(super) fn on_delete<K: Reconciled>(context: &Arc<Context<K>>) -> OnDelete {
    let context = context.clone();
    Box::new(move |key, uid| {
        context.waiting.remove(key);
        context.unwritten.forget(key);
        context.known_referents.forget(key);
        context.neighbours.forget(key);
        context.credentials.forget(uid);
        context.registry.forget(&uid.into());
        context.metrics.forget_object(K::KIND, &key.namespace, &key.name);
        K::gone(&context, key);
        let (context, uid) = (context.clone(), uid.to_owned());
        let Ok(storage_key) = artifact::ObjectKey::new(&key.namespace, &key.name) else {
            return;
        };
        if K::storage(&context).is_none() || K::keeps_files(&context, key, &storage_key, &uid) {
            return;
        }
        tokio::task::spawn_blocking(move || {
            let removed = K::storage(&context).map(|storage| storage.remove(&storage_key, &uid));
            if let Some(Err(error)) = removed {
                tracing::error!(controllerKind = K::KIND, %error, namespace = storage_key.namespace(),
                    name = storage_key.name(), "files of a deleted object not removed; the next sweep tries again");
            }
        });
    })
}

/// Somebody else wrote a status after us: told at once, or by the next pass if this process may not write now.
pub(super) fn on_foreign_write<K: Reconciled>(context: &Arc<Context<K>>) -> OnForeignWrite {
    let context = context.clone();
    Box::new(move |key| {
        if let Some(object) = context.store.get(key) {
            reconcile::tell_of_foreign_write(&context, key, &object);
        }
    })
}

struct Objects(Vec<Arc<dyn Member>>);

impl ReadySource for Objects {
    fn count(&self) -> usize {
        self.0.iter().map(|kind| kind.count()).sum()
    }

    fn visit(&self, visit: &mut dyn FnMut(&str, &str, &str, bool)) {
        self.0.iter().for_each(|kind| kind.visit(visit));
    }
}

/// Lets a scrape see which objects are ready.
pub(super) fn ready_source(shared: &Shared, kinds: &[Arc<dyn Member>]) {
    shared.metrics.set_ready_source(Arc::new(Objects(kinds.to_vec())));
}

/// Tells the key ring's news as events on the signing Secret that they are about; `jwt_name` is the one of the JWTs.
pub(super) fn news(events: EventRecorder, namespace: String, name: String, jwt_name: String) -> OnNews {
    Box::new(move |news| {
        let name = if news.about == KeyUses::Jwt { &jwt_name } else { &name };
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Secret".to_owned()),
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            ..ObjectReference::default()
        };
        events.record(NewEvent {
            object,
            event_type: if news.is_warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: news.reason.into(),
            message: news.message.clone(),
            action: Action::Reconcile,
            metadata: BTreeMap::new(),
            timestamp: Timestamp::now(),
        });
    })
}

/// Watches what objects of every kind refer to, if there are the rights.
pub(super) fn watch_referents(
    supervisor: &mut Supervisor,
    shared: &Shared,
    followers: Vec<ReferentFollower>,
    flags: &RunFlags,
    namespace: &str,
) {
    let watch = ReferentWatch {
        namespace: (!flags.controller.watch_all_namespaces).then(|| namespace.to_owned()),
        followers,
        metrics: shared.metrics.clone(),
    };
    let client = shared.client.clone();
    task(supervisor, "referent watch", async move { watch.run(client).await });
}

/// A watch on each signing Secret.
pub(super) fn watch_signing_secrets(
    supervisor: &mut Supervisor,
    cluster: &Cluster,
    identities: &CredentialSettings,
    trust_domain: &TrustDomain,
) -> mpsc::Receiver<SigningReading> {
    let (sender, readings) = mpsc::channel(READINGS);
    let jwt = identities.jwt_secret_name.as_ref();
    let first_uses = if jwt.is_some() { KeyUses::X509 } else { KeyUses::Both };
    let first = identities.secret_name.as_ref().map(|name| (name, first_uses));
    for (name, uses) in first.into_iter().chain(jwt.map(|name| (name, KeyUses::Jwt))) {
        let watch = SigningSecretWatch {
            namespace: cluster.namespace.clone(),
            name: name.clone(),
            uses,
            trust_domain: trust_domain.clone(),
            cluster_cas: cluster.certificate_authorities.clone(),
            readings: sender.clone(),
        };
        let client = cluster.client.clone();
        task(
            supervisor,
            "signing Secret watch",
            async move { watch.run(client).await },
        );
    }
    readings
}
