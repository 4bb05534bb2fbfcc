//! Policies that refer to a repository of another namespace: whom the repository lets in, by labels that may change at any
//! time, and whose identity is used.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use mintmark_api::{image_policy::ImagePolicy, image_repository::ImageRepository};
use mintmark_hack::registry::Artifact;
use mintmark_tests::{
    env::{AUDIENCE, Env, condition},
    fault_registry::FaultRegistry,
    http::until,
    objects::Objects,
};
use serde_json::{Value, json};

use super::push;

/// A repository in one namespace, and a policy in another.
struct Scene {
    env: Env,
    registry: FaultRegistry,
    /// Where the repository is.
    images: String,
    /// Where the policy is.
    apps: String,
}

impl Scene {
    async fn new() -> Result<Self> {
        let env = Env::new().await?;
        let registry = FaultRegistry::start(None).await;
        push(&registry, &["1.0.0"]);
        let (images, apps) = (env.tenant("images").await?, env.tenant("apps").await?);
        Ok(Self {
            env,
            registry,
            images,
            apps,
        })
    }

    fn repositories(&self) -> Objects<'_, ImageRepository> {
        self.env.objects(&self.images)
    }

    fn policies(&self) -> Objects<'_, ImagePolicy> {
        self.env.objects(&self.apps)
    }

    /// Creates the repository with `more` in its spec and waits for its scan.
    async fn repository(&self, more: Value) -> Result<()> {
        let mut spec = json!({"image": format!("{}/app", self.registry.host()), "insecure": true});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        self.repositories().create("image", spec).await?;
        self.repositories().ready("image").await.map(drop)
    }

    async fn policy(&self, repository: &str) -> Result<()> {
        let spec = json!({"imageRepositoryRef": {"name": repository, "namespace": self.images},
            "policy": {"semver": {"range": "*"}}});
        self.policies().create(repository, spec).await.map(drop)
    }

    /// Sets or removes the label `team` of the policy's namespace.
    async fn label(&self, team: Option<&str>) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.env.client.clone());
        let patch = json!({"metadata": {"labels": {"team": team}}});
        namespaces
            .patch(&self.apps, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// Waits until the policy is denied, and returns the message.
    async fn denied(&self, name: &str) -> Result<String> {
        let policy = self.policies().failed(name, "AccessDenied", "").await?;
        assert!(condition(&policy, "Stalled").is_none(), "it heals by itself");
        Ok(condition(&policy, "Ready").context("Ready")?.message.clone())
    }

    /// Waits until the policy shows this tag and is Ready.
    async fn selected(&self, tag: &str) -> Result<()> {
        let wanted = |policy: &ImagePolicy| {
            let latest = policy.status.as_ref().and_then(|status| status.latest_ref.as_ref());
            latest.is_some_and(|latest| latest.tag == tag)
                && condition(policy, "Ready").is_some_and(|ready| ready.status == "True")
        };
        self.policies().wait("image", tag, wanted).await.map(drop)
    }
}

fn from_team(team: &str) -> Value {
    json!({"accessFrom": {"namespaceSelectors": [{"matchLabels": {"team": team}}]}})
}

#[tokio::test]
async fn access_is_granted_and_withdrawn_while_everything_runs() -> Result<()> {
    let scene = Scene::new().await?;
    // Nothing here waits for a retry.
    let _controller = scene.env.controller(&["--requeue-dependency=1h"]).await?;
    scene.repository(json!({})).await?;
    scene.policy("image").await?;
    let denied = scene.denied("image").await?;

    // What does not exist reads the same.
    scene.policy("nothing").await?;
    assert_eq!(scene.denied("nothing").await?.replace("nothing", "image"), denied);

    // The repository lets a team in, then the namespace becomes that team's.
    scene.repositories().edit("image", from_team("x")).await?;
    scene.repositories().ready("image").await?;
    assert_eq!(scene.denied("image").await?, denied);
    scene.label(Some("x")).await?;
    scene.selected("1.0.0").await?;

    // It is withdrawn: what was selected stays, and is not refreshed.
    scene.label(None).await?;
    assert_eq!(scene.denied("image").await?, denied);
    push(&scene.registry, &["1.1.0"]);
    scene.repositories().reconcile("image").await?;
    let policy = scene.policies().reconcile("image").await?;
    let latest = policy
        .status
        .and_then(|status| status.latest_ref)
        .context("a reference")?;
    assert_eq!(latest.tag, "1.0.0");

    scene.label(Some("x")).await?;
    scene.selected("1.1.0").await?;
    scene.repositories().edit("image", from_team("y")).await?;
    assert_eq!(scene.denied("image").await?, denied);
    scene
        .repositories()
        .edit("image", json!({"accessFrom": {"namespaceSelectors": [{}]}}))
        .await?;
    scene.selected("1.1.0").await
}

