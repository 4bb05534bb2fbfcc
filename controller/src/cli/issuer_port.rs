//! The port of the issuer's documents, the same in `mintmark run` and `mintmark issuer`: plain HTTP, or TLS with a followed
//! Secret. It goes on for a while after SIGTERM: registries ask for the documents on the pull path, and other replicas or
//! a restarted process take over meanwhile.

use std::{sync::Arc, time::Duration};

use kube::Client;
use tokio::sync::watch;

use super::run::task_until;
use crate::{
    issuing::DocumentsReceiver,
    publish::{self, PublishedDocuments, TlsFollower},
    runtime::{
        health::Gate,
        metrics::Metrics,
        serve::{ListenAddress, ServeError, ServeOptions, Server},
        supervise::{StopPlan, Supervisor},
    },
};

/// The plan of everything that the documents need: on for 15 s after SIGTERM.
pub(super) const DOCUMENTS: StopPlan = StopPlan {
    linger: Duration::from_secs(15),
    grace: Duration::from_secs(10),
};

/// The bound port.
pub(super) struct IssuerPort {
    server: Server,
    tls: Option<TlsFollower>,
}

impl IssuerPort {
    /// Binds `address`. With `tls_secret`, connections are refused until that Secret holds a certificate; `gate` opens
    /// then.
    pub(super) fn bind(
        address: &ListenAddress,
        tls_secret: Option<&str>,
        metrics: &Metrics,
        gate: impl FnOnce() -> Option<Gate>,
    ) -> Result<Self, ServeError> {
        let mut options = ServeOptions::new(publish::SERVER, publish::MAX_CONNECTIONS).metrics(metrics.clone());
        let mut tls = None;
        if let Some(secret) = tls_secret {
            let (follower, source) = TlsFollower::new(secret, metrics.clone(), gate());
            options = options.tls(source);
            tls = Some(follower);
        }
        let server = Server::bind(address, options)?;
        Ok(Self { server, tls })
    }

    /// Serves `documents`, on a thread of their own.
    pub(super) fn start(
        self,
        supervisor: &mut Supervisor,
        client: Client,
        namespace: &str,
        documents: DocumentsReceiver,
    ) {
        let is_tls = self.tls.is_some();
        let address = self.server.local_addr();
        tracing::info!(server = publish::SERVER, %address, tls = is_tls, "listening");
        if let Some(tls) = self.tls {
            let namespace = namespace.to_owned();
            task_until(supervisor, "issuer TLS Secret", DOCUMENTS, async move {
                tls.run(client, &namespace).await;
            });
        }
        let (sender, published) = watch::channel(None);
        task_until(supervisor, "documents", DOCUMENTS, render(documents, sender, !is_tls));
        let server = self.server;
        supervisor.spawn("issuer server", DOCUMENTS, move |stop| async move {
            publish::spawn_thread(server, published, stop)?.ended().await
        });
    }
}

/// Renders every change for the server.
async fn render(
    mut documents: DocumentsReceiver,
    published: watch::Sender<Option<Arc<PublishedDocuments>>>,
    is_plain: bool,
) {
    let mut told = !is_plain;
    loop {
        let current = documents.borrow_and_update().clone();
        if let Some(documents) = current {
            if !told
                && documents
                    .discovery()
                    .is_some_and(|discovery| names_https(&discovery.body))
            {
                told = true;
                tracing::info!("the issuer is https and this port is plain HTTP: TLS must stand in front of it");
            }
            match PublishedDocuments::from_issuer(&documents) {
                Ok(rendered) => {
                    published.send_replace(Some(Arc::new(rendered)));
                }
                Err(error) => tracing::error!(%error, "documents not published; the earlier ones stay"),
            }
        }
        if documents.changed().await.is_err() {
            // What is published stays, for as long as the process does.
            std::future::pending::<()>().await;
        }
    }
}

/// Whether the issuer of a discovery document is https.
fn names_https(discovery: &[u8]) -> bool {
    let document = serde_json::from_slice::<serde_json::Value>(discovery).unwrap_or_default();
    document
        .get("issuer")
        .and_then(serde_json::Value::as_str)
        .is_some_and(|issuer| issuer.starts_with("https://"))
}
