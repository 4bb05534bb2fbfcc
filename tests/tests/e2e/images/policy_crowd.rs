//! A thousand policies on one repository: a change of its tags costs one read of them, and reaches every policy; a change that
//! selects the same reaches the API server for none.

use std::time::Duration;

use anyhow::{Context, Result};
use kube::{Api, api::ListParams};
use mintmark_api::{
    image_policy::{self, ImagePolicy},
    image_repository::ImageRepository,
};
use mintmark_tests::{crowd, env::Env, fault_registry::FaultRegistry, http::until_within};
use serde_json::json;

use super::push;

const POLICIES: usize = 1000;

/// How the metric of each policy begins.
const PASSES: &str = "gotk_reconcile_duration_seconds_count{kind=\"ImagePolicy\"";

/// On a machine that has other things to do as well.
const LIMIT: Duration = Duration::from_mins(2);

async fn reads(env: &Env) -> Result<usize> {
    let metrics = env.metrics().await?;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("mintmark_tag_list_reads_total "));
    line.context("the metric")?.parse().context("a number")
}

/// Passes over policies so far.
async fn passes(env: &Env) -> Result<usize> {
    let metrics = env.metrics().await?;
    let counts = metrics.lines().filter(|line| line.starts_with(PASSES));
    let counts = counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok());
    Ok(counts.sum())
}

async fn all_show(env: &Env, namespace: &str, tag: &str) -> Result<()> {
    let api: Api<ImagePolicy> = env.objects(namespace).api();
    until_within(LIMIT, &format!("all policies show {tag}"), async || {
        let policies = api.list(&ListParams::default()).await?;
        let shown = policies.iter().filter(|policy| {
            let latest = policy.status.as_ref().and_then(|status| status.latest_ref.as_ref());
            latest.is_some_and(|latest| latest.tag == tag)
        });
        Ok(shown.count() == POLICIES)
    })
    .await
}

#[tokio::test]
async fn a_thousand_policies_cost_one_read_for_each_change() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    let registry = FaultRegistry::start(None).await;
    push(&registry, &["1.0.0"]);
    let repositories = env.objects::<ImageRepository>(&tenant);
    let spec = json!({"image": format!("{}/app", registry.host()), "insecure": true});
    repositories.create("image", spec).await?;
    repositories.ready("image").await?;
    crowd::each(0..POLICIES, async |number| {
        let spec = json!({"imageRepositoryRef": {"name": "image"}, "policy": {"semver": {"range": "1.x"}}});
        let policies = env.objects::<ImagePolicy>(&tenant);
        policies.create(&format!("policy-{number}"), spec).await.map(drop)
    })
    .await?;
    all_show(&env, &tenant, "1.0.0").await?;
    assert_eq!(reads(&env).await?, 1);

    push(&registry, &["1.1.0"]);
    repositories.reconcile("image").await?;
    all_show(&env, &tenant, "1.1.0").await?;
    assert_eq!(reads(&env).await?, 2);

    // Every policy looks, and none has anything to say.
    let (before, mark) = (passes(&env).await?, env.mark()?);
    push(&registry, &["2.0.0"]);
    repositories.reconcile("image").await?;
    until_within(LIMIT, "every policy has looked", async || {
        Ok(passes(&env).await? >= before + POLICIES)
    })
    .await?;
    assert_eq!(reads(&env).await?, 3);
    let requests = env.requests(mark)?;
    let about_policies = requests.iter().filter(|event| {
        let object = event.object_ref.as_ref();
        object.is_some_and(|object| object.resource == image_policy::PLURAL)
    });
    assert_eq!(about_policies.count(), 0);
    Ok(())
}
