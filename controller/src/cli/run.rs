//! `mintmark run`: puts the process together. Nothing is started before every flag was checked and every port bound; from
//! then on every part is a supervised task.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use mintmark_issuer::RingPolicy;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    CliError, FlagError, RunFlags,
    cluster::Cluster,
    kinds::{EnabledKind, Starter},
    listeners::Listeners,
    settings, tasks,
};
use crate::{
    artifact::{AdvertisedAddress, Storage, StorageConfig, StorageError, host_name},
    credential::{
        AudiencePolicy, AuditObserver, CredentialSettings, Credentials, ServiceAccountTokens, SigningReceiver,
    },
    issuing::{Inputs, Issuing, IssuingTask, KubeSecrets, RingStore, RingWatch, ServerClock, Which, nobody_signs},
    notify::{EventRecorder, Sinks},
    publish::ConfigMapCopy,
    reconcile::{self, ApiServer, Settings, Shared},
    registry::{RegistryClient, RegistryConfig},
    runtime::{
        backoff::BackoffPolicy,
        health::Health,
        lease::{self, Leadership, LeaseSettings, LeaseTask},
        log,
        metrics::{Metrics, PER_OBJECT_LIMIT},
        supervise::{StopPlan, Supervisor, signals},
    },
    tags::TagStore,
};

/// Readings of the signing Secrets that wait for the key ring, and changes of its own Secrets.
pub(super) const READINGS: usize = 8;

/// A lease is given back when the work under it has ended, for which that has its own grace of 10 s.
const ELECTION_STOP: StopPlan = StopPlan {
    linger: Duration::ZERO,
    grace: Duration::from_secs(20),
};

/// Threads for what blocks: the disk, extraction, name resolution. Each costs memory, and a disk serves no more at a time.
const BLOCKING_THREADS: usize = 64;

/// Checks the flags, then runs until a signal or the end of a task.
pub fn run(flags: RunFlags) -> Result<(), CliError> {
    let identities = settings::credentials(&flags)?;
    prepare(flags.serving.log_level, flags.serving.log_encoding)?;
    flags.flux.warn()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(flags, identities))
}

/// What every serving process does first: its log, no core files, TLS.
pub(super) fn prepare(level: log::LogLevel, encoding: log::LogEncoding) -> Result<(), CliError> {
    log::init(level, encoding).context("cannot set up logging")?;
    forbid_core_dumps();
    raise_file_limit();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    Ok(())
}

/// A core file would hold every key: none is written.
fn forbid_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if let Err(error) = setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    ) {
        tracing::error!(%error, "core dumps stay possible");
    }
}

/// Takes every file descriptor that the system grants, as Go programs do: the usual 1,024 are fewer than the connections
/// that the servers' own limits allow.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::error!(%error, "the number of open files stays limited");
    }
}

async fn serve(flags: RunFlags, identities: CredentialSettings) -> Result<(), CliError> {
    let cluster = Cluster::connect(&flags.controller).await?;
    let assembly = Assembly::new(&flags, identities, &cluster)?;
    let listeners = Listeners::bind(&flags, &assembly.metrics)?;
    let mut supervisor = Supervisor::new();
    let namespace = cluster.namespace.clone();
    let context = assembly.start(&mut supervisor, cluster);
    listeners.start(&mut supervisor, &context, &namespace);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
    let signals = signals().context("cannot listen for signals")?;
    Ok(supervisor.run(signals).await.map_err(anyhow::Error::from)?)
}

/// The parts of the process before anything runs.
struct Assembly {
    flags: RunFlags,
    identities: CredentialSettings,
    settings: Settings,
    reconcile_lease: Option<LeaseSettings>,
    issuer_lease: Option<LeaseSettings>,
    watch: kube::runtime::watcher::Config,
    /// Artifacts, and where they are served, if they are pulled.
    artifacts: Option<(Storage, AdvertisedAddress)>,
    /// Tags of images, if they are listed.
    tags: Option<TagStore>,
    registry: RegistryConfig,
    backoff: BackoffPolicy,
    events: EventRecorder,
    sinks: Sinks,
    metrics: Metrics,
}