/// Access is asked for before the registry is, in every pass.
#[tokio::test]
async fn whoever_is_not_let_in_any_more_looks_no_digest_up() -> Result<()> {
    let scene = Scene::new().await?;
    let _controller = scene.env.controller(&["--requeue-dependency=1s"]).await?;
    scene.label(Some("x")).await?;
    scene.repository(from_team("x")).await?;
    let spec = json!({"imageRepositoryRef": {"name": "image", "namespace": scene.images},
        "policy": {"semver": {"range": "*"}}, "digestReflectionPolicy": "Always", "interval": "1s"});
    scene.policies().create("image", spec).await?;
    scene.selected("1.0.0").await?;
    let looks = || {
        let requests = scene.registry.requests();
        let looks = requests
            .iter()
            .filter(|request| request.path().ends_with("/manifests/1.0.0"));
        looks.count()
    };
    let first = looks();
    until("it looks again and again", || async { Ok(looks() >= first + 2) }).await?;

    scene.label(None).await?;
    scene.denied("image").await?;
    let (last, passes) = (looks(), scene.policies().passes("image").await?);
    until("three more passes", || async {
        Ok(scene.policies().passes("image").await? >= passes + 3)
    })
    .await?;
    assert_eq!(looks(), last);
    // That it is not let in is told when it begins.
    scene.label(Some("x")).await?;
    scene.selected("1.0.0").await?;
    scene.env.repeated_event(&scene.apps, "image", "Succeeded", 2).await?;
    assert_eq!(scene.env.told(&scene.apps, "image", "AccessDenied").await?, 1);
    Ok(())
}

#[tokio::test]
async fn references_to_other_namespaces_can_be_forbidden() -> Result<()> {
    let scene = Scene::new().await?;
    let _controller = scene.env.controller(&["--no-cross-namespace-refs"]).await?;
    scene
        .repository(json!({"accessFrom": {"namespaceSelectors": [{}]}}))
        .await?;
    scene.policy("image").await?;
    let message = scene.denied("image").await?;
    assert!(
        message.contains("cross-namespace references have been blocked"),
        "{message}"
    );
    let own = json!({"imageRepositoryRef": {"name": "image", "namespace": scene.images},
        "policy": {"semver": {"range": "*"}}});
    let neighbours = scene.env.objects::<ImagePolicy>(&scene.images);
    neighbours.create("own", own).await?;
    neighbours.ready("own").await.map(drop)
}

#[tokio::test]
async fn the_identity_is_the_repositorys_and_lent_only_where_that_is_allowed() -> Result<()> {
    let scene = Scene::new().await?;
    let registry = scene.env.jwt_registry()?;
    let artifact = Artifact::from_files(&[("a.yaml", b"1".as_slice())])?;
    let digest = registry.push("app", "1.0.0", &artifact).await?.digest;
    let identity = scene.repositories().spiffe_id("image");
    registry.set_readers("app", &[&identity])?;
    let image = registry.url("app").replace("oci://", "");
    let controller = scene.env.controller(&[]).await?;
    scene
        .repository(
            json!({"image": image, "credential": "SpiffeJWT", "audiences": [AUDIENCE],
            "accessFrom": {"namespaceSelectors": [{}]}}),
        )
        .await?;
    let reference = json!({"name": "image", "namespace": scene.images});
    let spec = json!({"imageRepositoryRef": reference, "policy": {"semver": {"range": "*"}},
        "digestReflectionPolicy": "IfNotPresent"});
    let neighbours = scene.env.objects::<ImagePolicy>(&scene.images);
    neighbours.create("image", spec.clone()).await?;
    scene.policies().create("image", spec).await?;
    neighbours.ready("image").await?;
    let message = scene.denied("image").await?;
    assert!(message.contains("--allow-cross-namespace-credentials"), "{message}");

    assert!(controller.stop()?.success());
    let _controller = scene.env.controller(&["--allow-cross-namespace-credentials"]).await?;
    let policy = scene.policies().ready("image").await?;
    let latest = policy
        .status
        .and_then(|status| status.latest_ref)
        .context("a reference")?;
    assert_eq!(latest.digest, digest);
    let log = registry.access_log()?;
    let served = log.iter().filter(|entry| entry.status == 200);
    let subjects: BTreeSet<_> = served.map(|entry| entry.subject.as_str()).collect();
    assert_eq!(subjects, BTreeSet::from([identity.as_str()]));
    let looks = log
        .iter()
        .filter(|entry| entry.path.ends_with("/manifests/1.0.0") && entry.status == 200);
    assert_eq!(looks.count(), 2, "once for each policy");
    Ok(())
}
