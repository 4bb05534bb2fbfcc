//! A Kubernetes API server of one's own: etcd and kube-apiserver on loopback, RBAC on, everything audited.
//!
//! There is no controller manager: no default accounts, no garbage collection, and a deleted namespace stays
//! `Terminating`. Everything lies in one temporary folder that goes with the cluster. Starting takes about eight seconds
//! on two cores and fails with the last lines of the server's log.

mod access;
mod apiserver;
mod audit;
mod etcd;
mod identity;
mod stored;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tempfile::TempDir;
use tokio::sync::OnceCell;

pub use access::Access;
pub use audit::{AuditEvent, AuditLog, AuditMark, AuditObject};
pub use stored::StoredObject;

use crate::{pki, process::Guarded};
use apiserver::ApiServer;

/// How long a server may take to become ready, on a machine that also compiles.
const READY_DEADLINE: Duration = Duration::from_secs(90);

/// Interval of readiness probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// How often a start is tried again when another process took a port in between.
const PORT_RETRIES: usize = 3;

/// What a cluster is started with.
#[derive(Debug, Clone, Default)]
pub struct ClusterOptions {
    /// Structured authentication (`AuthenticationConfiguration`, YAML or JSON): further JWT issuers that the API server
    /// takes users from.
    pub authentication_config: Option<String>,
    /// Further flags of kube-apiserver, as `--name=value`.
    pub api_server_flags: Vec<String>,
}

/// A running etcd and kube-apiserver. Both end when this is dropped or this process ends.
#[derive(Debug)]
pub struct Cluster {
    api_server: Mutex<ApiServer>,
    etcd: Guarded,
    etcd_url: String,
    access: Access,
    ca_pem: String,
    audit: AuditLog,
    folder: TempDir,
}

impl Cluster {
    /// Starts both servers and waits until the API server is ready and tells its keys to unauthenticated verifiers.
    ///
    /// Must be called in a tokio runtime.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        pki::install_provider();
        let mut retries = PORT_RETRIES;
        loop {
            match Self::start_once(&options).await {
                Err(error) if retries > 0 && port_was_taken(&error) => retries -= 1,
                other => return other,
            }
        }
    }

    /// The one cluster of this process, started with default options at the first call. It ends with the process.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::start(ClusterOptions::default())).await
    }

    async fn start_once(options: &ClusterOptions) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mintmark-cluster-").tempdir()?;
        let (etcd, etcd_url) = etcd::start(folder.path()).await?;
        let files = apiserver::Files::create(folder.path(), options)?;
        let api_server = ApiServer::start(files, &etcd_url, options).await?;
        let url = api_server.url();
        let ca_pem = api_server.files().ca_pem.clone();
        let admin_kubeconfig = folder.path().join("admin.kubeconfig");
        let user = identity::User::Certificate(api_server.files().admin.clone());
        let access = Access::create(&url, &ca_pem, &admin_kubeconfig, &user)?;
        let audit = AuditLog::new(folder.path().join("audit.log"));
        let api_server = Mutex::new(api_server);
        let cluster = Self {
            api_server,
            etcd,
            etcd_url,
            access,
            ca_pem,
            audit,
            folder,
        };
        identity::open_issuer_discovery(&cluster.client().await?).await?;
        Ok(cluster)
    }

    /// The URL of the API server, which is also its ServiceAccount issuer: `https://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        self.access.url()
    }

    /// The CA of the API server's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A kubeconfig with all rights (group `system:masters`).
    pub fn admin_kubeconfig(&self) -> &Path {
        self.access.kubeconfig()
    }

    /// A folder that lives as long as the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What was asked of the API server.
    pub fn audit(&self) -> &AuditLog {
        &self.audit
    }

    /// A client with all rights, bound to the current tokio runtime: make one per test, do not share it.
    pub async fn client(&self) -> Result<Client> {
        self.access.client().await
    }

    /// Writes a kubeconfig of a ServiceAccount, with a token of this life from the TokenRequest API, and returns its
    /// path. The account must exist; `ttl` is at least ten minutes (the API server's minimum).
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str, ttl: Duration) -> Result<PathBuf> {
        self.access.service_account_kubeconfig(namespace, name, ttl).await
    }

    /// Requests a token of a ServiceAccount; without audiences, one for the API server itself.
    pub async fn service_account_token(
        &self,
        namespace: &str,
        name: &str,
        audiences: &[&str],
        ttl: Duration,
    ) -> Result<String> {
        self.access.service_account_token(namespace, name, audiences, ttl).await
    }

    /// Ends both servers and waits until they have ended; the folder is deleted.
    pub fn end(self) -> Result<()> {
        self.stop_api_server()?;
        self.etcd.stop()?;
        Ok(())
    }

    /// Ends the API server, as an outage would; etcd stays. Blocks for up to two seconds.
    pub fn stop_api_server(&self) -> Result<()> {
        self.lock().stop()
    }

    /// Starts the API server again, on the same address and data, and waits until it is ready.
    pub async fn start_api_server(&self) -> Result<()> {
        let files = {
            let mut api_server = self.lock();
            api_server.spawn()?;
            api_server.files().clone()
        };
        wait_ready(self.url(), &files.ca_pem, || self.lock().check()).await
    }

    /// Puts objects into etcd past the API server, which is restarted for it: for more of them than could be created in
    /// good time. Nothing checks them.
    pub async fn put_stored(&self, objects: &[StoredObject]) -> Result<()> {
        self.stop_api_server()?;
        stored::put(&self.etcd_url, objects).await?;
        self.start_api_server().await
    }

    fn lock(&self) -> MutexGuard<'_, ApiServer> {
        self.api_server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<Access> for Cluster {
    fn as_ref(&self) -> &Access {
        &self.access
    }
}

/// A client from a kubeconfig file, bound to the current tokio runtime.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Polls `/readyz` until it answers 200. `alive` fails when the server has ended meanwhile.
async fn wait_ready(url: &str, ca_pem: &str, mut alive: impl FnMut() -> Result<()>) -> Result<()> {
    let http = reqwest::Client::builder()
        .tls_certs_only(reqwest::Certificate::from_pem_bundle(ca_pem.as_bytes())?)
        .no_proxy()
        .timeout(Duration::from_secs(5))
        .build()?;
    let deadline = Instant::now() + READY_DEADLINE;
    loop {
        alive()?;
        let last = match http.get(format!("{url}/readyz")).send().await {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => answer.text().await.unwrap_or_default(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            bail!("{url} is not ready after {} s: {last}", READY_DEADLINE.as_secs());
        }
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}

fn port_was_taken(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.to_string().contains("address already in use"))
}

fn write(path: &Path, contents: &str) -> Result<()> {
    fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}