/// What listeners and tasks need of the running process.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    /// What the artifact server serves.
    pub(super) storage: Option<Storage>,
    pub(super) documents: Option<crate::issuing::DocumentsReceiver>,
    pub(super) health: Health,
}

impl Assembly {
    fn new(flags: &RunFlags, mut identities: CredentialSettings, cluster: &Cluster) -> Result<Self, CliError> {
        let metrics = Metrics::new(flags.serving.per_object_metrics, PER_OBJECT_LIMIT);
        if flags.credential.allow_controller_identity {
            let problem = "the controller itself runs without a ServiceAccount token";
            let account = cluster
                .account
                .clone()
                .ok_or_else(|| FlagError::new("allow-controller-identity", problem))?;
            identities.controller_account = Some(account);
        }
        let backoff = BackoffPolicy::new(flags.controller.min_retry_delay, flags.controller.max_retry_delay)
            .map_err(|error| FlagError::new("min-retry-delay", error.to_string()))?;
        let kinds = EnabledKind::of(flags);
        let is_enabled = |kind| kinds.contains(&kind);
        let artifacts = is_enabled(EnabledKind::OciRepository).then(|| open_artifacts(flags));
        let tags = is_enabled(EnabledKind::ImageRepository).then(|| open_tags(flags));
        let events_addr = settings::events_addr(flags)?;
        let instance = host_name().unwrap_or_else(|| "mintmark".to_owned());
        let identity = lease::identity(&instance);
        let election = |name: &str| settings::lease(flags, &cluster.namespace, name, &identity);
        let (events, sinks) = EventRecorder::new(events_addr, &instance, metrics.clone())
            .map_err(|error| FlagError::new("events-addr", error.to_string()))?;
        Ok(Self {
            settings: settings::reconcile(flags, &cluster.namespace)?,
            reconcile_lease: election(&settings::reconcile_lease(flags))?,
            issuer_lease: election(settings::ISSUER_LEASE)?,
            watch: settings::watch_config(flags)?,
            registry: settings::registry(flags, &cluster.own_networks, AuditObserver::new(metrics.clone())),
            artifacts: artifacts.transpose()?,
            tags: tags.transpose()?,
            flags: flags.clone(),
            identities,
            backoff,
            events,
            sinks,
            metrics,
        })
    }

    /// Starts every task that needs no port.
    fn start(self, supervisor: &mut Supervisor, cluster: Cluster) -> Running {
        let issuing = self.start_issuer(supervisor, &cluster);
        let signing = issuing.as_ref().map_or_else(nobody, |issuing| issuing.signing.clone());
        let passes_ended = CancellationToken::new();
        let leadership = self.elect(supervisor, &cluster.client, self.reconcile_lease.clone(), &passes_ended);
        let tokens = ServiceAccountTokens::new(cluster.client.clone(), self.flags.credential.service_account_token_ttl);
        let credentials = Arc::new(Credentials::new(
            self.identities.clone(),
            signing.clone(),
            tokens,
            self.metrics.clone(),
        ));
        let shared = Arc::new(Shared {
            client: cluster.client.clone(),
            api_server: ApiServer::default(),
            settings: self.settings,
            leadership: leadership.clone(),
            signing: signing.clone(),
            credentials,
            registry: RegistryClient::new(self.registry),
            events: self.events,
            metrics: self.metrics.clone(),
            backoff: self.backoff,
        });
        let health = Health::new();
        let mut starter = Starter {
            shared: shared.clone(),
            flags: &self.flags,
            watch: self.watch,
            namespace: &cluster.namespace,
            health: health.clone(),
            signing: issuing.is_some().then_some(signing),
            passes: Arc::new(passes_ended.drop_guard()),
            members: Vec::new(),
            followers: Vec::new(),
        };
        let storage = self.artifacts.as_ref().map(|(storage, _)| storage.clone());
        if let Some((storage, address)) = self.artifacts {
            starter.start_oci_repositories(supervisor, storage, address);
        }
        if let Some(tags) = self.tags {
            starter.start_images(supervisor, tags);
        }
        let Starter { members, followers, .. } = starter;
        if self.flags.election.enable_leader_election {
            tasks::leader_gate(supervisor, &leadership, &health);
        }
        tasks::watch_referents(supervisor, &shared, followers, &self.flags, &cluster.namespace);
        tasks::sweep_credentials(supervisor, &shared);
        tasks::gauges(supervisor, &shared, &members);
        tasks::ready_source(&shared, &members);
        start_sinks(supervisor, self.sinks, &cluster.client);
        start_audience_policy(supervisor, &shared, &self.flags, cluster);
        let documents = issuing.map(|issuing| {
            let dropping = reconcile::drop_revoked(shared.clone(), members, issuing.revoked);
            task(supervisor, "revoked credentials", dropping);
            issuing.documents
        });
        Running {
            shared,
            storage,
            documents,
            health,
        }
    }

