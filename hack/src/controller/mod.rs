//! The controller under test: its binary, its installation in a cluster, and its process.
//!
//! [`install`] gives it what `config/` gives it and no more; [`Controller`] runs it as its ServiceAccount, outside the
//! cluster, with all its listeners on free loopback ports. Its log is kept for the tests that search it.

mod install;
mod issuer;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

pub use install::{
    Installation, RING_SECRET, SIGNING_SECRET, STATE_SECRET, TLS_SECRET, install, objects, signing_secret,
};
pub use issuer::IssuerServer;

use crate::{
    process::{Guard, Guarded, free_port},
    workspace,
};

/// Name of the variable that carries the controller's binary to test processes.
pub const BINARY_VARIABLE: &str = "MINTMARK_BIN";

/// How long the controller may take to become ready.
const READY_DEADLINE: Duration = Duration::from_mins(1);

/// Interval of readiness probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Time between SIGTERM and SIGKILL: longer than the 15 s for which it serves documents after SIGTERM.
const GRACE: Duration = Duration::from_secs(25);

/// The repeatable flag that names networks with registries; repeating it adds to what was given before.
const ALLOW_FLAG: &str = "--registry-allow-cidrs";

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// Makes this the binary that [`binary`] answers, before anybody has asked.
pub fn use_binary(path: PathBuf) {
    // A second choice would come too late for what runs already.
    let _ = BINARY.set(path);
}

/// The controller's binary: `MINTMARK_BIN`, else a debug build of this workspace, made at the first call.
pub fn binary() -> Result<&'static Path> {
    if let Some(path) = BINARY.get() {
        return Ok(path);
    }
    let path = match env::var_os(BINARY_VARIABLE).filter(|value| !value.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => build()?,
    };
    Ok(BINARY.get_or_init(|| path))
}

/// Builds the controller and returns its path.
pub fn build() -> Result<PathBuf> {
    let mut command = workspace::cargo();
    // With the harness, whose dependencies have more features: else they would be built once more for the controller.
    command.args([
        "build",
        "--package",
        "mintmark",
        "--package",
        "mintmark-hack",
        "--bin",
        "mintmark",
    ]);
    workspace::execute(&mut command)?;
    built()
}

/// Where a debug build of the controller lies; fails if there is none.
pub fn built() -> Result<PathBuf> {
    let target = match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace::root().join(folder),
        None => workspace::root().join("target"),
    };
    let path = target.join("debug").join("mintmark");
    if !path.is_file() {
        bail!("there is no {}", path.display());
    }
    Ok(path)
}

/// A process `mintmark run`. It ends when this is dropped or this process ends.
#[derive(Debug)]
pub struct Controller {
    process: Mutex<Option<Guarded>>,
    launcher: Vec<String>,
    environment: Vec<(&'static str, String)>,
    flags: Vec<String>,
    ports: Ports,
    folder: TempDir,
}

/// The loopback ports of one controller, the same after a restart.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    storage: u16,
    issuer: u16,
    metrics: u16,
    health: u16,
}

impl Ports {
    /// Takes free ports. Made before the controller, since `--spiffe-issuer` and the registry name one of them.
    pub fn free() -> Result<Self> {
        Ok(Self {
            storage: free_port()?,
            issuer: free_port()?,
            metrics: free_port()?,
            health: free_port()?,
        })
    }

    /// The address that serves the issuer's documents, as an issuer URL: `http://127.0.0.1:<port>`.
    pub fn issuer_url(self) -> String {
        format!("http://127.0.0.1:{}", self.issuer)
    }

    /// The address of the artifact server: `http://127.0.0.1:<port>`.
    pub fn storage_url(self) -> String {
        format!("http://127.0.0.1:{}", self.storage)
    }

    /// The metrics: `http://127.0.0.1:<port>/metrics`.
    pub fn metrics_url(self) -> String {
        format!("http://127.0.0.1:{}/metrics", self.metrics)
    }

    /// The readiness probe: `http://127.0.0.1:<port>/readyz`.
    pub fn ready_url(self) -> String {
        format!("http://127.0.0.1:{}/readyz", self.health)
    }
}

impl Controller {
    /// Starts the controller of an installation with `flags` beside the ones for its addresses and storage. Loopback
    /// registries are allowed unless `flags` say themselves what is. Does not wait: see [`Controller::wait_ready`].
    pub fn start(installation: &Installation, ports: Ports, flags: &[&str]) -> Result<Self> {
        Self::start_with(&[], installation, ports, flags)
    }

