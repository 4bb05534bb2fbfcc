//! `cargo xtask test`: everything that continuous integration runs, in one order, with the time each step took.
//!
//! Output of the steps goes through as it comes. The first step that fails ends the run; the summary says what was
//! left out and why.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    controller::{self, BINARY_VARIABLE},
    report,
    servers::{self, PATHS_VARIABLE, go_command},
    workspace::{cargo, execute},
};

/// Name of the variable that names a Zot binary.
pub const ZOT_VARIABLE: &str = "ZOT";

/// Runs all steps.
pub fn run() -> Result<()> {
    let started = Instant::now();
    let zot = find_zot()?;
    let mut steps = Steps::default();
    steps.run("cargo fmt --check", || {
        execute(cargo().args(["fmt", "--all", "--check"]))
    })?;
    // Before anything calls go: this says in one line what to install.
    steps.run("servers", || servers::ensure().map(drop))?;
    steps.run("gofmt and go vet", check_go)?;
    steps.run("cargo clippy", || {
        execute(cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    })?;
    let denied = steps.run("cargo deny", cargo_deny)?;
    // All targets at once: the controller alone would have other features, and so its dependencies be built twice.
    steps.run("cargo build", || {
        execute(cargo().args(["build", "--workspace", "--all-targets"]))
    })?;
    steps.run("cargo test", || {
        let mut tests = cargo();
        tests.args(["test", "--workspace"]);
        tests.env(PATHS_VARIABLE, serde_json::to_string(servers::ensure()?)?);
        tests.env(BINARY_VARIABLE, controller::built()?);
        if let Some(zot) = &zot {
            tests.env(ZOT_VARIABLE, zot);
        }
        execute(&mut tests)
    })?;
    summary(&steps, denied, zot.as_deref(), started.elapsed());
    Ok(())
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
        Some(path) => report::progress(format!("zot: {} was given to the suites", path.display())),
        None => report::progress("zot: not used, there is no zot on the PATH and ZOT is not set"),
    }
}

/// gofmt and go vet over our own Go.
fn check_go() -> Result<()> {
    let output = Command::new("gofmt")
        .arg("-l")
        .arg(servers::module_dir("tools"))
        .output()
        .context("cannot run gofmt")?;
    if !output.status.success() || !output.stdout.is_empty() {
        let (files, error) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        bail!("gofmt would change: {files}{error}");
    }
    execute(go_command("tools").args(["vet", "./..."]))
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

fn find_zot() -> Result<Option<PathBuf>> {
    if let Some(path) = env::var_os(ZOT_VARIABLE)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
    {
        if !path.is_file() {
            bail!("ZOT is set, but there is no {}", path.display());
        }
        return Ok(Some(path));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::split_paths(&path)
        .map(|folder| folder.join("zot"))
        .find(|file| file.is_file()))
}
