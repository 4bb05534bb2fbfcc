//! Tenants can write status. It decides nothing that is pulled or served, and the next pass puts it right.

use anyhow::{Context, Result};
use kube::api::{Patch, PatchParams};
use mintmark_api::oci_repository::OciRepositoryStatus;
use mintmark_hack::{
    controller::Controller,
    registry::{Artifact, RegistryServer},
};
use mintmark_tests::{
    env::{AUDIENCE, Env, condition},
    http::get_verbatim,
    served::{artifact, fetch},
};
use serde_json::json;

/// A victim and a forger, each with an artifact of its own, and a refused object that has none.
struct Scene {
    env: Env,
    controller: Controller,
    victim: String,
    forger: String,
    _registry: RegistryServer,
}

impl Scene {
    async fn new() -> Result<Self> {
        let env = Env::new().await?;
        let controller = env.controller(&[]).await?;
        let (victim, forger) = (env.tenant("victim").await?, env.tenant("forger").await?);
        let registry = env.jwt_registry()?;
        for (tenant, repository) in [(&victim, "secret"), (&forger, "plain")] {
            let content = Artifact::from_files(&[("a.yaml", repository.as_bytes())])?;
            registry.push(repository, "v1", &content).await?;
            registry.set_readers(repository, &[&Env::spiffe_id(tenant, "app")])?;
        }
        let spec = |repository| {
            json!({"url": registry.url(repository), "insecure": true, "ref": {"tag": "v1"},
                "credential": "SpiffeJWT", "audiences": [AUDIENCE]})
        };
        env.create(&victim, "app", spec("secret")).await?;
        env.create(&forger, "app", spec("plain")).await?;
        env.create(&forger, "refused", spec("secret")).await?;
        env.ready(&victim, "app").await?;
        env.ready(&forger, "app").await?;
        env.failed(&forger, "refused", "AuthenticationFailed", "403").await?;
        Ok(Self {
            env,
            controller,
            victim,
            forger,
            _registry: registry,
        })
    }

    /// The status of the victim's object.
    async fn stolen(&self) -> Result<OciRepositoryStatus> {
        let object = self.env.repositories(&self.victim).get("app").await?;
        object.status.context("a status")
    }

    /// Writes a status as a tenant with rights on it can.
    async fn forge(&self, name: &str, status: &OciRepositoryStatus) -> Result<()> {
        let patch = Patch::Merge(json!({"status": status}));
        self.env
            .repositories(&self.forger)
            .patch_status(name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_forged_artifact_changes_nothing_that_is_served_and_is_put_right() -> Result<()> {
    let scene = Scene::new().await?;
    let env = &scene.env;
    let stolen = scene.stolen().await?;
    let secret = stolen.artifact.clone().context("the victim's artifact")?;
    let own = artifact(&env.repositories(&scene.forger).get("app").await?)?;
    let own_bytes = fetch(&own).await?;
    // All of the victim's, and the victim's file below the forger's own path.
    let file = secret.path.rsplit('/').next().context("a file name")?;
    let mut below = stolen.clone();
    if let Some(artifact) = &mut below.artifact {
        artifact.path = format!("ocirepository/{}/app/{file}", scene.forger);
        artifact.url = secret.url.replace(&secret.path, &artifact.path);
        artifact
            .metadata
            .insert("org.example.forged".to_owned(), "1".to_owned());
    }
    for forged in [stolen, below] {
        scene.forge("app", &forged).await?;
        let target = format!(
            "{}/ocirepository/{}/app/{file}",
            scene.controller.ports().storage_url(),
            scene.forger
        );
        assert_eq!(reqwest::get(&target).await?.status(), 404, "before the next pass");
        let after = env.reconcile(&scene.forger, "app").await?;
        assert_eq!(artifact(&after)?, own, "put right");
        let status = after.status.context("a status")?;
        let latest = status.url.context("status.url")?;
        assert_eq!(
            reqwest::get(&latest).await?.error_for_status()?.bytes().await?,
            own_bytes
        );
        let subject = Env::spiffe_id(&scene.forger, "app");
        assert_eq!(status.credential.map(|credential| credential.subject), Some(subject));
        assert_eq!(reqwest::get(&target).await?.status(), 404, "after the next pass");
        assert_eq!(fetch(&own).await?, own_bytes);
    }
    fetch(&secret).await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn a_forged_status_makes_no_refused_object_ready() -> Result<()> {
    let scene = Scene::new().await?;
    let stolen = scene.stolen().await?;
    scene.forge("refused", &stolen).await?;
    let after = scene.env.reconcile(&scene.forger, "refused").await?;
    let ready = condition(&after, "Ready").context("Ready")?;
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "AuthenticationFailed")
    );
    assert!(condition(&after, "ArtifactInStorage").is_none());
    let status = after.status.context("a status")?;
    assert!(status.artifact.is_none() && status.url.is_none(), "{status:?}");
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn paths_out_of_the_own_folder_get_the_404_of_every_miss() -> Result<()> {
    let scene = Scene::new().await?;
    let secret = scene.stolen().await?.artifact.context("the victim's artifact")?;
    let origin = scene.controller.ports().storage_url();
    let (base, path) = (format!("/ocirepository/{}/app", scene.forger), &secret.path);
    let hit = get_verbatim(&origin, &format!("/{path}")).await?;
    assert!(hit.starts_with("HTTP/1.1 200"), "what the paths below aim at is there");
    let miss = get_verbatim(&origin, &format!("{base}/sha256:0.tar.gz")).await?;
    assert!(miss.starts_with("HTTP/1.1 404"), "{miss}");
    let rest = path.strip_prefix("ocirepository/").context("a path of the kind")?;
    let encoded = rest.replace('/', "%2f");
    for target in [
        format!("{base}/../../{rest}"),
        format!("{base}/../../../{path}"),
        format!("{base}/%2e%2e/%2e%2e/{rest}"),
        format!("{base}/..%2f..%2f{encoded}"),
        format!("{base}/%252e%252e/%252e%252e/{rest}"),
        format!("{base}/..\\..\\{}", rest.replace('/', "\\")),
        format!("/./{path}"),
        format!("/ocirepository//{rest}"),
        format!("/{path}/"),
        format!("/{path}%00"),
        format!("/{path}/../latest.tar.gz"),
        format!("{base}/"),
        base.clone(),
        "/ocirepository".to_owned(),
        format!("{base}/.record.json"),
        format!("/ocirepository/{}/app/.record.json", scene.victim),
        "/.staging".to_owned(),
        "/../../../../etc/passwd".to_owned(),
        "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd".to_owned(),
        "//etc/passwd".to_owned(),
    ] {
        let answer = get_verbatim(&origin, &target).await?;
        assert_eq!(answer, miss, "{target}");
    }
    scene.controller.kill()?;
    Ok(())
}