    /// Starts to run for a lease, which is held until `work_ended`. Without leader election this process leads.
    fn elect(
        &self,
        supervisor: &mut Supervisor,
        client: &kube::Client,
        lease: Option<LeaseSettings>,
        work_ended: &CancellationToken,
    ) -> Leadership {
        let Some(lease) = lease else {
            return Leadership::always();
        };
        let (task, leadership) = LeaseTask::new(client.clone(), lease);
        let (task, work_ended) = (task.with_metrics(self.metrics.clone()), work_ended.clone());
        supervisor.spawn("leader election", ELECTION_STOP, move |_| async move {
            task.run(work_ended).await;
            Ok::<_, std::io::Error>(())
        });
        leadership
    }

    /// The key ring and the watches that feed it; without a signing Secret nobody signs.
    fn start_issuer(&self, supervisor: &mut Supervisor, cluster: &Cluster) -> Option<Issuing> {
        let (Some(trust_domain), Some(name)) = (&self.identities.trust_domain, &self.identities.secret_name) else {
            return None;
        };
        let issuer = &self.flags.issuer;
        let policy = RingPolicy {
            trust_domain: trust_domain.clone(),
            issuer: self.identities.issuer.clone(),
            jwt_ttl: self.identities.jwt_ttl,
            x509_ttl: self.identities.x509_ttl,
            jwt_overlap: issuer.spiffe_key_overlap,
            x509_overlap: issuer.spiffe_x509_overlap,
            bundle_root: issuer.spiffe_bundle_root,
        };
        let ring_ended = CancellationToken::new();
        let leadership = self.elect(supervisor, &cluster.client, self.issuer_lease.clone(), &ring_ended);
        let clock = Arc::new(ServerClock::default());
        let secrets = KubeSecrets::new(cluster.client.clone(), cluster.namespace.clone(), clock.clone());
        let leads = leadership.clone();
        let store = RingStore::new(secrets, Arc::new(move || leads.is_leading()));
        let (changes_sender, changes) = mpsc::channel(READINGS);
        for which in [Which::State, Which::Ring] {
            let watch = RingWatch {
                namespace: cluster.namespace.clone(),
                which,
                changes: changes_sender.clone(),
            };
            let client = cluster.client.clone();
            task(supervisor, "key ring watch", async move { watch.run(client).await });
        }
        let jwt_name = self.identities.jwt_secret_name.as_ref();
        let inputs = Inputs {
            readings: tasks::watch_signing_secrets(supervisor, cluster, &self.identities, trust_domain),
            changes,
            leadership: leadership.clone(),
            clock,
            wall: Arc::new(jiff::Timestamp::now),
        };
        let on_news = tasks::news(
            self.events.clone(),
            cluster.namespace.clone(),
            name.clone(),
            jwt_name.unwrap_or(name).clone(),
        );
        let (ring, issuing) = IssuingTask::new(policy, store, inputs, on_news, self.metrics.clone());
        if let Some(copy_name) = self.flags.issuer.publish_configmap.clone() {
            let copy = ConfigMapCopy {
                namespace: cluster.namespace.clone(),
                name: copy_name,
                leadership,
                documents: issuing.documents.clone(),
            };
            let client = cluster.client.clone();
            task(supervisor, "ConfigMap copy", async move { copy.run(client).await });
        }
        task(supervisor, "key ring", async move {
            let _ended = ring_ended.drop_guard();
            ring.run().await;
        });
        Some(issuing)
    }
}

