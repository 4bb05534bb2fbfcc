//! The small tasks around the reconcile loop: probes' gates, sweeps, what happens on deletion, events about the signing
//! Secret.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use mintmark_api::oci_repository::OciRepository;
use mintmark_issuer::{KeyUses, TrustDomain};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    RunFlags,
    cluster::Cluster,
    run::{READINGS, task},
    settings::label_selector,
};
use crate::{
    artifact,
    credential::CredentialSettings,
    issuing::{OnNews, RevokedReceiver},
    notify::{Action, EventRecorder, EventType, NewEvent},
    reconcile::{self, Context, live_uid, look_after_departed},
    runtime::{
        health::Health,
        lease::{LeaderState, Leadership},
        metrics::ReadySource,
        supervise::Supervisor,
    },
    watch::{
        CrdGuard, CrdState, Kind, ObjectKey, OnDelete, OnForeignWrite, ReferentFollower, ReferentIndex, ReferentWatch,
        SigningReading, SigningSecretWatch,
    },
};

/// Time between sweeps of storage and caches.
const SWEEP: Duration = Duration::from_mins(10);
/// Time between looks at queue depth and cache sizes.
const GAUGES: Duration = Duration::from_secs(5);

/// Opens the gates of `/readyz`: objects read, CRD complete.
pub(super) fn gates(
    supervisor: &mut Supervisor,
    context: &Arc<Context<OciRepository>>,
    guard: &CrdGuard,
    health: &Health,
) {
    let (store_gate, crd_gate) = (health.gate("store"), health.gate("crd"));
    let mut synced = context.store.synced();
    task(supervisor, "store gate", async move {
        if synced.wait_for(|synced| *synced).await.is_ok() {
            store_gate.open();
        }
        std::future::pending::<()>().await;
    });
    let (mut state, context) = (guard.subscribe(), context.clone());
    task(supervisor, "CRD gate", async move {
        loop {
            let current = state.borrow_and_update().clone();
            context
                .metrics
                .set_crd_compatible(OciRepository::KIND, current == CrdState::Complete);
            match current {
                CrdState::Complete => crd_gate.open(),
                CrdState::Absent => crd_gate.close("the CRD is not installed"),
                CrdState::Lacks(fields) => crd_gate.close(format!("the CRD lacks spec.{}", fields.join(", spec."))),
            }
            if state.changed().await.is_err() {
                return;
            }
            if *state.borrow() == CrdState::Complete {
                // What was due meanwhile was not looked at; what is stored may have been pruned and healed.
                context.store.keys().iter().for_each(|key| context.queue.push(key));
            }
        }
    });
}

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

/// Writes what could not be written, when that is possible again.
pub(super) fn unwritten(supervisor: &mut Supervisor, context: &Arc<Context<OciRepository>>) {
    let context = context.clone();
    task(supervisor, "unwritten outcomes", async move {
        let (shared, queue) = (context.shared.clone(), context.queue.clone());
        context.unwritten.clone().run(shared, queue).await;
    });
}

/// Removes what belongs to objects that are gone, at start and every ten minutes, and keeps the gauges.
pub(super) fn sweep(supervisor: &mut Supervisor, context: &Arc<Context<OciRepository>>, flags: &RunFlags) {
    let swept = context.clone();
    let is_sharded = label_selector(flags).is_some();
    if is_sharded {
        let (context, retention) = (context.clone(), flags.artifact.artifact_retention_ttl);
        task(supervisor, "departed objects", look_after_departed(context, retention));
    }
    task(supervisor, "sweep", async move {
        let mut synced = swept.store.synced();
        if synced.wait_for(|synced| *synced).await.is_err() {
            return;
        }
        let mut ticks = interval(SWEEP);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_first = true;
        loop {
            ticks.tick().await;
            swept.credentials.sweep();
            // What a replica on standby has stored is of its earlier term; it goes when it leads again.
            swept.leadership.permits().await;
            if std::mem::replace(&mut is_first, false) && is_sharded {
                departed_before(&swept).await;
            }
            let context = swept.clone();
            let report =
                tokio::task::spawn_blocking(move || context.own.storage.sweep(|key| live_uid(&context, key))).await;
            match report {
                Ok(Ok(report)) => tracing::debug!(objects = report.objects, files = report.files, "swept"),
                Ok(Err(error)) => tracing::error!(%error, "storage not swept"),
                Err(_) => tracing::error!("the sweep of the storage panicked"),
            }
        }
    });
    let context = context.clone();
    task(supervisor, "gauges", async move {
        let mut ticks = interval(GAUGES);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let is_standby = context.leadership.state() == LeaderState::Standby;
            let depth = if is_standby { 0 } else { context.queue.overdue() };
            context.metrics.set_queue_depth(OciRepository::KIND, depth);
            let running = context.queue.running();
            context.metrics.set_running_passes(OciRepository::KIND, running);
            context
                .metrics
                .set_cache_entries("credentials", context.credentials.len());
            let (transports, connections) = context.registry.kept();
            context.metrics.set_cache_entries("transports", transports);
            context.metrics.set_cache_entries("connections", connections);
            let usage = context.own.storage.usage();
            let objects = usize::try_from(usage.objects).unwrap_or(usize::MAX);
            let free = context.own.storage.free_bytes().unwrap_or_default();
            context.metrics.set_storage(objects, usage.bytes, free);
        }
    });
}

