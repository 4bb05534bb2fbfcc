//! The copy of the documents in a `ConfigMap`: made with a right to that one, kept like the documents, never read.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
    runtime::watcher,
};
use mintmark_hack::pki::TestCa;
use mintmark_tests::{
    documents::read_all,
    env::{DEADLINE, Env},
    http::until,
};
use serde_json::json;

const NAME: &str = "mintmark-issuer-documents";

fn config_maps(env: &Env) -> Api<ConfigMap> {
    Api::namespaced(env.client.clone(), &env.installation.namespace)
}

/// Waits on a watch until the copy is as wanted.
async fn copied(env: &Env, wanted: impl Fn(&BTreeMap<String, String>) -> bool) -> Result<BTreeMap<String, String>> {
    let waiting = async {
        let mut objects = std::pin::pin!(watcher::watch_object(config_maps(env), NAME));
        while let Some(object) = objects.next().await {
            if let Ok(Some(ConfigMap { data: Some(data), .. })) = object
                && wanted(&data)
            {
                return Some(data);
            }
        }
        None
    };
    let found = tokio::time::timeout(DEADLINE, waiting).await;
    found.ok().flatten().context("the copy is not as wanted")
}

#[tokio::test]
async fn the_copy_follows_the_documents_and_is_repaired_with_the_next_change() -> Result<()> {
    let env = Env::new().await?;
    env.grant("publish-configmap").await?;
    let flag = format!("--publish-configmap={NAME}");
    // Its readiness is another lease's business.
    let _controller = env.start(&[&flag, "--enable-leader-election"])?;
    let first = copied(&env, |_| true).await?;
    let served = read_all(&reqwest::Client::new(), &env.ports.issuer_url()).await?;
    for (key, index) in [
        ("openid-configuration", 0),
        ("keys.json", 2),
        ("bundle.json", 3),
        ("bundle.pem", 4),
    ] {
        assert_eq!(first[key].as_bytes(), served[index].body, "{key}");
    }
    assert_eq!(first.len(), 4);

    let forged = Patch::Merge(json!({ "data": { "keys.json": "forged" } }));
    config_maps(&env).patch(NAME, &PatchParams::default(), &forged).await?;
    env.sign_with(TestCa::new("the next one")?.key_and_certificate())
        .await?;
    let second = copied(&env, |data| data["bundle.json"] != first["bundle.json"]).await?;
    assert_ne!(second["keys.json"], first["keys.json"]);
    assert!(second["keys.json"].starts_with('{'), "{}", second["keys.json"]);
    Ok(())
}

#[tokio::test]
async fn without_the_right_it_is_told_and_retried() -> Result<()> {
    let env = Env::new().await?;
    let flag = format!("--publish-configmap={NAME}");
    let controller = env.controller(&[&flag]).await?;
    until("the refusal is told", || async {
        Ok(controller.log()?.contains("documents not copied into the ConfigMap"))
    })
    .await?;
    read_all(&reqwest::Client::new(), &env.ports.issuer_url()).await?;
    env.grant("publish-configmap").await?;
    copied(&env, |_| true).await?;
    config_maps(&env).delete(NAME, &DeleteParams::default()).await?;
    Ok(())
}
