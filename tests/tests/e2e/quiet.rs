//! A pass that finds nothing new: one HEAD request to the registry, and nothing at all to the API server.

use anyhow::Result;
use kube::api::ListParams;
use mintmark_hack::registry::{AccessEntry, Artifact, RegistryServer};
use mintmark_tests::{
    env::{AUDIENCE, Env},
    http::until,
};
use serde_json::json;

/// Quiet passes of each object that are looked at.
const PASSES: usize = 6;

fn requests_for(registry: &RegistryServer, from: usize, repository: &str) -> Result<Vec<AccessEntry>> {
    let path = format!("/v2/{repository}/");
    let mut entries = registry.access_log()?.split_off(from);
    entries.retain(|entry| entry.path.starts_with(&path));
    Ok(entries)
}

#[tokio::test]
async fn a_quiet_pass_is_one_head_and_no_request_to_the_api_server() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&["--min-interval=100ms"]).await?;
    let tenant = env.tenant("a").await?;
    env.service_account(&tenant, "puller").await?;
    let registry = env.jwt_registry()?;
    let names = ["open", "jwt", "account"];
    for name in names {
        let artifact = Artifact::from_files(&[("a.yaml", name.as_bytes())])?;
        registry.push(name, "v1", &artifact).await?;
    }
    registry.allow_anonymous("open")?;
    registry.set_readers("jwt", &[&Env::spiffe_id(&tenant, "jwt")])?;
    registry.set_readers("account", &[&format!("system:serviceaccount:{tenant}:puller")])?;
    let credentials = [
        json!({}),
        json!({"credential": "SpiffeJWT", "audiences": [AUDIENCE]}),
        json!({"credential": "ServiceAccountToken", "audiences": [AUDIENCE], "serviceAccountName": "puller"}),
    ];
    for (name, mut spec) in names.into_iter().zip(credentials) {
        spec["url"] = registry.url(name).into();
        spec["insecure"] = true.into();
        spec["interval"] = "200ms".into();
        spec["ref"] = json!({"tag": "v1"});
        env.create(&tenant, name, spec).await?;
    }
    for name in names {
        env.ready(&tenant, name).await?;
        env.event(&tenant, name, "NewArtifact").await?;
    }

    let objects = env.repositories(&tenant).list(&ListParams::default()).await?.items;
    let events = env.events(&tenant).await?;
    let mark = env.mark()?;
    let from = registry.access_log()?.len();
    for name in names {
        let before = env.passes(&tenant, name).await?;
        let seen = requests_for(&registry, from, name)?.len();
        until("the quiet passes", || async {
            Ok(env.passes(&tenant, name).await? >= before + PASSES)
        })
        .await?;
        let requests = requests_for(&registry, from, name)?;
        let made = env.passes(&tenant, name).await? - before;
        // A pass may begin or end between two looks.
        let heads = requests.len() - seen;
        assert!(
            heads + 1 >= PASSES && heads <= made + 1,
            "{heads} requests in {made} passes of {name}"
        );
        for request in &requests {
            assert_eq!((request.method.as_str(), request.status), ("HEAD", 200), "{request:?}");
        }
    }

    let asked = env.requests(mark)?;
    assert!(asked.is_empty(), "quiet passes asked the API server: {asked:#?}");
    assert_eq!(
        env.repositories(&tenant).list(&ListParams::default()).await?.items,
        objects
    );
    assert_eq!(env.events(&tenant).await?, events);
    controller.kill()?;
    Ok(())
}
