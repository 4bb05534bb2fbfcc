//! What the process learns of its cluster at start: the client, its own namespace, its own account, and what the API
//! server accepts as audiences, which no token for a registry may carry.

use std::{collections::BTreeSet, fmt::Display, net::IpAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use ipnet::IpNet;
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{KubeConfigOptions, Kubeconfig},
};
use rustls_pki_types::CertificateDer;
use secrecy::SecretString;
use serde_json::Value;

use super::{CliError, FlagError, flags::ControllerFlags};
use crate::{
    credential::{audiences_of, subject_of},
    runtime::throttle::Throttle,
};

/// First and longest delay between attempts to learn the API server's audiences.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The cluster this process works in.
pub struct Cluster {
    /// Talks to the API server.
    pub client: Client,
    /// The controller's namespace.
    pub namespace: String,
    /// The controller's own account, if it has a token of one.
    pub account: Option<(Arc<str>, Arc<str>)>,
    /// Audiences of the controller's own token.
    pub own_audiences: Vec<String>,
    /// CAs of the cluster: none of them may sign identities.
    pub certificate_authorities: Vec<CertificateDer<'static>>,
    /// Addresses that registries must not be at: the API server's and our own.
    pub own_networks: Vec<IpNet>,
}

/// What flags say about the cluster.
#[derive(Debug, Clone)]
pub struct Given<'a> {
    /// `--kubeconfig`.
    pub kubeconfig: Option<&'a Path>,
    /// `--runtime-namespace`.
    pub namespace: Option<&'a str>,
    /// `--kube-api-qps` and `--kube-api-burst`.
    pub throttle: Option<Throttle>,
}

impl Cluster {
    /// Reads the kubeconfig or the Pod's own account. Makes no request.
    pub async fn connect(flags: &ControllerFlags) -> Result<Self, CliError> {
        Self::connect_to(Given {
            kubeconfig: flags.kubeconfig.as_deref(),
            namespace: flags.runtime_namespace.as_deref(),
            throttle: Throttle::new(flags.kube_api_qps, flags.kube_api_burst),
        })
        .await
    }

    /// The same from the flags that it takes.
    pub async fn connect_to(given: Given<'_>) -> Result<Self, CliError> {
        let config = config(given.kubeconfig).await?;
        let namespace = match given.namespace {
            Some(namespace) if !namespace.is_empty() => namespace.to_owned(),
            _ if is_in_cluster(&given) => config.default_namespace.clone(),
            _ => {
                let problem = "is needed outside a Pod: the namespace of the signing Secret (or RUNTIME_NAMESPACE)";
                return Err(FlagError::new("runtime-namespace", problem).into());
            }
        };
        let token = own_token(&config).await;
        let account = token
            .as_ref()
            .and_then(subject_of)
            .and_then(|subject| account_of(&subject));
        let own_audiences = token.as_ref().map(audiences_of).unwrap_or_default();
        let certificate_authorities = config
            .root_cert
            .iter()
            .flatten()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        let own_networks = own_networks(&config);
        let client = client(config, given.throttle).context("cannot set up the client of the API server")?;
        Ok(Self {
            client,
            namespace,
            account,
            own_audiences,
            certificate_authorities,
            own_networks,
        })
    }

    /// The audiences that the API server accepts: those of our own token and the issuer that it publishes. Asks until it
    /// is answered.
    pub async fn api_audiences(client: Client, own: Vec<String>) -> BTreeSet<String> {
        let mut delay = RETRY.0;
        loop {
            match published_issuer(&client).await {
                Ok(issuer) => return own.into_iter().chain(issuer).collect(),
                Err(error) => tracing::error!(%error, "the API server's issuer is not known yet; retrying"),
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY.1);
        }
    }
}

/// A client for a command that needs no more than that.
pub async fn client_of(kubeconfig: Option<&Path>) -> Result<Client, CliError> {
    let config = config(kubeconfig).await?;
    Ok(Client::try_from(config).context("cannot set up the client of the API server")?)
}

fn client(config: Config, throttle: Option<Throttle>) -> kube::Result<Client> {
    let builder = ClientBuilder::try_from(config)?;
    Ok(match throttle {
        Some(throttle) => builder.with_layer(&throttle).build(),
        None => builder.build(),
    })
}

async fn config(kubeconfig: Option<&Path>) -> Result<Config, CliError> {
    let Some(path) = kubeconfig else {
        let none = |error| FlagError::new("kubeconfig", format!("is needed outside a Pod: {}", first_line(&error)));
        return Ok(Config::infer().await.map_err(none)?);
    };
    let bad = |error: &dyn Display| FlagError::new("kubeconfig", format!("{}: {}", path.display(), first_line(error)));
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| bad(&error))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Ok(config.map_err(|error| bad(&error))?)
}

/// What is wrong with a kubeconfig, without the excerpt of the file that a parser adds: it may hold a token.
fn first_line(error: &dyn Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn is_in_cluster(given: &Given<'_>) -> bool {
    given.kubeconfig.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

async fn own_token(config: &Config) -> Option<SecretString> {
    if let Some(token) = &config.auth_info.token {
        return Some(token.clone());
    }
    let file = config.auth_info.token_file.as_ref()?;
    let token = tokio::fs::read_to_string(file).await.ok()?;
    Some(token.trim().to_owned().into())
}

/// Namespace and name out of `system:serviceaccount:<namespace>:<name>`.
fn account_of(subject: &str) -> Option<(Arc<str>, Arc<str>)> {
    let (namespace, name) = subject.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    Some((namespace.into(), name.into()))
}

fn own_networks(config: &Config) -> Vec<IpNet> {
    let api_server = config
        .cluster_url
        .host()
        .map(|host| host.trim_matches(['[', ']']).to_owned());
    let pod = std::env::var("POD_IP").ok();
    api_server
        .into_iter()
        .chain(pod)
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .map(IpNet::from)
        .collect()
}

/// The `issuer` of `/.well-known/openid-configuration`; none where the API server publishes none to us.
async fn published_issuer(client: &Client) -> Result<Option<String>, kube::Error> {
    let request = http::Request::get("/.well-known/openid-configuration").body(Vec::new());
    let request = request.map_err(kube::Error::HttpError)?;
    match client.request::<Value>(request).await {
        Ok(document) => Ok(document.get("issuer").and_then(Value::as_str).map(str::to_owned)),
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
            tracing::error!(error = %status.message, "the API server's issuer is not readable; name it with --denied-audiences");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_damaged_kubeconfig_is_told_in_one_line_without_its_content() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "users: [{user: {token: planted}}\n: damaged").unwrap();
        let error = config(Some(file.path())).await.err().unwrap().to_string();
        assert!(error.starts_with("--kubeconfig: "), "{error}");
        assert!(!error.contains('\n') && !error.contains("planted"), "{error}");
    }

    #[test]
    fn accounts_come_from_the_subject() {
        let account = account_of("system:serviceaccount:flux-system:mintmark").unwrap();
        assert_eq!((&*account.0, &*account.1), ("flux-system", "mintmark"));
        assert_eq!(account_of("system:node:a"), None);
    }
}