    /// The same with more environment variables.
    pub fn start_with(
        environment: &[(&'static str, String)],
        installation: &Installation,
        ports: Ports,
        flags: &[&str],
    ) -> Result<Self> {
        Self::start_through(Vec::new(), environment, installation, ports, flags)
    }

    /// The same through a program that gets the controller's command behind its own arguments and becomes it.
    pub fn start_through(
        launcher: Vec<String>,
        environment: &[(&'static str, String)],
        installation: &Installation,
        ports: Ports,
        flags: &[&str],
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mintmark-controller-").tempdir()?;
        let mut all = vec![
            "run".to_owned(),
            format!("--kubeconfig={}", installation.kubeconfig.display()),
            format!("--storage-path={}", folder.path().join("data").display()),
            format!("--storage-addr=127.0.0.1:{}", ports.storage),
            format!("--storage-adv-addr=127.0.0.1:{}", ports.storage),
            format!("--issuer-addr=127.0.0.1:{}", ports.issuer),
            format!("--metrics-addr=127.0.0.1:{}", ports.metrics),
            format!("--health-addr=127.0.0.1:{}", ports.health),
            // How full this machine's disk is, is nobody's subject here; the storage's own tests have the rule.
            "--storage-min-free=0".to_owned(),
        ];
        if !flags.iter().any(|flag| flag.starts_with(ALLOW_FLAG)) {
            // Denied by default, and everything here is there.
            all.push(format!("{ALLOW_FLAG}=127.0.0.0/8"));
        }
        fs::create_dir(folder.path().join("data"))?;
        all.extend(flags.iter().map(|&flag| flag.to_owned()));
        let controller = Self {
            process: Mutex::new(None),
            launcher,
            environment: [("RUNTIME_NAMESPACE", installation.namespace.clone())]
                .into_iter()
                .chain(environment.iter().cloned())
                .collect(),
            flags: all,
            ports,
            folder,
        };
        controller.resume()?;
        Ok(controller)
    }

    /// Where it listens.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// The folder of the artifacts.
    pub fn storage(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the stopped controller again: same flags, ports and storage.
    pub fn resume(&self) -> Result<()> {
        self.resume_with(&[])
    }

    /// The same with `more` flags for this start, which win over the ones before.
    pub fn resume_with(&self, more: &[&str]) -> Result<()> {
        let log = self.log_file();
        let environment: Vec<_> = self.environment.iter().map(|(name, value)| (*name, &**value)).collect();
        let guard = Guard {
            name: "mintmark",
            log: &log,
            grace: GRACE,
            remove: Some(self.folder.path()),
            capture: false,
            environment: &environment,
        };
        let mut command = match self.launcher.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary()?);
                command
            }
            None => Command::new(binary()?),
        };
        command.args(&self.flags).args(more);
        *self.lock() = Some(guard.run(&command)?);
        Ok(())
    }

    /// Ends it by SIGTERM and waits until it has ended.
    pub fn stop(&self) -> Result<ExitStatus> {
        self.lock().take().context("the controller is not running")?.stop()
    }

    /// Kills it by SIGKILL.
    pub fn kill(&self) -> Result<ExitStatus> {
        self.lock().take().context("the controller is not running")?.kill()
    }

    /// The exit status, if it has ended by itself.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        self.lock().as_mut().context("the controller is not running")?.ended()
    }

    /// Waits until `/readyz` answers 200; fails with the last log lines when the process ends instead.
    pub async fn wait_ready(&self) -> Result<()> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()?;
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            if let Some(status) = self.ended()? {
                bail!("the controller ended with {status}:\n{}", self.log()?);
            }
            let answer = http.get(self.ports.ready_url()).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "the controller is not ready after {} s:\n{}",
                    READY_DEADLINE.as_secs(),
                    self.log()?
                );
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    /// Everything it logged, over all its starts.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.log_file())?).into_owned())
    }

    /// The log lines that are JSON objects.
    pub fn log_lines(&self) -> Result<Vec<Value>> {
        Ok(self
            .log()?
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// Where that log lies.
    pub fn log_file(&self) -> PathBuf {
        self.folder.path().join("mintmark.log")
    }

    fn lock(&self) -> MutexGuard<'_, Option<Guarded>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
