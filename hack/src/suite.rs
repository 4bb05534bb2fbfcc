//! `cargo xtask test`: everything that continuous integration runs, in one order, with the time each step took.
//!
//! Output of the steps goes through as it comes. The first step that fails ends the run; the summary says what was
//! left out and why.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::NamedTempFile;

use crate::{
    controller::{self, BINARY_VARIABLE},
    process::{Guard, Guarded},
    report,
    servers::{self, PATHS_VARIABLE, go_command},
    workspace::{cargo, execute},
    zot,
};

/// The Go modules with code of ours.
const OWN_GO: [&str; 2] = ["semver", "tools"];

/// The fault suites: a few at a time, since most wait most of the time, with the figures that they tell.
const FAULTS: [&str; 7] = [
    "--package",
    "mintmark-tests",
    "--test",
    "faults",
    "--",
    "--test-threads=4",
    "--nocapture",
];

/// Runs all steps.
pub fn run() -> Result<()> {
    let started = Instant::now();
    let zot = zot::find()?;
    let mut steps = Steps::default();
    steps.run("cargo fmt --check", || {
        execute(cargo().args(["fmt", "--all", "--check"]))
    })?;
    // Before anything calls go: this says in one line what to install.
    steps.run("servers", || servers::ensure().map(drop))?;
    steps.run("gofmt and go vet", check_go)?;
    steps.run("cargo clippy", || {
        execute(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
        execute(apart("clippy").args(["--", "-D", "warnings"]))
    })?;
    let denied = steps.run("cargo deny", cargo_deny)?;
    // All targets at once: the controller alone would have other features, and so its dependencies be built twice.
    steps.run("cargo build", || {
        execute(cargo().args(["build", "--workspace", "--all-targets"]))?;
        execute(&mut apart("build"))
    })?;
    let rotation = Rotation::start()?;
    steps.run("cargo test", || execute(tests()?.arg("--workspace")))?;
    if zot.is_some() {
        steps.run("zot", || {
            execute(tests()?.args(["--package", "mintmark-tests", "--test", "zot"]))
        })?;
    }
    steps.run("rest of rotation", || rotation.end())?;
    // They load the machine, and bound how long things take: when nothing else runs.
    steps.run("faults", || execute(tests()?.args(FAULTS)))?;
    summary(&steps, denied, zot.as_deref(), started.elapsed());
    Ok(())
}

/// A cargo command for the test targets that `--workspace` leaves out.
fn apart(command: &str) -> Command {
    let mut cargo = cargo();
    cargo.args([
        command,
        "--package",
        "mintmark-tests",
        "--test",
        "rotation",
        "--test",
        "faults",
        "--test",
        "zot",
    ]);
    cargo
}

/// `cargo test` with what is built already.
fn tests() -> Result<Command> {
    let mut tests = cargo();
    tests.arg("test");
    tests.env(PATHS_VARIABLE, serde_json::to_string(servers::ensure()?)?);
    tests.env(BINARY_VARIABLE, controller::built()?);
    Ok(tests)
}

/// The suites about rotation. They wait for minutes and work little: all at once, beside the other suites. They end with
/// this process.
struct Rotation {
    process: Guarded,
    output: NamedTempFile,
}

impl Rotation {
    fn start() -> Result<Self> {
        let output = NamedTempFile::new()?;
        let mut command = tests()?;
        command.args([
            "--package",
            "mintmark-tests",
            "--test",
            "rotation",
            "--",
            "--test-threads=32",
        ]);
        let guard = Guard {
            name: "rotation",
            log: output.path(),
            grace: Duration::from_secs(5),
            remove: None,
            capture: false,
            environment: &[],
        };
        let process = guard.run(&command)?;
        Ok(Self { process, output })
    }

    /// Waits for their end and shows what they said.
    fn end(self) -> Result<()> {
        let status = self.process.wait()?;
        report::progress(fs::read_to_string(self.output.path())?);
        ensure!(status.success(), "the suites about rotation ended with {status}");
        Ok(())
    }
}

#[derive(Default)]
struct Steps(Vec<(&'static str, Duration)>);

impl Steps {
    fn run<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T>) -> Result<T> {
        report::heading(name);
        let started = Instant::now();
        let outcome = step().with_context(|| format!("step `{name}` failed"))?;
        self.0.push((name, started.elapsed()));
        Ok(outcome)
    }
}

fn summary(steps: &Steps, denied: bool, zot: Option<&Path>, total: Duration) {
    report::heading("summary");
    for (name, time) in &steps.0 {
        report::progress(format!("{name:<25} {:>7.1} s", time.as_secs_f64()));
    }
    report::progress(format!("{:<25} {:>7.1} s", "all", total.as_secs_f64()));
    if !denied {
        report::progress("cargo deny: not run, cargo-deny is not installed");
    }
    match zot {
        Some(path) => report::progress(format!("zot: its suite ran against {}", path.display())),
        None => report::progress("zot: its suite did not run, there is no zot on the PATH and ZOT is not set"),
    }
}

/// gofmt and go vet over our own Go.
fn check_go() -> Result<()> {
    let output = Command::new("gofmt")
        .arg("-l")
        .args(OWN_GO.map(servers::module_dir))
        .output()
        .context("cannot run gofmt")?;
    if !output.status.success() || !output.stdout.is_empty() {
        let (files, error) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        bail!("gofmt would change: {files}{error}");
    }
    OWN_GO
        .iter()
        .try_for_each(|module| execute(go_command(module).args(["vet", "./..."])))
}

/// Returns whether cargo-deny is there.
fn cargo_deny() -> Result<bool> {
    if !cargo()
        .args(["deny", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
    {
        report::progress("cargo-deny is not installed: not run");
        return Ok(false);
    }
    execute(cargo().args(["deny", "check", "bans", "licenses", "sources"]))?;
    Ok(true)
}