/// Objects whose files an earlier process of this shard left and that the watch does not show: they may have left only.
async fn departed_before(context: &Arc<Context<OciRepository>>) {
    let asked = context.clone();
    let unclaimed = tokio::task::spawn_blocking(move || asked.own.storage.unclaimed(|key| live_uid(&asked, key))).await;
    match unclaimed {
        Ok(Ok(unclaimed)) => {
            for (key, uid) in unclaimed {
                let key = ObjectKey {
                    namespace: key.namespace().into(),
                    name: key.name().into(),
                };
                context.departed.add(&key, &uid, false);
            }
        }
        Ok(Err(error)) => tracing::error!(%error, "files of departed objects not looked for"),
        Err(_) => tracing::error!("the look for files of departed objects panicked"),
    }
}

/// What goes with an object: its artifact, its credential and everything obtained with it, its metrics. `is_sharded`: the
/// object may only have left the label selector; then the artifact goes when that is known.
pub(super) fn on_delete(context: &Arc<Context<OciRepository>>, is_sharded: bool) -> OnDelete {
    let context = context.clone();
    Box::new(move |key, uid| {
        context.waiting.remove(key);
        context.unwritten.forget(key);
        context.known_referents.forget(key);
        context.neighbours.forget(key);
        context.credentials.forget(uid);
        context.registry.forget(&uid.into());
        context
            .metrics
            .forget_object(OciRepository::KIND, &key.namespace, &key.name);
        let (context, uid) = (context.clone(), uid.to_owned());
        let Ok(storage_key) = artifact::ObjectKey::new(&key.namespace, &key.name) else {
            return;
        };
        let may_have_left = is_sharded && context.store.get(key).is_none();
        if may_have_left && context.own.storage.owner(&storage_key).as_deref() == Some(&uid) {
            context.departed.add(key, &uid, true);
            return;
        }
        tokio::task::spawn_blocking(move || {
            if let Err(error) = context.own.storage.remove(&storage_key, &uid) {
                tracing::error!(%error, namespace = storage_key.namespace(), name = storage_key.name(),
                    "artifact of a deleted object not removed; the next sweep tries again");
            }
        });
    })
}

/// Somebody else wrote a status after us: told at once, or by the next pass if this process may not write now.
pub(super) fn on_foreign_write(context: &Arc<Context<OciRepository>>) -> OnForeignWrite {
    let context = context.clone();
    Box::new(move |key| {
        if let Some(object) = context.store.get(key) {
            reconcile::tell_of_foreign_write(&context, key, &object);
        }
    })
}

struct Objects(Arc<Context<OciRepository>>);

impl ReadySource for Objects {
    fn count(&self) -> usize {
        self.0.store.len()
    }

    fn visit(&self, visit: &mut dyn FnMut(&str, &str, &str, bool)) {
        for object in self.0.store.objects() {
            let key = ObjectKey::of(object.as_ref());
            visit(
                OciRepository::KIND,
                &key.namespace,
                &key.name,
                object.is_ready() == Some(true),
            );
        }
    }
}

/// Lets a scrape see which objects are ready.
pub(super) fn ready_source(context: &Arc<Context<OciRepository>>) {
    context.metrics.set_ready_source(Arc::new(Objects(context.clone())));
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

/// Watches what objects refer to, if there are the rights.
pub(super) fn watch_referents(
    supervisor: &mut Supervisor,
    context: &Arc<Context<OciRepository>>,
    index: Arc<ReferentIndex>,
    flags: &RunFlags,
    namespace: &str,
) {
    let queue = context.queue.clone();
    let watch = ReferentWatch {
        namespace: (!flags.controller.watch_all_namespaces).then(|| namespace.to_owned()),
        follower: ReferentFollower { index, queue },
        metrics: context.metrics.clone(),
    };
    let client = context.client.clone();
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

/// Drops what revoked keys signed.
pub(super) fn drop_revoked(
    supervisor: &mut Supervisor,
    context: &Arc<Context<OciRepository>>,
    revoked: RevokedReceiver,
) {
    let context = context.clone();
    task(supervisor, "revoked credentials", async move {
        reconcile::drop_revoked(context, revoked).await;
    });
}
