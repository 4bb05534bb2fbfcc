//! Who talks to the API server: kubeconfig files, ServiceAccount tokens, and the right to read the issuer's keys.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
    rbac::v1::ClusterRoleBinding,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    config,
};
use serde_json::json;

use crate::{pki::KeyAndCertificate, process::write_private};

/// The user of a kubeconfig.
pub(super) enum User {
    Certificate(KeyAndCertificate),
    Token(String),
}

/// Writes a kubeconfig with one context. `cluster` is a cluster's entry of another kubeconfig.
pub(super) fn write_kubeconfig(path: &Path, cluster: &config::Cluster, user: &User) -> Result<()> {
    let user = match user {
        User::Certificate(pair) => json!({
            "client-certificate-data": BASE64.encode(&pair.certificate_pem),
            "client-key-data": BASE64.encode(&pair.key_pem),
        }),
        User::Token(token) => json!({ "token": token }),
    };
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "test", "cluster": cluster }],
        "users": [{ "name": "test", "user": user }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
        "current-context": "test",
    });
    write_private(path, serde_yaml_ng::to_string(&kubeconfig)?)
}

pub(super) async fn request_token(
    client: Client,
    namespace: &str,
    name: &str,
    audiences: &[&str],
    ttl: Duration,
) -> Result<String> {
    let request = TokenRequest {
        spec: TokenRequestSpec {
            audiences: audiences.iter().map(|&audience| audience.to_owned()).collect(),
            expiration_seconds: Some(i64::try_from(ttl.as_secs())?),
            bound_object_ref: None,
        },
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let answer = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .with_context(|| format!("no token for ServiceAccount {namespace}/{name}"))?;
    Ok(answer.status.context("a TokenRequest without status")?.token)
}

/// Lets everybody read the discovery document and the keys of ServiceAccount tokens, as a registry must.
pub(super) async fn open_issuer_discovery(client: &Client) -> Result<()> {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": "issuer-discovery-for-everybody" },
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": "system:service-account-issuer-discovery",
        },
        "subjects": [{
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Group",
            "name": "system:unauthenticated",
        }],
    });
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let name = "issuer-discovery-for-everybody";
    bindings
        .patch(name, &PatchParams::apply("mintmark-hack"), &Patch::Apply(binding))
        .await?;
    Ok(())
}
