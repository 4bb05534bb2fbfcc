//! The four ports of `mintmark run`: artifacts, issuer documents, metrics, probes. All are bound before anything starts, so
//! that a port in use ends the process with one clear line.

use super::{CliError, RunFlags, flags::Listen, issuer_port::IssuerPort, kinds::EnabledKind, run::Running};
use crate::{
    artifact::ArtifactServer,
    runtime::{
        metrics::Metrics,
        serve::{HttpService, ServeError, ServeOptions, Server},
        supervise::{StopPlan, Supervisor},
    },
};

/// Connections to the artifact server.
const ARTIFACT_CONNECTIONS: usize = 512;
/// Connections to metrics and to probes.
const SMALL: usize = 64;

/// The bound ports.
pub(super) struct Listeners {
    artifacts: Option<Server>,
    issuer: Option<IssuerPort>,
    metrics: Option<Server>,
    health: Option<Server>,
}

impl Listeners {
    /// Binds every port that a flag asks for.
    pub(super) fn bind(flags: &RunFlags, metrics: &Metrics) -> Result<Self, CliError> {
        let options = ServeOptions::new("artifacts", ARTIFACT_CONNECTIONS).metrics(metrics.clone());
        let has_artifacts = EnabledKind::of(flags).contains(&EnabledKind::OciRepository);
        let artifacts = has_artifacts.then(|| Server::bind(&flags.artifact.storage_addr, options));
        let tls_secret = flags.issuer.issuer_tls_secret_name.as_deref();
        let issuer = flags.issuer.issuer_addr.0.as_ref();
        let issuer = issuer.map(|address| IssuerPort::bind(address, tls_secret, metrics, || None));
        Ok(Self {
            artifacts: artifacts.transpose().map_err(failed)?,
            issuer: issuer.transpose().map_err(failed)?,
            metrics: bind(&flags.serving.metrics_addr, "metrics", metrics)?,
            health: bind(&flags.serving.health_addr, "health", metrics)?,
        })
    }

    /// Serves all of them.
    pub(super) fn start(self, supervisor: &mut Supervisor, running: &Running, namespace: &str) {
        let shared = &running.shared;
        let plan = StopPlan::default();
        if let Some(storage) = running.storage.clone() {
            let artifacts = ArtifactServer::new(storage);
            serve(supervisor, "artifact server", self.artifacts, artifacts, plan);
        }
        serve(supervisor, "metrics server", self.metrics, shared.metrics.clone(), plan);
        serve(supervisor, "probes", self.health, running.health.clone(), plan);
        if let (Some(port), Some(documents)) = (self.issuer, running.documents.clone()) {
            port.start(supervisor, shared.client.clone(), namespace, documents);
        }
    }
}

/// Binds one of the small ports; an empty address is none.
pub(super) fn bind(listen: &Listen, name: &'static str, metrics: &Metrics) -> Result<Option<Server>, CliError> {
    let options = ServeOptions::new(name, SMALL).metrics(metrics.clone());
    let bound = listen.0.as_ref().map(|address| Server::bind(address, options));
    Ok(bound.transpose().map_err(failed)?)
}

fn failed(error: ServeError) -> anyhow::Error {
    error.into()
}

/// Serves a bound port.
pub(super) fn serve<S: HttpService>(
    supervisor: &mut Supervisor,
    name: &'static str,
    server: Option<Server>,
    service: S,
    plan: StopPlan,
) {
    let Some(server) = server else { return };
    tracing::info!(server = server.name(), address = %server.local_addr(), "listening");
    supervisor.spawn(name, plan, move |stop| server.run(service, stop));
}
