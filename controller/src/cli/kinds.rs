//! The kinds that a process reconciles: which ones, and the tasks that each of them has: watches on its objects and on its
//! CRD, gates of `/readyz`, its reconcile loop, the sweep of its files.

use std::{collections::BTreeSet, sync::Arc};

use clap::ValueEnum;
use kube::{Api, core::DeserializeGuard, runtime::watcher};
use mintmark_api::{
    image_policy::{self as image_policy_api, ImagePolicy},
    image_repository::{self as image_repository_api, ImageRepository},
    oci_repository::{self as oci_repository_api, OciRepository},
};
use tokio::sync::Semaphore;
use tokio_util::sync::DropGuard;

use super::{FlagError, RunFlags, run::task, settings, tasks};
use crate::{
    artifact::{AdvertisedAddress, Storage},
    content::MAX_CONCURRENT_EXTRACTIONS,
    credential::SigningReceiver,
    reconcile::{
        self, Context, KnownReferents, Member, Reconciled, Shared, image_policy, image_repository, oci_repository,
    },
    runtime::{
        health::Health,
        supervise::{StopPlan, Supervisor},
    },
    tags::{TagLists, TagStore},
    watch::{CrdGuard, CrdState, CrdWatch, Namespaces, ObjectWatch, ReferentFollower, ReferentIndex},
};

/// Bytes of tags that are kept in memory for policies.
const TAG_LISTS_BUDGET: usize = 64 * 1024 * 1024;

/// A kind that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum EnabledKind {
    /// Pulls artifacts.
    #[value(name = oci_repository_api::KIND)]
    OciRepository,
    /// Lists the tags of images.
    #[value(name = image_repository_api::KIND)]
    ImageRepository,
    /// Selects from them.
    #[value(name = image_policy_api::KIND)]
    ImagePolicy,
}

impl EnabledKind {
    /// Those that `--enable-kinds` names, each once.
    pub fn of(flags: &RunFlags) -> BTreeSet<Self> {
        flags.controller.enable_kinds.iter().copied().collect()
    }

    /// Refuses a choice that cannot work.
    pub fn check(flags: &RunFlags) -> Result<(), FlagError> {
        let kinds = Self::of(flags);
        if kinds.contains(&Self::ImagePolicy) && !kinds.contains(&Self::ImageRepository) {
            let problem = "ImagePolicy needs ImageRepository: the tags are kept by the process that lists them";
            return Err(FlagError::new("enable-kinds", problem));
        }
        Ok(())
    }

    /// Its name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::OciRepository => oci_repository_api::KIND,
            Self::ImageRepository => image_repository_api::KIND,
            Self::ImagePolicy => image_policy_api::KIND,
        }
    }
}

/// Starts kinds one after the other, and gathers what is told of all of them together.
pub(super) struct Starter<'a> {
    pub(super) shared: Arc<Shared>,
    pub(super) flags: &'a RunFlags,
    pub(super) watch: watcher::Config,
    /// The controller's own.
    pub(super) namespace: &'a str,
    pub(super) health: Health,
    /// What can sign, where anything may come to sign at all.
    pub(super) signing: Option<SigningReceiver>,
    /// Dropped with the last reconcile loop.
    pub(super) passes: Arc<DropGuard>,
    pub(super) members: Vec<Arc<dyn Member>>,
    pub(super) followers: Vec<ReferentFollower>,
}