/// Who signs where there is no signing Secret.
fn nobody() -> SigningReceiver {
    tokio::sync::watch::channel(Arc::new(nobody_signs())).1
}

/// The storage of artifacts and the address under which they are served.
fn open_artifacts(flags: &RunFlags) -> Result<(Storage, AdvertisedAddress), CliError> {
    let artifact = &flags.artifact;
    let listen = artifact.storage_addr.to_string();
    let address = AdvertisedAddress::new(artifact.storage_adv_addr.as_deref(), &listen, host_name)
        .map_err(|error| FlagError::new("storage-adv-addr", error.to_string()))?;
    let storage = Storage::open(storage_config(flags));
    Ok((storage.map_err(|error| unusable(&error))?, address))
}

fn open_tags(flags: &RunFlags) -> Result<TagStore, CliError> {
    Ok(TagStore::open(storage_config(flags)).map_err(|error| unusable(&error))?)
}

fn unusable(error: &StorageError) -> FlagError {
    FlagError::new("storage-path", error.to_string())
}

fn storage_config(flags: &RunFlags) -> StorageConfig {
    let artifact = &flags.artifact;
    StorageConfig {
        retention_ttl: artifact.artifact_retention_ttl,
        retention_records: usize::try_from(artifact.artifact_retention_records).unwrap_or(usize::MAX),
        min_free_percent: artifact.storage_min_free,
        ..StorageConfig::new(&artifact.storage_path)
    }
}

fn start_sinks(supervisor: &mut Supervisor, sinks: Sinks, client: &kube::Client) {
    let client = client.clone();
    supervisor.spawn("events", StopPlan::default(), move |stop| async move {
        sinks.kubernetes.run(client, stop).await;
        Ok::<_, std::io::Error>(())
    });
    if let Some(webhook) = sinks.webhook {
        supervisor.spawn("webhook", StopPlan::default(), move |stop| async move {
            webhook.run(stop).await;
            Ok::<_, std::io::Error>(())
        });
    }
}

/// Learns what the API server accepts, then lets ServiceAccount tokens be requested.
fn start_audience_policy(supervisor: &mut Supervisor, shared: &Shared, flags: &RunFlags, cluster: Cluster) {
    let (credentials, flags) = (shared.credentials.clone(), flags.credential.clone());
    task(supervisor, "audience policy", async move {
        let api_server = Cluster::api_audiences(cluster.client, cluster.own_audiences).await;
        let policy = AudiencePolicy {
            api_server,
            denied: flags.denied_audiences,
            allowed: flags.allowed_audiences,
        };
        credentials.set_audience_policy(policy);
        std::future::pending::<()>().await;
    });
}

/// A task that ends only with the process.
pub(super) fn task(
    supervisor: &mut Supervisor,
    name: impl Into<String>,
    work: impl Future<Output = ()> + Send + 'static,
) {
    task_until(supervisor, name, StopPlan::default(), work);
}

/// A task that ends with the process, by a plan of its own.
pub(super) fn task_until(
    supervisor: &mut Supervisor,
    name: impl Into<String>,
    plan: StopPlan,
    work: impl Future<Output = ()> + Send + 'static,
) {
    supervisor.spawn(name, plan, move |stop: CancellationToken| async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
        Ok::<_, std::io::Error>(())
    });
}
