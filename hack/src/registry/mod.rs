//! The test registry: typed options, the process, what may be read by whom, and what the registry saw.
//!
//! Started on a free loopback port in a temporary folder; readers and client CAs can be changed while it runs. Writing
//! is the administrator's alone, through [`RegistryServer::push`].

mod access_log;
mod options;
mod push;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use serde::Deserialize;
use tempfile::TempDir;

pub use access_log::{AccessEntry, AccessMark};
pub use options::{Accept, ClientAuth, ClientCa, Issuer, Keys, RegistryOptions, TokenEndpoint};
pub use push::{
    Artifact, CONFIG, CONFIG_MEDIA_TYPE, CONTENT_MEDIA_TYPE, INDEX_MEDIA_TYPE, Layer, MANIFEST_MEDIA_TYPE, Pushed,
    tar_gz,
};

use crate::{
    pki::{self, TestCa},
    process::{Guard, Guarded, write_private},
    servers,
};
use options::{Config, Policy};

/// Name of the administrator, in requests and in the access log.
pub const ADMIN: &str = "admin";

const LOG_FILE: &str = "registry.log";

/// A running registry. It ends when this is dropped or this process ends.
#[derive(Debug)]
pub struct RegistryServer {
    process: Mutex<Option<Guarded>>,
    config: Config,
    policy: Mutex<Policy>,
    bound: Bound,
    ca_pem: String,
    admin_password: String,
    http: reqwest::Client,
    folder: TempDir,
}

/// What the registry prints once it listens.
#[derive(Debug, Clone, Deserialize)]
struct Bound {
    address: String,
    origin: String,
    token_origin: String,
}

impl RegistryServer {
    /// Starts a registry and waits until it listens.
    pub fn start(options: RegistryOptions) -> Result<Self> {
        pki::install_provider();
        let folder = tempfile::Builder::new().prefix("mintmark-registry-").tempdir()?;
        let ca = TestCa::new("mintmark test registry")?;
        let admin_password = pki::random_hex();
        let policy = Policy::default();
        let mut config = Config::write(folder.path(), options, &ca, &admin_password)?;
        policy.write(folder.path())?;
        let (process, bound) = spawn(folder.path(), config.drain)?;
        // A restart must come back to the same address.
        config.fix_addresses(folder.path(), &bound.address, &bound.token_origin)?;
        let http = reqwest::Client::builder()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(ca.pem().as_bytes())?)
            .no_proxy()
            // A kept connection would belong to the tokio runtime of one test.
            .pool_max_idle_per_host(0)
            .timeout(Duration::from_secs(30))
            .build()?;
        Ok(Self {
            process: Mutex::new(Some(process)),
            config,
            policy: Mutex::new(policy),
            bound,
            ca_pem: ca.pem().to_owned(),
            admin_password,
            http,
            folder,
        })
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> &str {
        &self.bound.address
    }

    /// `http://127.0.0.1:<port>` or, with TLS, `https://…`.
    pub fn origin(&self) -> &str {
        &self.bound.origin
    }

    /// The origin of the token endpoint, empty unless it has one of its own.
    pub fn token_origin(&self) -> &str {
        &self.bound.token_origin
    }

    /// What goes into `spec.url` for a repository: `oci://127.0.0.1:<port>/<repository>`.
    pub fn url(&self, repository: &str) -> String {
        format!("oci://{}/{repository}", self.bound.address)
    }

    /// The CA of the registry's own certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Password of [`ADMIN`].
    pub fn admin_password(&self) -> &str {
        &self.admin_password
    }

    /// Replaces the readers of a repository: exactly these subjects may read it from now on.
    pub fn set_readers(&self, repository: &str, subjects: &[&str]) -> Result<()> {
        let mut policy = lock(&self.policy);
        let subjects = subjects.iter().map(|&subject| subject.to_owned()).collect();
        policy.readers.insert(repository.to_owned(), subjects);
        policy.write(self.folder.path())
    }

    /// Lets everybody read a repository.
    pub fn allow_anonymous(&self, repository: &str) -> Result<()> {
        let mut policy = lock(&self.policy);
        policy.anonymous.insert(repository.to_owned());
        policy.write(self.folder.path())
    }

    /// Replaces the CAs whose client certificates are taken: at once with [`ClientCa::reload`], else at a restart.
    pub fn set_client_ca(&self, pem: &str) -> Result<()> {
        options::write_client_ca(self.folder.path(), pem)
    }

    /// Every request since the start, in the order of their answers.
    pub fn access_log(&self) -> Result<Vec<AccessEntry>> {
        self.access_log_since(&mut AccessMark::default())
    }

    /// The requests since `mark`, and moves it behind them: for who looks often at a long log.
    pub fn access_log_since(&self, mark: &mut AccessMark) -> Result<Vec<AccessEntry>> {
        access_log::read(&self.config.access_log, mark)
    }

    /// The end of the access log now.
    pub fn access_mark(&self) -> Result<AccessMark> {
        access_log::end(&self.config.access_log)
    }

    /// What the registry said of each TLS handshake that it refused, as it does with a client certificate of an unknown CA.
    /// Connections that merely ended during their handshake are not among them.
    pub fn refused_handshakes(&self) -> Result<Vec<String>> {
        let log = fs::read(self.folder.path().join(LOG_FILE))?;
        let log = String::from_utf8_lossy(&log);
        let refused = log.lines().filter(|line| line.contains("TLS handshake error"));
        let refused = refused.filter(|line| !line.ends_with("EOF") && !line.ends_with("connection reset by peer"));
        Ok(refused.map(str::to_owned).collect())
    }

    /// Ends the registry, as an outage would. Its data and its address stay for [`RegistryServer::resume`].
    pub fn stop(&self) -> Result<()> {
        lock(&self.process)
            .take()
            .context("the registry is not running")?
            .stop()?;
        Ok(())
    }

    /// Starts the stopped registry again on its address.
    pub fn resume(&self) -> Result<()> {
        let mut process = lock(&self.process);
        *process = Some(spawn(self.folder.path(), self.config.drain)?.0);
        Ok(())
    }
}

fn spawn(folder: &Path, drain: Duration) -> Result<(Guarded, Bound)> {
    let log = folder.join(LOG_FILE);
    let guard = Guard {
        name: "registry",
        log: &log,
        grace: Duration::from_secs(1) + drain,
        remove: Some(folder),
        capture: true,
        environment: &[],
    };
    let config = folder.join(options::CONFIG_FILE);
    let mut process = guard.start(&servers::ensure()?.registry, ["-config".as_ref(), config.as_os_str()])?;
    let stdout = process
        .stdout
        .take()
        .context("the registry's standard output is not captured")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    match serde_json::from_str(&line) {
        Ok(bound) => Ok((process, bound)),
        Err(_) => Err(process.failure("did not say where it listens")),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    // Renamed into place, since the registry may be reading it.
    let temporary = path.with_extension("new");
    write_private(&temporary, serde_json::to_vec(value)?)?;
    Ok(fs::rename(temporary, path)?)
}
