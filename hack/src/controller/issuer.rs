//! A process `mintmark issuer` beside the controller: as its own account, outside the cluster, on free loopback ports.

use std::{
    fs,
    path::PathBuf,
    process::ExitStatus,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{GRACE, Installation, binary};
use crate::process::{Guard, Guarded, free_port};

/// A process `mintmark issuer`. It ends when this is dropped or this process ends.
#[derive(Debug)]
pub struct IssuerServer {
    process: Mutex<Option<Guarded>>,
    namespace: String,
    flags: Vec<String>,
    issuer: u16,
    health: u16,
    metrics: u16,
    folder: TempDir,
}

impl IssuerServer {
    /// Starts it with `flags` beside the ones for its account and addresses. Does not wait until it is ready.
    pub fn start(installation: &Installation, flags: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mintmark-issuer-").tempdir()?;
        let (issuer, health, metrics) = (free_port()?, free_port()?, free_port()?);
        let mut all = vec![
            "issuer".to_owned(),
            format!("--kubeconfig={}", installation.issuer_kubeconfig.display()),
            format!("--issuer-addr=127.0.0.1:{issuer}"),
            format!("--health-addr=127.0.0.1:{health}"),
            format!("--metrics-addr=127.0.0.1:{metrics}"),
        ];
        all.extend(flags.iter().map(|&flag| flag.to_owned()));
        let server = Self {
            process: Mutex::new(None),
            namespace: installation.namespace.clone(),
            flags: all,
            issuer,
            health,
            metrics,
            folder,
        };
        server.resume()?;
        Ok(server)
    }

    /// Starts it again after a stop: same flags and ports.
    pub fn resume(&self) -> Result<()> {
        let log = self.log_file();
        let guard = Guard {
            name: "mintmark issuer",
            log: &log,
            grace: GRACE,
            remove: Some(self.folder.path()),
            capture: false,
            environment: &[("RUNTIME_NAMESPACE", &self.namespace)],
        };
        *self.lock() = Some(guard.start(binary()?, &self.flags)?);
        Ok(())
    }

    /// `127.0.0.1:<port>` of the documents.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.issuer)
    }

    /// The readiness probe.
    pub fn ready_url(&self) -> String {
        format!("http://127.0.0.1:{}/readyz", self.health)
    }

    /// The metrics.
    pub fn metrics_url(&self) -> String {
        format!("http://127.0.0.1:{}/metrics", self.metrics)
    }

    /// Ends it by SIGTERM and waits until it has ended.
    pub fn stop(&self) -> Result<ExitStatus> {
        // Not while the lock is held: others may look meanwhile.
        let process = self.lock().take();
        process.context("it is not running")?.stop()
    }

    /// The exit status, if it has ended by itself.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        self.lock().as_mut().context("it is not running")?.ended()
    }

    /// Everything it logged, over all its starts.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.log_file())?).into_owned())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("issuer.log")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Guarded>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