impl Starter<'_> {
    /// Starts everything that a kind needs for itself.
    pub(super) fn start<K: Reconciled>(&mut self, supervisor: &mut Supervisor, own: K::Own) -> Arc<Context<K>> {
        let index = Arc::new(ReferentIndex::default());
        let (crd_watch, guard) = CrdWatch::new::<K>();
        let known = KnownReferents::new(&index);
        let context = Arc::new(Context::<K>::new(self.shared.clone(), guard.clone(), known, own));
        let queue = context.queue.clone();
        self.followers.push(ReferentFollower { index, queue });
        self.members.push(context.clone());
        self.watch(supervisor, &context, crd_watch);
        gates(supervisor, &context, &guard, &self.health);
        unwritten(supervisor, &context);
        tasks::sweep(supervisor, &context);
        if let Some(signing) = self.signing.clone() {
            let (waiting, queue) = (context.waiting.clone(), context.queue.clone());
            let name = format!("{} waiting for a key", K::KIND);
            task(supervisor, name, async move {
                waiting.requeue(queue, signing).await;
            });
        }
        let (reconciling, passes) = (context.clone(), self.passes.clone());
        let name = format!("{} passes", K::KIND);
        supervisor.spawn(name, StopPlan::default(), move |stop| async move {
            reconcile::run(reconciling, stop).await;
            drop(passes);
            Ok::<_, std::io::Error>(())
        });
        context
    }

    /// Starts the kind whose artifacts are served.
    pub(super) fn start_oci_repositories(
        &mut self,
        supervisor: &mut Supervisor,
        storage: Storage,
        address: AdvertisedAddress,
    ) {
        let is_sharded = settings::label_selector(self.flags).is_some();
        let own = oci_repository::Own {
            storage,
            address,
            extractions: Arc::new(Semaphore::new(MAX_CONCURRENT_EXTRACTIONS)),
            departed: is_sharded.then(oci_repository::Departed::default),
        };
        let context = self.start::<OciRepository>(supervisor, own);
        if is_sharded {
            let retention = self.flags.artifact.artifact_retention_ttl;
            let looking = oci_repository::look_after_departed(context, retention);
            task(supervisor, "departed objects", looking);
        }
    }

    /// Starts the kind that lists tags and, if it is switched on, the one that selects from them.
    pub(super) fn start_images(&mut self, supervisor: &mut Supervisor, tags: TagStore) {
        let dependents = Arc::new(image_policy::Dependents::default());
        let own = image_repository::Own {
            tags: tags.clone(),
            dependents: dependents.clone(),
        };
        let repositories = self.start::<ImageRepository>(supervisor, own);
        if !EnabledKind::of(self.flags).contains(&EnabledKind::ImagePolicy) {
            return;
        }
        let controller = &self.flags.controller;
        let has_foreign = controller.watch_all_namespaces && !controller.no_cross_namespace_refs;
        let namespaces = has_foreign.then(|| self.watch_namespaces(supervisor, &dependents));
        let metrics = self.shared.metrics.clone();
        let count = Box::new(move || metrics.tag_list_read());
        let lists = Arc::new(TagLists::new(tags, TAG_LISTS_BUDGET, count));
        repositories.store.observe(image_policy::observer(&dependents, &lists));
        let own = image_policy::Own {
            repositories,
            lists,
            dependents: dependents.clone(),
            namespaces,
        };
        let policies = self.start::<ImagePolicy>(supervisor, own);
        dependents.attach(policies.queue.clone());
    }

    fn watch_namespaces(
        &self,
        supervisor: &mut Supervisor,
        dependents: &Arc<image_policy::Dependents>,
    ) -> Arc<Namespaces> {
        let namespaces = Arc::new(Namespaces::default());
        let (watched, dependents, client) = (namespaces.clone(), dependents.clone(), self.shared.client.clone());
        task(supervisor, "namespace watch", async move {
            watched.watch(client, |name| dependents.wake_namespace(name)).await;
        });
        namespaces
    }

    fn watch<K: Reconciled>(&self, supervisor: &mut Supervisor, context: &Arc<Context<K>>, crd_watch: CrdWatch) {
        let client = self.shared.client.clone();
        let api: Api<DeserializeGuard<K>> = if self.flags.controller.watch_all_namespaces {
            Api::all(client.clone())
        } else {
            Api::namespaced(client.clone(), self.namespace)
        };
        let (store, queue) = (context.store.clone(), context.queue.clone());
        let watch = ObjectWatch::new(store, queue, tasks::on_delete(context))
            .with_foreign_writes(tasks::on_foreign_write(context));
        let (guard, config) = (context.guard.clone(), self.watch.clone());
        task(supervisor, format!("{} watch", K::KIND), async move {
            watch.run(api, config, guard).await;
        });
        let name = format!("{} CRD watch", K::KIND);
        task(supervisor, name, async move { crd_watch.run(client).await });
    }
}

/// Opens the gates of `/readyz`: objects read, CRD complete.
fn gates<K: Reconciled>(supervisor: &mut Supervisor, context: &Arc<Context<K>>, guard: &CrdGuard, health: &Health) {
    let gate = |name: &str| health.gate(format!("{name}/{}", K::PLURAL));
    let (store_gate, crd_gate) = (gate("store"), gate("crd"));
    let mut synced = context.store.synced();
    task(supervisor, format!("{} store gate", K::KIND), async move {
        if synced.wait_for(|synced| *synced).await.is_ok() {
            store_gate.open();
        }
        std::future::pending::<()>().await;
    });
    let (mut state, context) = (guard.subscribe(), context.clone());
    task(supervisor, format!("{} CRD gate", K::KIND), async move {
        loop {
            let current = state.borrow_and_update().clone();
            context
                .metrics
                .set_crd_compatible(K::KIND, current == CrdState::Complete);
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

/// Writes what could not be written, when that is possible again.
fn unwritten<K: Reconciled>(supervisor: &mut Supervisor, context: &Arc<Context<K>>) {
    let context = context.clone();
    task(supervisor, format!("{} unwritten outcomes", K::KIND), async move {
        let (shared, queue) = (context.shared.clone(), context.queue.clone());
        context.unwritten.clone().run(shared, queue).await;
    });
}
