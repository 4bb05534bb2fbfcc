//! Hundreds of objects of one namespace at a registry that hangs: they take half of its host's permits and no more, so that
//! others at the same host, and everybody at other hosts, are served as if they were alone.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt as _, TryStreamExt as _, future::try_join_all, stream};
use mintmark_tests::{
    env::Env,
    fault_registry::{Artifact, Fault, FaultRegistry, Route},
    specs,
};
use serde_json::json;

const CROWD: usize = 300;
/// `--registry-concurrency` is 16, and half of it is for one namespace.
const HALF: usize = 8;
/// How long a pull beside the crowd may take: far from the minutes that those who hang are given.
const PROMPTLY: Duration = Duration::from_secs(20);
const HANGS: &str = "/v2/crowd/app/manifests/v1";

async fn registry() -> FaultRegistry {
    let registry = FaultRegistry::start(None).await;
    registry.push("team/app", "v1", &Artifact::flux(&[("app.yaml", "a: 1\n")]));
    registry
}

fn hanging(registry: &FaultRegistry) -> usize {
    registry
        .requests()
        .iter()
        .filter(|request| request.path() == HANGS)
        .count()
}

#[tokio::test]
async fn a_crowd_at_a_hanging_registry_delays_nobody_else() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let (crowd, other) = (env.tenant("crowd").await?, env.tenant("other").await?);
    let (hangs, elsewhere) = (registry().await, registry().await);
    hangs.always(Route::Path(HANGS.to_owned()), Fault::Hang);
    let spec = specs::with(specs::jwt(&hangs.url("crowd/app")), json!({"timeout": "5m"}));
    stream::iter(0..CROWD)
        .map(|i| {
            let (env, crowd, spec) = (&env, &crowd, spec.clone());
            async move { env.create(crowd, &format!("crowd-{i}"), spec).await }
        })
        .buffer_unordered(16)
        .try_collect::<Vec<_>>()
        .await?;
    hangs
        .until("the crowd has its half", |requests| requests.len() >= HALF)
        .await;
    let started = Instant::now();
    let beside = (0..10).flat_map(|i| {
        [
            (&other, &hangs, i),
            (&other, &elsewhere, i + 10),
            (&crowd, &elsewhere, i),
        ]
    });
    let pulls = beside.map(|(tenant, registry, i)| {
        let (env, spec) = (&env, specs::jwt(&registry.url("team/app")));
        async move {
            let name = format!("beside-{i}");
            env.create(tenant, &name, spec).await?;
            env.ready(tenant, &name).await
        }
    });
    try_join_all(pulls).await?;
    assert!(started.elapsed() < PROMPTLY, "{:?}", started.elapsed());
    assert_eq!(
        hanging(&hangs),
        HALF,
        "half of the host's permits are in use, the others wait"
    );
    hangs.heal();
    drop(controller);
    Ok(())
}
