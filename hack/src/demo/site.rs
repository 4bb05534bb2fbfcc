//! The cluster of the demo: one of its own, or one that was given, in which it leaves nothing behind.

use std::path::Path;

use anyhow::{Context, Result};
use http::Request;
use kube::{Client, api::DynamicObject};
use tempfile::TempDir;

use super::{ledger::Ledger, registries::Registries};
use crate::{
    cluster::{Access, Cluster, ClusterOptions},
    manifests, pki,
    registry::Issuer,
};

/// Where the demo happens.
pub enum Site {
    /// etcd and kube-apiserver of our own.
    Own(Box<Cluster>),
    /// A cluster that belongs to somebody.
    Given(Box<Given>),
}

/// A cluster that belongs to somebody, and what was done to it.
pub struct Given {
    access: Access,
    ledger: Ledger,
    /// Holds the controller's kubeconfig.
    folder: TempDir,
}

impl Site {
    /// Starts etcd and kube-apiserver.
    pub async fn own() -> Result<Self> {
        Ok(Self::Own(Box::new(Cluster::start(ClusterOptions::default()).await?)))
    }

    /// Takes the cluster of a kubeconfig's current context; fails unless it answers.
    pub async fn given(kubeconfig: &Path) -> Result<Self> {
        pki::install_provider();
        let folder = tempfile::Builder::new().prefix("mintmark-demo-").tempdir()?;
        let access = Access::given(kubeconfig, folder.path())?;
        let version = access.client().await?.apiserver_version().await;
        version.with_context(|| format!("no cluster answers at {}", access.url()))?;
        let ledger = Ledger::default();
        Ok(Self::Given(Box::new(Given { access, ledger, folder })))
    }

    /// How it is reached.
    pub fn access(&self) -> &Access {
        match self {
            Self::Own(cluster) => cluster.as_ref().as_ref(),
            Self::Given(given) => &given.access,
        }
    }

    /// Who issues its ServiceAccount tokens. A given cluster's issuer need not be reachable from here: its keys are read
    /// through the API server.
    pub async fn token_issuer(&self) -> Result<Issuer> {
        match self {
            Self::Own(cluster) => Ok(Registries::issuer(cluster.url()).with_ca(cluster.ca_pem())),
            Self::Given(given) => discover(&given.access.client().await?).await,
        }
    }

    /// Applies objects.
    pub async fn apply(&mut self, mut objects: Vec<DynamicObject>) -> Result<()> {
        let client = self.access().client().await?;
        Ledger::mark(&mut objects);
        if let Self::Given(given) = self {
            given.ledger.note(&client, &objects).await?;
        }
        manifests::apply(&client, objects).await
    }

    /// Ends the servers, or deletes what was put into the given cluster.
    pub async fn end(self) -> Result<()> {
        match self {
            Self::Own(cluster) => cluster.end(),
            Self::Given(given) => {
                let Given { access, ledger, folder } = *given;
                ledger.clear(&access.client().await?).await?;
                Ok(folder.close()?)
            }
        }
    }
}

/// The issuer by the cluster's discovery document, with its keys (its paths are Kubernetes' own).
async fn discover(client: &Client) -> Result<Issuer> {
    let read = async |path: &str| {
        let request = Request::get(path).body(Vec::new())?;
        let answer = client.request_text(request).await;
        answer.with_context(|| format!("the cluster does not show {path}"))
    };
    let document: serde_json::Value = serde_json::from_str(&read("/.well-known/openid-configuration").await?)?;
    let url = document.get("issuer").and_then(serde_json::Value::as_str);
    let url = url.context("the cluster's discovery document names no issuer")?;
    Ok(Registries::issuer(url).with_key_set(read("/openid/v1/jwks").await?))
}
