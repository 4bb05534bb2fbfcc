//! How to reach a cluster as its administrator, whether it was started here or given by a kubeconfig.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use kube::{
    Client,
    config::{self, Kubeconfig},
};

use super::{
    client,
    identity::{self, User},
};

/// A cluster's address and its administrator's kubeconfig.
#[derive(Debug, Clone)]
pub struct Access {
    kubeconfig: PathBuf,
    cluster: config::Cluster,
    /// Where the kubeconfigs of accounts go.
    folder: PathBuf,
}

impl Access {
    /// Writes the administrator's kubeconfig; others will lie beside it.
    pub(super) fn create(url: &str, ca_pem: &str, kubeconfig: &Path, administrator: &User) -> Result<Self> {
        let cluster = config::Cluster {
            server: Some(url.to_owned()),
            certificate_authority_data: Some(BASE64.encode(ca_pem)),
            ..config::Cluster::default()
        };
        identity::write_kubeconfig(kubeconfig, &cluster, administrator)?;
        Ok(Self {
            kubeconfig: kubeconfig.to_owned(),
            cluster,
            folder: kubeconfig.parent().map(Path::to_owned).unwrap_or_default(),
        })
    }

    /// The cluster of the current context of a kubeconfig, whose user must be its administrator. Kubeconfigs of
    /// accounts are written into `folder`.
    pub fn given(kubeconfig: &Path, folder: &Path) -> Result<Self> {
        let path = fs::canonicalize(kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
        let file =
            Kubeconfig::read_from(&path).with_context(|| format!("{} is not a kubeconfig", kubeconfig.display()))?;
        let context = file
            .contexts
            .iter()
            .find(|it| Some(&it.name) == file.current_context.as_ref());
        let name = context.and_then(|it| Some(&it.context.as_ref()?.cluster));
        let cluster = file.clusters.iter().find(|it| Some(&it.name) == name);
        let cluster = cluster
            .and_then(|it| it.cluster.clone())
            .with_context(|| format!("the current context of {} names no cluster", kubeconfig.display()))?;
        Ok(Self {
            kubeconfig: path,
            cluster,
            folder: folder.to_owned(),
        })
    }

    /// The URL of the API server.
    pub fn url(&self) -> &str {
        self.cluster.server.as_deref().unwrap_or_default()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A client with the administrator's rights, bound to the current tokio runtime.
    pub async fn client(&self) -> Result<Client> {
        client(&self.kubeconfig).await
    }

    /// Writes a kubeconfig of a ServiceAccount and returns its path: see [`super::Cluster::service_account_kubeconfig`].
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str, ttl: Duration) -> Result<PathBuf> {
        let token = self.service_account_token(namespace, name, &[], ttl).await?;
        let path = self.folder.join(format!("{namespace}.{name}.kubeconfig"));
        identity::write_kubeconfig(&path, &self.cluster, &User::Token(token))?;
        Ok(path)
    }

    /// Requests a token of a ServiceAccount; without audiences, one for the API server itself.
    pub async fn service_account_token(
        &self,
        namespace: &str,
        name: &str,
        audiences: &[&str],
        ttl: Duration,
    ) -> Result<String> {
        identity::request_token(self.client().await?, namespace, name, audiences, ttl).await
    }
}

impl AsRef<Self> for Access {
    fn as_ref(&self) -> &Self {
        self
    }
}
