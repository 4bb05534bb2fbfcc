//! `mintmark issuer`: serves the issuer's documents out of Secret `mintmark-issuer`, without any private key and without
//! knowing trust domain or issuer: the state contains them. It reads that Secret and that of its certificate, and writes
//! nothing. What it has published once it goes on publishing, whatever becomes of the Secret or the API server.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{
    CliError,
    cluster::{self, Cluster},
    flags::Listen,
    issuer_port::{DOCUMENTS, IssuerPort},
    listeners::{self, bind},
    run::{self, task_until},
};
use crate::{
    publish::StateFollower,
    runtime::{
        health::Health,
        log::{LogEncoding, LogLevel},
        metrics::{Metrics, PER_OBJECT_LIMIT},
        serve::ListenAddress,
        supervise::{StopPlan, Supervisor, signals},
    },
};

/// Every flag of `mintmark issuer`; they mean what they mean for `mintmark run`.
#[derive(Debug, Clone, Args)]
pub struct IssuerCommandFlags {
    /// Where the documents are served.
    #[arg(long, value_name = "ADDRESS", default_value = ":9080")]
    issuer_addr: ListenAddress,
    /// Name of the kubernetes.io/tls Secret that the documents are served with; without it, plain HTTP.
    #[arg(long, value_name = "NAME")]
    issuer_tls_secret_name: Option<String>,
    /// Where /healthz and /readyz are served; empty switches them off.
    #[arg(long, value_name = "ADDRESS", default_value = ":9440")]
    health_addr: Listen,
    /// Where Prometheus metrics are served; empty switches them off.
    #[arg(long, value_name = "ADDRESS", env = "METRICS_ADDR", default_value = ":8080")]
    metrics_addr: Listen,
    /// The namespace of the Secrets; default: the mounted one.
    #[arg(long, value_name = "NAMESPACE", env = "RUNTIME_NAMESPACE")]
    runtime_namespace: Option<String>,
    /// Kubeconfig file; default: KUBECONFIG, the Pod's own account, ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// trace, debug, info or error.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: LogLevel,
    /// json or console.
    #[arg(long, value_name = "ENCODING", default_value = "json")]
    log_encoding: LogEncoding,
}

/// Serves until a signal or the end of a task.
pub(super) fn run(flags: &IssuerCommandFlags) -> Result<(), CliError> {
    run::prepare(flags.log_level, flags.log_encoding)?;
    // The documents have a thread of their own; what remains is a watch and two small servers.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(flags))
}

async fn serve(flags: &IssuerCommandFlags) -> Result<(), CliError> {
    let given = cluster::Given {
        kubeconfig: flags.kubeconfig.as_deref(),
        namespace: flags.runtime_namespace.as_deref(),
        throttle: None,
    };
    let cluster = Cluster::connect_to(given).await?;
    let metrics = Metrics::new(false, PER_OBJECT_LIMIT);
    let health = Health::new();
    let tls_secret = flags.issuer_tls_secret_name.as_deref();
    let port = IssuerPort::bind(&flags.issuer_addr, tls_secret, &metrics, || Some(health.gate("tls")))
        .map_err(anyhow::Error::from)?;
    let probes = bind(&flags.health_addr, "health", &metrics)?;
    let scrapes = bind(&flags.metrics_addr, "metrics", &metrics)?;

    let mut supervisor = Supervisor::new();
    let (follower, documents) = StateFollower::new(metrics.clone(), health.gate("state"));
    let (client, namespace) = (cluster.client.clone(), cluster.namespace.clone());
    task_until(&mut supervisor, "state Secret", DOCUMENTS, async move {
        follower.run(client, &namespace).await;
    });
    port.start(&mut supervisor, cluster.client, &cluster.namespace, documents);
    listeners::serve(&mut supervisor, "metrics server", scrapes, metrics, StopPlan::default());
    listeners::serve(&mut supervisor, "probes", probes, health.clone(), DOCUMENTS);
    let stopping = health.gate("running");
    stopping.open();
    supervisor.spawn("stopping", StopPlan::default(), move |stop| async move {
        stop.cancelled().await;
        stopping.close("stopping");
        Ok::<_, std::io::Error>(())
    });
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
    let signals = signals().context("cannot listen for signals")?;
    Ok(supervisor.run(signals).await.map_err(anyhow::Error::from)?)
}
