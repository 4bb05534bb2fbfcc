//! Where the real servers are: builds them once into the user's cache folder and finds them again.
//!
//! Each Go module under `hack/servers/` has a folder of its own in the cache, named by a hash of its files and of the Go
//! toolchain. Reads `MINTMARK_SERVERS` (paths handed on by `cargo xtask test`), `KUBEBUILDER_ASSETS`, `MINTMARK_CACHE`,
//! `XDG_CACHE_HOME` and `HOME`; fails with one line that says what to install, never by leaving something out.

mod build;
mod toolchain;

use std::{
    env,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::report;
pub use toolchain::go_command;

/// Name of the variable that carries [`ServerPaths`] as JSON to test processes.
pub const PATHS_VARIABLE: &str = "MINTMARK_SERVERS";

/// The built servers, as absolute paths.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerPaths {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub kube_apiserver: PathBuf,
    /// The test registry, `hack/servers/tools/registry`.
    pub registry: PathBuf,
    /// The CNCF distribution registry, `hack/servers/tools/distribution`.
    pub distribution: PathBuf,
    /// The SVID checker, `hack/servers/tools/svidcheck`.
    pub svidcheck: PathBuf,
    /// Ends its child with its parent, `hack/servers/tools/guard`.
    pub guard: PathBuf,
}

/// Builds what is missing and returns where everything is.
///
/// Blocks, for minutes at the first time (about six on two cores); later calls in one process cost nothing.
pub fn ensure() -> Result<&'static ServerPaths> {
    static PATHS: OnceLock<ServerPaths> = OnceLock::new();
    if let Some(paths) = PATHS.get() {
        return Ok(paths);
    }
    let paths = match env::var(PATHS_VARIABLE) {
        Ok(json) => serde_json::from_str(&json).with_context(|| format!("{PATHS_VARIABLE} is not what xtask wrote"))?,
        Err(_) => find()?,
    };
    Ok(PATHS.get_or_init(|| paths))
}

/// `cargo xtask servers`.
pub fn run() -> Result<()> {
    let paths = ensure()?;
    for (name, path) in [
        ("etcd", &paths.etcd),
        ("kube-apiserver", &paths.kube_apiserver),
        ("registry", &paths.registry),
        ("distribution", &paths.distribution),
        ("svidcheck", &paths.svidcheck),
        ("guard", &paths.guard),
    ] {
        report::line(format!("{name:<15} {}", path.display()));
    }
    Ok(())
}

/// The folder of the Go module `name` in this repository.
pub fn module_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("servers").join(name)
}

fn find() -> Result<ServerPaths> {
    let toolchain = toolchain::check()?;
    let cache = cache_dir()?;
    let tools = build::module(&cache, &toolchain, &build::TOOLS)?;
    let (etcd, kube_apiserver) = if let Some(assets) = env::var_os("KUBEBUILDER_ASSETS").filter(|v| !v.is_empty()) {
        let assets = PathBuf::from(assets);
        (asset(&assets, "etcd")?, asset(&assets, "kube-apiserver")?)
    } else {
        let etcd = build::module(&cache, &toolchain, &build::ETCD)?;
        let kube = build::module(&cache, &toolchain, &build::KUBE)?;
        (etcd.join("etcd"), kube.join("kube-apiserver"))
    };
    Ok(ServerPaths {
        etcd,
        kube_apiserver,
        registry: tools.join("registry"),
        distribution: tools.join("distribution"),
        svidcheck: tools.join("svidcheck"),
        guard: tools.join("guard"),
    })
}

fn asset(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "KUBEBUILDER_ASSETS is set, but there is no {}: unset it or put {name} there",
            path.display()
        );
    }
    Ok(path)
}

fn cache_dir() -> Result<PathBuf> {
    let from = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("MINTMARK_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|dir| dir.join("mintmark")))
        .or_else(|| from("HOME").map(|dir| dir.join(".cache/mintmark")))
        .context("no cache folder: set MINTMARK_CACHE (or HOME)")
}
