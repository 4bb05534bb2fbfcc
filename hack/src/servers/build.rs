//! Builds one Go module into the cache: in a temporary folder, renamed when complete, one process at a time.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{ChildStderr, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{go_command, module_dir};
use crate::{digest, report};

/// How often a running build says that it is still at it.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Lines of the compiler's output that are kept for the message of a failed build.
const KEPT_LINES: usize = 30;

/// A Go module under `hack/servers/` and what is built of it.
pub(super) struct Module {
    name: &'static str,
    packages: &'static [&'static str],
    /// What the first build takes on two cores, for the progress line.
    first_time: &'static str,
}

pub(super) const ETCD: Module = Module {
    name: "etcd",
    packages: &["etcd=go.etcd.io/etcd/server/v3"],
    first_time: "1 minute",
};

pub(super) const KUBE: Module = Module {
    name: "kube",
    packages: &["kube-apiserver=k8s.io/kubernetes/cmd/kube-apiserver"],
    first_time: "5 minutes",
};

pub(super) const TOOLS: Module = Module {
    name: "tools",
    packages: &[
        "distribution=./distribution",
        "guard=./guard",
        "registry=./registry",
        "svidcheck=./svidcheck",
    ],
    first_time: "1 minute",
};

/// Returns the folder with the module's binaries, after building them if no such folder is there.
pub(super) fn module(cache: &Path, toolchain: &str, module: &Module) -> Result<PathBuf> {
    let root = cache.join("servers");
    let folder = root.join(format!("{}-{}", module.name, key(module, toolchain)?));
    if folder.is_dir() {
        return Ok(folder);
    }
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let lock = File::create(root.join(format!("{}.lock", module.name)))?;
    if lock.try_lock().is_err() {
        report::progress(format!("{}: waiting for another build", module.name));
        lock.lock()?;
    }
    // The other build may have been of the same files.
    if !folder.is_dir() {
        let temporary = tempfile::Builder::new().prefix(module.name).tempdir_in(&root)?;
        build(module, temporary.path())?;
        fs::rename(temporary.keep(), &folder)?;
    }
    Ok(folder)
}

fn build(module: &Module, target: &Path) -> Result<()> {
    let started = Instant::now();
    report::progress(format!(
        "{}: building (the first time takes about {})",
        module.name, module.first_time
    ));
    for package in module.packages {
        let (binary, path) = package.split_once('=').unwrap_or((package, package));
        let mut child = go_command(module.name)
            .args(["build", "-trimpath", "-ldflags=-s -w", "-o"])
            .arg(target.join(binary))
            .arg(path)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run `go build`")?;
        let output = child
            .stderr
            .take()
            .map(|stderr| follow(stderr, binary, started))
            .unwrap_or_default();
        if !child.wait()?.success() {
            bail!(
                "`go build {path}` failed in hack/servers/{}:\n{}",
                module.name,
                output.join("\n")
            );
        }
    }
    report::progress(format!("{}: built in {} s", module.name, started.elapsed().as_secs()));
    Ok(())
}

/// Reads a build's output to its end, with a sign of life now and then, and returns its last lines.
fn follow(stderr: ChildStderr, binary: &str, started: Instant) -> Vec<String> {
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut kept = Vec::new();
    let mut said = Instant::now();
    loop {
        match lines.recv_timeout(HEARTBEAT) {
            Ok(line) => {
                if kept.len() == KEPT_LINES {
                    kept.remove(0);
                }
                kept.push(line);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
        if said.elapsed() >= HEARTBEAT {
            said = Instant::now();
            report::progress(format!(
                "{binary}: still building after {} s",
                started.elapsed().as_secs()
            ));
        }
    }
    // The reader ended with the channel; its result is the unit value.
    drop(reader.join());
    kept
}

/// 16 hexadecimal digits that change with any file of the module and with the toolchain.
fn key(module: &Module, toolchain: &str) -> Result<String> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut add = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    };
    add(toolchain.as_bytes());
    let root = module_dir(module.name);
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    for file in files {
        add(file.strip_prefix(&root)?.to_string_lossy().as_bytes());
        add(&fs::read(&file)?);
    }
    let digest = context.finish();
    Ok(digest::hex(digest.as_ref().get(..8).unwrap_or_default()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
