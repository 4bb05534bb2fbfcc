//! Child processes that end with this one.
//!
//! A child runs under `guard`, which ends it when the pipe to guard's standard input closes: when the [`Guarded`] is
//! dropped, and also when this process is killed. Output goes to a log file, whose tail explains a failed start.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write,
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::servers;

/// Where free ports are looked for, and how often.
const PORTS: std::ops::Range<u16> = 16_384..32_768;
const PORT_ATTEMPTS: usize = 1000;

/// How a child is run.
#[derive(Debug, Clone, Copy)]
pub struct Guard<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// Receives its standard error, and its standard output unless that is captured. Appended to.
    pub log: &'a Path,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// A folder that guard deletes after the child, unless the child was ended by [`Guarded::stop`].
    pub remove: Option<&'a Path>,
    /// Whether [`Guarded::stdout`] gets the child's standard output.
    pub capture: bool,
    /// Environment variables beside those of this process.
    pub environment: &'a [(&'a str, &'a str)],
}

impl Guard<'_> {
    /// Starts `program` with `arguments`.
    pub fn start<I, S>(&self, program: &Path, arguments: I) -> Result<Guarded>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<std::ffi::OsStr>,
    {
        self.run(Command::new(program).args(arguments))
    }

    /// Starts a command with its program, arguments, folder and variables.
    pub fn run(&self, wanted: &Command) -> Result<Guarded> {
        let log = OpenOptions::new().create(true).append(true).open(self.log)?;
        let mut command = Command::new(&servers::ensure()?.guard);
        command.arg(format!("-grace={}ms", self.grace.as_millis()));
        if let Some(folder) = self.remove {
            command.arg("-remove").arg(folder);
        }
        if let Some(folder) = wanted.get_current_dir() {
            command.current_dir(folder);
        }
        for (name, value) in wanted.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
            .arg(wanted.get_program())
            .args(wanted.get_args())
            .envs(self.environment.iter().copied())
            // Ctrl-C is for this process alone: it ends its children in the right order, or by its own end.
            .process_group(0)
            .stdin(Stdio::piped())
            .stderr(log.try_clone()?);
        command.stdout(if self.capture { Stdio::piped() } else { Stdio::from(log) });
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.name))?;
        Ok(Guarded {
            stdout: child.stdout.take(),
            child: Some(child),
            name: self.name.to_owned(),
            log: self.log.to_owned(),
        })
    }
}

/// Guards of children that were dropped and may still be ending them.
static DROPPED: Mutex<Vec<Child>> = Mutex::new(Vec::new());

/// Waits until every child that was dropped so far has ended, as a program does before it says that nothing is left.
/// Blocks, at most for the children's grace periods.
pub fn wait_for_dropped() {
    let dropped = std::mem::take(&mut *DROPPED.lock().unwrap_or_else(PoisonError::into_inner));
    for mut guard in dropped {
        // An error would mean that it is gone.
        let _ = guard.wait();
    }
}

/// A running child. Dropping it ends it, without waiting: see [`wait_for_dropped`].
#[derive(Debug)]
pub struct Guarded {
    /// The child's standard output, if captured.
    pub stdout: Option<ChildStdout>,
    /// The guard, until it was waited for.
    child: Option<Child>,
    name: String,
    log: PathBuf,
}

impl Guarded {
    /// Ends the child by SIGTERM (SIGKILL after the grace period) and waits for it; its folder stays.
    pub fn stop(self) -> Result<ExitStatus> {
        self.order(b"s")
    }

    /// Kills the child by SIGKILL, as a crash would, and waits for it; its folder stays.
    pub fn kill(self) -> Result<ExitStatus> {
        self.order(b"k")
    }

    /// Waits until the child ends by itself.
    pub fn wait(mut self) -> Result<ExitStatus> {
        let mut child = self.child.take().context("it has ended already")?;
        // To close it would end the child.
        let _input = child.stdin.take();
        Ok(child.wait()?)
    }

    fn order(mut self, order: &[u8]) -> Result<ExitStatus> {
        let mut child = self.child.take().context("it has ended already")?;
        let mut input = child.stdin.take();
        if let Some(input) = &mut input {
            // Fails when the child is gone already, which is as good.
            let _ = input.write_all(order);
        }
        Ok(child.wait()?)
    }

    /// The exit status, once the child has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        let child = self.child.as_mut().context("it has ended already")?;
        Ok(child.try_wait()?)
    }

    /// An error that says what the child wrote last.
    pub fn failure(&self, what: &str) -> anyhow::Error {
        anyhow::anyhow!("{} {what}; its last lines:\n{}", self.name, tail(&self.log))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        drop(child.stdin.take());
        let mut dropped = DROPPED.lock().unwrap_or_else(PoisonError::into_inner);
        dropped.retain_mut(|guard| matches!(guard.try_wait(), Ok(None)));
        dropped.push(child);
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(15)..)
        .unwrap_or_default()
        .join("\n")
}

/// A port of the loopback address that was free a moment ago. Another process may take it first: callers start their
/// server again with another one when it fails to bind.
///
/// Below the ports that systems give to outgoing connections: there are many of those in a test, and one would take the
/// port of a server that has not started yet.
///
/// None is given twice in one process: suites that start together would take each other's before they are bound.
pub fn free_port() -> Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..PORT_ATTEMPTS {
        let port = rand::random_range(PORTS);
        if !given.contains(&port) && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            given.insert(port);
            return Ok(port);
        }
    }
    anyhow::bail!("no free port between {} and {}", PORTS.start, PORTS.end)
}

/// Writes a file that only this user may read.
pub fn write_private(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(contents.as_ref())
        .with_context(|| format!("cannot write {}", path.display()))
}
