//! Pull secrets on the real registry, which knows one user: by basic authentication and by its token endpoint, from
//! `secretRef` and from an account's imagePullSecrets, right, wrong and missing. Passwords are nowhere to be read.

use anyhow::{Context, Result};
use kube::api::{Patch, PatchParams};
use mintmark_hack::{
    controller::Controller,
    registry::{ADMIN, Accept, Artifact, RegistryOptions, RegistryServer, TokenEndpoint},
};
use mintmark_tests::{env::Env, served, specs};
use serde_json::{Value, json};

/// Stands in every password that is wrong: it must be nowhere in what the controller writes.
const PLANTED: &str = "planted-password";

struct Scene {
    env: Env,
    controller: Controller,
    tenant: String,
    registry: RegistryServer,
}

impl Scene {
    /// A registry that takes logins itself (`accept` Basic) or at its token endpoint.
    async fn new(accept: Accept, own_origin: bool) -> Result<Self> {
        let env = Env::new().await?;
        let controller = env.controller(&[]).await?;
        let tenant = env.tenant("pull").await?;
        let registry = RegistryServer::start(RegistryOptions {
            tls: true,
            accept: vec![accept],
            token: TokenEndpoint {
                own_origin,
                ..TokenEndpoint::default()
            },
            ..RegistryOptions::default()
        })?;
        let artifact = Artifact::from_files(&[("a.yaml", b"a: 1\n")])?;
        registry.push("team/app", "v1", &artifact).await?;
        // Whom an exchanged token speaks for is a reader like others.
        registry.set_readers("team/app", &[ADMIN])?;
        env.secret(&tenant, "registry-ca", &[("ca.crt", registry.ca_pem())])
            .await?;
        Ok(Self {
            env,
            controller,
            tenant,
            registry,
        })
    }

    fn right(&self) -> Value {
        json!({"username": ADMIN, "password": self.registry.admin_password()})
    }

    async fn pull_secret(&self, name: &str, auths: Value) -> Result<()> {
        self.env.pull_secret(&self.tenant, name, auths).await
    }

