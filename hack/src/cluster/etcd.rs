//! etcd for one API server: on loopback, without fsync, its data in the cluster's folder.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{PROBE_INTERVAL, READY_DEADLINE};
use crate::{
    process::{Guard, Guarded, free_port},
    servers,
};

/// Starts etcd and returns it with its client URL. It deletes the cluster's folder when it ends, since it is the
/// process that lives as long as the cluster.
pub(super) async fn start(folder: &Path) -> Result<(Guarded, String)> {
    let url = format!("http://127.0.0.1:{}", free_port()?);
    let mut etcd = spawn(folder, &url)?;
    wait_healthy(&mut etcd, &url).await?;
    Ok((etcd, url))
}

fn spawn(folder: &Path, url: &str) -> Result<Guarded> {
    let log = folder.join("etcd.log");
    let peer = format!("http://127.0.0.1:{}", free_port()?);
    let guard = Guard {
        name: "etcd",
        log: &log,
        grace: Duration::from_secs(1),
        remove: Some(folder),
        capture: false,
        environment: &[],
    };
    guard.start(
        &servers::ensure()?.etcd,
        [
            "--name=default".to_owned(),
            format!("--data-dir={}", folder.join("etcd").display()),
            format!("--listen-client-urls={url}"),
            format!("--advertise-client-urls={url}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // Nothing here outlives the machine's next crash.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ],
    )
}

async fn wait_healthy(etcd: &mut Guarded, url: &str) -> Result<()> {
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(2))
        .build()?;
    let deadline = Instant::now() + READY_DEADLINE;
    loop {
        if etcd.ended()?.is_some() {
            return Err(etcd.failure("ended at its start"));
        }
        if let Ok(answer) = http.get(format!("{url}/health")).send().await
            && answer.status().is_success()
        {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(etcd.failure("is not healthy in time"));
        }
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
}
