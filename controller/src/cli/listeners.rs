//! The four ports of `mintmark run`: artifacts, issuer documents, metrics, probes. All are bound before anything starts, so
//! that a port in use ends the process with one clear line.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{CliError, RunFlags, run::Running};
use crate::{
    artifact::ArtifactServer,
    issuing::DocumentsReceiver,
    publish::{self, PublishedDocuments},
    runtime::{
        metrics::Metrics,
        serve::{HttpService, ServeOptions, Server},
        supervise::{StopPlan, Supervisor},
    },
};

/// Connections to the artifact server.
const ARTIFACT_CONNECTIONS: usize = 512;
/// Connections to metrics and to probes.
const SMALL: usize = 64;

/// How long the issuer's documents are served after SIGTERM: registries ask for them on the pull path, and other
/// replicas or a restarted process take over meanwhile.
const DOCUMENTS_LINGER: Duration = Duration::from_secs(15);

/// The bound ports.
pub(super) struct Listeners {
    artifacts: Server,
    issuer: Option<Server>,
    metrics: Option<Server>,
    health: Option<Server>,
}

impl Listeners {
    /// Binds every port that a flag asks for.
    pub(super) fn bind(flags: &RunFlags, metrics: &Metrics) -> Result<Self, CliError> {
        let options = |name, connections| ServeOptions::new(name, connections).metrics(metrics.clone());
        let bind = |listen: &super::flags::Listen, name, connections| {
            listen
                .0
                .as_ref()
                .map(|address| Server::bind(address, options(name, connections)))
                .transpose()
        };
        let bound = || -> Result<Self, crate::runtime::serve::ServeError> {
            Ok(Self {
                artifacts: Server::bind(&flags.artifact.storage_addr, options("artifacts", ARTIFACT_CONNECTIONS))?,
                issuer: bind(&flags.issuer.issuer_addr, publish::SERVER, publish::MAX_CONNECTIONS)?,
                metrics: bind(&flags.serving.metrics_addr, "metrics", SMALL)?,
                health: bind(&flags.serving.health_addr, "health", SMALL)?,
            })
        };
        Ok(bound().map_err(anyhow::Error::from)?)
    }

    /// Serves all of them.
    pub(super) fn start(self, supervisor: &mut Supervisor, running: &Running) {
        let context = &running.context;
        for (name, server) in [
            ("artifacts", Some(&self.artifacts)),
            ("issuer", self.issuer.as_ref()),
            ("metrics", self.metrics.as_ref()),
            ("health", self.health.as_ref()),
        ] {
            if let Some(server) = server {
                tracing::info!(server = name, address = %server.local_addr(), "listening");
            }
        }
        serve(
            supervisor,
            "artifact server",
            self.artifacts,
            ArtifactServer::new(context.storage.clone()),
        );
        if let Some(server) = self.metrics {
            serve(supervisor, "metrics server", server, context.metrics.clone());
        }
        if let Some(server) = self.health {
            serve(supervisor, "probes", server, running.health.clone());
        }
        if let (Some(server), Some(documents)) = (self.issuer, running.documents.clone()) {
            start_issuer(supervisor, server, documents);
        }
    }
}

fn serve<S: HttpService>(supervisor: &mut Supervisor, name: &'static str, server: Server, service: S) {
    supervisor.spawn(name, StopPlan::default(), move |stop| async move {
        server.run(service, stop).await;
        Ok::<_, std::io::Error>(())
    });
}

/// Serves the issuer's documents on a thread of their own.
fn start_issuer(supervisor: &mut Supervisor, server: Server, mut documents: DocumentsReceiver) {
    let (sender, published) = watch::channel(None);
    let plan = StopPlan {
        linger: DOCUMENTS_LINGER,
        ..StopPlan::default()
    };
    super::run::task_until(supervisor, "documents", plan, async move {
        loop {
            let current = documents.borrow_and_update().clone();
            if let Some(documents) = current {
                match PublishedDocuments::from_issuer(&documents) {
                    Ok(rendered) => {
                        sender.send_replace(Some(Arc::new(rendered)));
                    }
                    Err(error) => tracing::error!(%error, "documents not published; the earlier ones stay"),
                }
            }
            if documents.changed().await.is_err() {
                return;
            }
        }
    });
    supervisor.spawn("issuer server", plan, move |stop| async move {
        publish::spawn_thread(server, published, stop)?.ended().await
    });
}
