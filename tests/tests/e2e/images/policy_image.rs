//! The image of an ImageRepository is edited: a policy shows tags of the one image under its name, or those of the other
//! under its own, and never one under the name of the other.

use anyhow::Result;
use mintmark_api::{image_policy::ImagePolicy, image_repository::ImageRepository};
use mintmark_tests::{
    env::Env,
    fault_registry::{Artifact, FaultRegistry},
    history::History,
};
use serde_json::json;

#[tokio::test]
async fn no_tag_stands_under_the_name_of_another_image() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&["--min-retry-delay=10m"]).await?;
    let tenant = env.tenant("a").await?;
    let registry = FaultRegistry::start(None).await;
    let artifact = Artifact::flux(&[("a.yaml", "a")]);
    registry.push("one", "1.0.0", &artifact);
    registry.push("two", "2.0.0", &artifact);
    let image = |name: &str| json!({"image": format!("{}/{name}", registry.host()), "insecure": true});
    let repositories = env.objects::<ImageRepository>(&tenant);
    let policies = env.objects::<ImagePolicy>(&tenant);
    repositories.create("app", image("one")).await?;
    repositories.ready("app").await?;
    let mut history = History::of(policies.api(), "app");
    let policy = json!({"imageRepositoryRef": {"name": "app"}, "policy": {"semver": {"range": "*"}}});
    policies.create("app", policy).await?;

    let host = registry.host();
    let shown = |tag: &str, before: &str, message: &str| {
        format!(
            "observed 1, selected {host}/{tag}, before {before}\nReady=True Succeeded @1: Latest image tag for {host}/{message}"
        )
    };
    let one = shown("one:1.0.0", "nothing", "one resolved to 1.0.0");
    history.up_to(&one).await?;

    // The scan of the other image ends well: one step.
    repositories.edit("app", image("two")).await?;
    let previous = format!("{host}/one:1.0.0");
    let two = shown(
        "two:2.0.0",
        &previous,
        &format!("two resolved to 2.0.0 (previously {previous})"),
    );
    assert_eq!(history.up_to(&two).await?, std::slice::from_ref(&two));

    // It fails: there are no tags of that image, and what was selected stays shown as what it is.
    repositories.edit("app", image("three")).await?;
    repositories.failed("app", "ReadOperationFailed", "404").await?;
    let cause = format!("retrying in 30 s: no tags of ImageRepository '{tenant}/app' in database");
    let missing = format!(
        "observed 1, selected {host}/two:2.0.0, before {previous}\n\
         Reconciling=True ProgressingWithRetry @1: reconciliation in progress\n\
         Ready=False DependencyNotReady @1: {cause}"
    );
    assert_eq!(history.up_to(&missing).await?, std::slice::from_ref(&missing));

    registry.push("three", "3.0.0", &artifact);
    repositories.reconcile("app").await?;
    let previous = format!("{host}/two:2.0.0");
    let three = shown(
        "three:3.0.0",
        &previous,
        &format!("three resolved to 3.0.0 (previously {previous})"),
    );
    assert_eq!(history.up_to(&three).await?, [three]);
    Ok(())
}
