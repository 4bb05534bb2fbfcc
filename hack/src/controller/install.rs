//! Puts what `config/` installs into a cluster, except for the Deployment: the process runs here.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    cluster::Access,
    manifests::{self, Placement},
    pki::KeyAndCertificate,
    workspace,
};

/// Name of the signing Secret in `config/`.
pub const SIGNING_SECRET: &str = "mintmark-signing";

/// Name of the Secret with the key ring's public state and documents in `config/`.
pub const STATE_SECRET: &str = "mintmark-issuer";

/// Name of the Secret with the key ring's private keys in `config/`.
pub const RING_SECRET: &str = "mintmark-issuer-ring";

/// Name of the Secret with the certificate of the issuer's port in `config/`.
pub const TLS_SECRET: &str = "mintmark-issuer-tls";

/// The parts of `config/` that the controller runs with: never more, so that a missing right is found.
const PARTS: &[&str] = &["crd", "rbac", "state", "token-creator"];

/// Life of the tokens in the kubeconfigs.
const TOKEN_TTL: Duration = Duration::from_hours(6);

/// A place in a cluster for one controller.
#[derive(Debug, Clone)]
pub struct Installation {
    /// The controller's namespace.
    pub namespace: String,
    /// A kubeconfig of its ServiceAccount `mintmark`.
    pub kubeconfig: PathBuf,
    /// A kubeconfig of the ServiceAccount `mintmark-issuer`, which `mintmark issuer` runs as.
    pub issuer_kubeconfig: PathBuf,
}

/// Applies the CRD, the rights, the empty Secrets of the key ring and the opt-in token rights, with `namespace` in the place of `mintmark-system`. Several
/// installations in one cluster share the CRD only.
pub async fn install(cluster: &impl AsRef<Access>, namespace: &str) -> Result<Installation> {
    let cluster = cluster.as_ref();
    manifests::apply(&cluster.client().await?, objects(namespace)?).await?;
    Installation::of(cluster, namespace).await
}

/// What [`install`] applies.
pub fn objects(namespace: &str) -> Result<Vec<DynamicObject>> {
    let mut objects = Vec::new();
    for part in PARTS {
        objects.extend(manifests::load(&workspace::root().join("config").join(part))?);
    }
    Placement::new(namespace).place(objects)
}

impl Installation {
    /// The installation whose objects are in the cluster already.
    pub async fn of(cluster: &Access, namespace: &str) -> Result<Self> {
        let kubeconfig = |account| cluster.service_account_kubeconfig(namespace, account, TOKEN_TTL);
        Ok(Self {
            namespace: namespace.to_owned(),
            kubeconfig: kubeconfig("mintmark").await?,
            issuer_kubeconfig: kubeconfig("mintmark-issuer").await?,
        })
    }
}

/// Creates or replaces the signing Secret of an installation.
pub async fn signing_secret(cluster: &impl AsRef<Access>, namespace: &str, pair: &KeyAndCertificate) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": SIGNING_SECRET, "namespace": namespace },
        "type": "kubernetes.io/tls",
        "data": { "tls.key": BASE64.encode(&pair.key_pem), "tls.crt": BASE64.encode(&pair.certificate_pem) },
    });
    let secrets: Api<Secret> = Api::namespaced(cluster.as_ref().client().await?, namespace);
    let parameters = PatchParams::apply("mintmark-hack").force();
    secrets
        .patch(SIGNING_SECRET, &parameters, &Patch::Apply(secret))
        .await?;
    Ok(())
}
