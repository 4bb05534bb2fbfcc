//! The API server is away for a while, and this process is the only one: pulls go on with what was read before, and their
//! outcome is written as soon as it is back, not with the next interval.

use anyhow::{Context, Result};
use kube::api::{Patch, PatchParams};
use mintmark_hack::cluster::{Cluster, ClusterOptions};
use mintmark_tests::{
    env::Env,
    fault_registry::{Artifact, ClientAuth, Fault, FaultRegistry, Recorded, Route, Verdict},
    http::until,
    secure::ServerCa,
    served::{artifact, fetch, files},
    specs,
};
use serde_json::json;

/// An object `login` that logs in with what its account refers to.
async fn log_in_often(env: &Env, tenant: &str, registry: &FaultRegistry) -> Result<()> {
    registry.push("login", "v1", &Artifact::flux(&[("a.yaml", "1")]));
    registry.set_gate(|request| {
        if request.path().starts_with("/v2/login/") && request.authorization() != Some("Basic dTpw") {
            Verdict::Challenge(vec!["Basic realm=\"r\"".to_owned()])
        } else {
            Verdict::Allow
        }
    });
    let auths = json!({registry.host(): {"username": "u", "password": "p"}});
    env.pull_secret(tenant, "pull", auths).await?;
    env.service_account(tenant, "puller").await?;
    let patch = json!({"imagePullSecrets": [{"name": "pull"}]});
    env.accounts(tenant)
        .patch("puller", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    let spec = json!({"url": registry.url("login"), "ref": {"tag": "v1"}, "interval": "1s",
        "serviceAccountName": "puller", "certSecretRef": {"name": specs::REGISTRY_CA}});
    env.create(tenant, "login", spec).await?;
    env.ready(tenant, "login").await?;
    Ok(())
}

#[tokio::test]
async fn an_outage_defers_only_what_is_written() -> Result<()> {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(ClusterOptions::default()).await?));
    let env = Env::in_cluster(cluster).await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    let registry = ServerCa::new(&env, &tenant).await?.registry(ClientAuth::None).await;
    for name in ["often", "rarely"] {
        registry.push(name, "v1", &Artifact::flux(&[("a.yaml", "1")]));
    }
    let mut spec = specs::secure_jwt(&registry.url("often"));
    spec["interval"] = "1s".into();
    env.create(&tenant, "often", spec).await?;
    let before = artifact(&env.ready(&tenant, "often").await?)?;
    log_in_often(&env, &tenant, &registry).await?;
    env.event(&tenant, "often", "NewArtifact").await?;

    // The only pass over this one within an hour begins before the outage and ends in it.
    registry.once(
        Route::Path("/v2/rarely/manifests/v1".to_owned()),
        Fault::retry_after(503, "6"),
    );
    env.create(&tenant, "rarely", specs::secure_jwt(&registry.url("rarely")))
        .await?;
    registry
        .until("the first try", |requests| {
            requests.iter().any(|request| request.path().starts_with("/v2/rarely/"))
        })
        .await;
    tokio::task::spawn_blocking(|| cluster.stop_api_server()).await??;
    registry
        .until("the pull in the outage", |requests| {
            requests
                .iter()
                .any(|request| request.path().starts_with("/v2/rarely/blobs/"))
        })
        .await;
    registry.push("often", "v1", &Artifact::flux(&[("a.yaml", "2")]));
    let folder = before.path.rsplit_once('/').context("a folder")?.0;
    let latest = format!("{}/{folder}/latest.tar.gz", controller.ports().storage_url());
    until("the new content is served", || async {
        let served = reqwest::get(&latest).await?.error_for_status()?.bytes().await?;
        Ok(files(&served)?["a.yaml"] == b"2")
    })
    .await?;
    for repository in ["often", "login"] {
        let pulls = |requests: &[Recorded]| {
            let path = format!("/v2/{repository}/");
            requests
                .iter()
                .filter(|request| request.path().starts_with(&path))
                .count()
        };
        let seen = pulls(&registry.requests());
        registry
            .until("pulls go on at their interval", |requests| pulls(requests) >= seen + 5)
            .await;
    }

    cluster.start_api_server().await?;
    fetch(&artifact(&env.ready(&tenant, "rarely").await?)?).await?;
    env.event(&tenant, "rarely", "NewArtifact").await?;
    let object = env
        .wait(&tenant, "often", "the status of what was pulled meanwhile", |object| {
            artifact(object).is_ok_and(|artifact| artifact.revision != before.revision)
        })
        .await?;
    fetch(&artifact(&object)?).await?;
    until("the new artifact is announced", || async {
        Ok(env.told(&tenant, "often", "NewArtifact").await? == 2)
    })
    .await?;
    assert!(controller.ended()?.is_none(), "no restart");
    Ok(())
}