    async fn account(&self, name: &str, secrets: &[&str]) -> Result<()> {
        self.env.service_account(&self.tenant, name).await?;
        let references: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
        let patch = json!({"imagePullSecrets": references});
        let api = self.env.accounts(&self.tenant);
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    async fn create(&self, name: &str, more: Value) -> Result<()> {
        let spec = specs::with(
            json!({"url": self.registry.url("team/app"), "ref": {"tag": "v1"},
            "certSecretRef": {"name": "registry-ca"}}),
            more,
        );
        self.env.create(&self.tenant, name, spec).await?;
        Ok(())
    }

    async fn pulled(&self, name: &str) -> Result<()> {
        let object = self.env.ready(&self.tenant, name).await?;
        let archive = served::fetch(&served::artifact(&object)?).await?;
        assert!(served::files(&archive)?.contains_key("a.yaml"));
        Ok(())
    }

    async fn failed(&self, name: &str, text: &str) -> Result<()> {
        let object = self
            .env
            .failed(&self.tenant, name, "AuthenticationFailed", text)
            .await?;
        let status = object.status.context("a status")?;
        assert!(status.artifact.is_none(), "{name} got an artifact");
        Ok(())
    }

    /// No password in logs, metrics, Events and status.
    async fn no_password_was_written(&self) -> Result<()> {
        let passwords = [PLANTED, self.registry.admin_password()];
        self.env.never_written(&self.controller, &self.tenant, &passwords).await
    }

    /// `kind subject` of all requests of the repository that were answered.
    fn answered(&self) -> Result<Vec<String>> {
        let log = self.registry.access_log()?.into_iter();
        let pulls = log.filter(|entry| entry.status < 300 && entry.method != "POST" && entry.method != "PUT");
        let pulls = pulls.filter(|entry| entry.user_agent.starts_with("mintmark/"));
        Ok(pulls.map(|entry| format!("{} {}", entry.kind, entry.subject)).collect())
    }
}

#[tokio::test]
async fn a_registry_with_basic_authentication() -> Result<()> {
    let scene = Scene::new(Accept::Basic, false).await?;
    let host = scene.registry.address().to_owned();
    let wrong = json!({"username": ADMIN, "password": PLANTED});
    scene.pull_secret("right", json!({&host: scene.right()})).await?;
    scene.pull_secret("wrong", json!({&host: wrong})).await?;
    scene
        .pull_secret("elsewhere", json!({"other.example": scene.right()}))
        .await?;
    scene
        .pull_secret(
            "both",
            json!({&host: wrong, format!("https://{host}/v2/team"): scene.right()}),
        )
        .await?;
    scene
        .env
        .secret(&scene.tenant, "opaque", &[(".dockerconfigjson", "{}")])
        .await?;
    for name in ["right", "wrong", "elsewhere", "both", "opaque", "missing"] {
        scene.create(name, json!({"secretRef": {"name": name}})).await?;
    }
    scene.pulled("right").await?;
    scene.pulled("both").await?;
    scene
        .failed("wrong", "registry does not accept the login of the pull secret (401)")
        .await?;
    let no_login =
        format!("failed to get credential: Secret 'elsewhere' of spec.secretRef has no login for '{host}/team/app'");
    scene.failed("elsewhere", &no_login).await?;
    scene
        .failed(
            "opaque",
            "Secret 'opaque' of spec.secretRef has type 'Opaque', not kubernetes.io/dockerconfigjson",
        )
        .await?;
    scene.failed("missing", "/missing' not found").await?;
    assert!(
        scene.answered()?.iter().all(|who| who == "basic admin"),
        "{:?}",
        scene.answered()?
    );
    scene.no_password_was_written().await
}

#[tokio::test]
async fn the_pull_secrets_of_an_account() -> Result<()> {
    let scene = Scene::new(Accept::Basic, false).await?;
    let host = scene.registry.address().to_owned();
    scene.pull_secret("right", json!({&host: scene.right()})).await?;
    scene
        .pull_secret(
            "elsewhere",
            json!({"other.example": {"username": "u", "password": PLANTED}}),
        )
        .await?;
    scene.account("puller", &["elsewhere", "right"]).await?;
    scene.account("nobody", &["elsewhere"]).await?;
    scene.account("broken", &["missing"]).await?;
    for name in ["puller", "nobody", "broken", "absent"] {
        scene.create(name, json!({"serviceAccountName": name})).await?;
    }
    scene.pulled("puller").await?;
    scene
        .failed(
            "nobody",
            "registry requires a credential (401) and the object names none",
        )
        .await?;
    scene.failed("broken", "failed to get credential: Secret").await?;
    let absent = format!("failed to get service account '{}/absent': not found", scene.tenant);
    scene.failed("absent", &absent).await?;

    // What everybody may read is pulled anonymously where no entry fits, but not with a secretRef.
    scene.registry.allow_anonymous("team/app")?;
    scene
        .create(
            "strict",
            json!({"secretRef": {"name": "elsewhere"}, "serviceAccountName": "puller"}),
        )
        .await?;
    scene.env.reconcile(&scene.tenant, "nobody").await?;
    scene.pulled("nobody").await?;
    scene.failed("strict", "of spec.secretRef has no login for").await?;
    scene.no_password_was_written().await
}

#[tokio::test]
async fn a_token_endpoint_exchanges_the_login() -> Result<()> {
    for own_origin in [false, true] {
        let scene = Scene::new(Accept::Token, own_origin).await?;
        let host = scene.registry.address().to_owned();
        scene.pull_secret("right", json!({&host: scene.right()})).await?;
        let wrong = json!({"username": ADMIN, "password": PLANTED});
        scene.pull_secret("wrong", json!({&host: wrong})).await?;
        for name in ["right", "wrong"] {
            scene.create(name, json!({"secretRef": {"name": name}})).await?;
        }
        scene.pulled("right").await?;
        scene
            .failed("wrong", "registry does not accept the login of the pull secret (401)")
            .await?;
        let log = scene.registry.access_log()?;
        let login_at_registry = log
            .iter()
            .filter(|entry| entry.path.starts_with("/v2/") && entry.user_agent.starts_with("mintmark/"))
            .any(|entry| entry.kind == "basic");
        assert!(!login_at_registry, "the password went to the registry itself");
        scene.no_password_was_written().await?;
    }
    Ok(())
}

#[tokio::test]
async fn another_login_pulls_again_under_the_same_revision() -> Result<()> {
    let scene = Scene::new(Accept::Basic, false).await?;
    let host = scene.registry.address().to_owned();
    scene.pull_secret("first", json!({&host: scene.right()})).await?;
    scene
        .pull_secret("second", json!({&host: {"username": ADMIN, "password": PLANTED}}))
        .await?;
    scene.create("app", json!({"secretRef": {"name": "first"}})).await?;
    scene.pulled("app").await?;
    let patch = json!({"spec": {"secretRef": {"name": "second"}}});
    scene.env.patch(&scene.tenant, "app", patch).await?;
    let object = scene
        .env
        .failed(
            &scene.tenant,
            "app",
            "AuthenticationFailed",
            "does not accept the login",
        )
        .await?;
    served::fetch(&served::artifact(&object)?).await?;
    Ok(())
}
