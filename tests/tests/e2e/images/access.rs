//! How a registry is reached, by what Secrets say: logins, CAs, proxies. A change of them is another look at the tags.

use anyhow::Result;
use mintmark_api::image_repository::ImageRepository;
use mintmark_hack::{
    controller::Controller,
    registry::{ADMIN, Accept, Artifact, RegistryOptions, RegistryServer},
};
use mintmark_tests::{
    env::{Env, condition},
    fault_registry::FaultRegistry,
    http::until,
    objects::Objects,
    specs::{REGISTRY_CA, image_name},
};
use serde_json::{Value, json};

use super::{push, result};

/// Stands in every password that is wrong: it must be nowhere in what the controller writes.
const PLANTED: &str = "planted-password";

/// A registry over TLS that knows one user, and an image with one tag.
struct Scene {
    env: Env,
    controller: Controller,
    tenant: String,
    registry: RegistryServer,
}

impl Scene {
    async fn new(env: Env) -> Result<Self> {
        let controller = env.controller(&[]).await?;
        let tenant = env.tenant("a").await?;
        let registry = RegistryServer::start(RegistryOptions {
            tls: true,
            accept: vec![Accept::Basic],
            ..RegistryOptions::default()
        })?;
        let artifact = Artifact::from_files(&[("a.yaml", b"a: 1\n")])?;
        registry.push("team/app", "v1", &artifact).await?;
        registry.set_readers("team/app", &[ADMIN])?;
        env.secret(&tenant, REGISTRY_CA, &[("ca.crt", registry.ca_pem())])
            .await?;
        Ok(Self {
            env,
            controller,
            tenant,
            registry,
        })
    }

    fn objects(&self) -> Objects<'_, ImageRepository> {
        self.env.objects(&self.tenant)
    }

    async fn login(&self, name: &str, password: &str) -> Result<()> {
        let auths = json!({self.registry.address(): {"username": ADMIN, "password": password}});
        self.env.pull_secret(&self.tenant, name, auths).await
    }

    async fn create(&self, name: &str, mut more: Value) -> Result<()> {
        more["image"] = image_name(&self.registry.url("team/app")).into();
        self.objects().create(name, more).await?;
        Ok(())
    }

    async fn lists(&self, name: &str) -> Result<()> {
        assert_eq!(result(&self.objects().ready(name).await?)?.tag_count, 1);
        Ok(())
    }

    async fn failed(&self, name: &str, text: &str) -> Result<()> {
        let object = self.objects().failed(name, "AuthenticationFailed", text).await?;
        assert!(result(&object).is_err(), "{name} got tags");
        Ok(())
    }
}

#[tokio::test]
async fn logins_and_cas() -> Result<()> {
    let scene = Scene::new(Env::new().await?).await?;
    scene.login("right", scene.registry.admin_password()).await?;
    scene.login("wrong", PLANTED).await?;
    let ca = json!({"name": REGISTRY_CA});
    scene
        .create("right", json!({"secretRef": {"name": "right"}, "certSecretRef": ca}))
        .await?;
    scene
        .create("wrong", json!({"secretRef": {"name": "wrong"}, "certSecretRef": ca}))
        .await?;
    scene
        .create(
            "missing",
            json!({"secretRef": {"name": "missing"}, "certSecretRef": ca}),
        )
        .await?;
    scene.create("nobody", json!({"certSecretRef": ca})).await?;
    scene
        .create("untrusting", json!({"secretRef": {"name": "right"}}))
        .await?;
    scene.lists("right").await?;
    scene
        .failed("wrong", "registry does not accept the login of the pull secret (401)")
        .await?;
    scene.failed("missing", "/missing' not found").await?;
    scene
        .failed(
            "nobody",
            "registry requires a credential (401) and the object names none",
        )
        .await?;
    let objects = scene.objects();
    let untrusting = objects.failed("untrusting", "ReadOperationFailed", "certificate");
    assert!(condition(&untrusting.await?, "Reconciling").is_some());
    let passwords = [PLANTED, scene.registry.admin_password()];
    scene
        .env
        .never_written(&scene.controller, &scene.tenant, &passwords)
        .await
}

#[tokio::test]
async fn a_proxy() -> Result<()> {
    let scene = Scene::new(Env::new().await?).await?;
    let proxy = FaultRegistry::start(None).await;
    push(&proxy, &["1", "2", "3"]);
    let data = [
        ("address", &*format!("http://{}", proxy.host())),
        ("username", "robot"),
        ("password", PLANTED),
    ];
    scene.env.secret(&scene.tenant, "proxy", &data).await?;
    let spec = json!({"image": "registry.behind.example/app", "insecure": true, "proxySecretRef": {"name": "proxy"}});
    scene.objects().create("app", spec).await?;
    assert_eq!(result(&scene.objects().ready("app").await?)?.tag_count, 3);
    for request in proxy.requests() {
        assert_eq!(request.header("host"), Some("registry.behind.example"));
        let login = request.header("proxy-authorization");
        assert!(login.is_some_and(|value| value.starts_with("Basic ")));
    }
    let written = scene.env.never_written(&scene.controller, &scene.tenant, &[PLANTED]);
    written.await
}

/// Where a watch tells of Secrets, another version of one is a scan at once, and its loss a failure that keeps the tags.
#[tokio::test]
async fn another_login_is_another_look() -> Result<()> {
    let env = Env::new().await?;
    env.grant("referents").await?;
    let scene = Scene::new(env).await?;
    until("what is referred to is watched", || async {
        Ok(scene.env.metrics().await?.contains("mintmark_referents_watched 1"))
    })
    .await?;
    scene.login("login", scene.registry.admin_password()).await?;
    scene
        .create(
            "app",
            json!({"secretRef": {"name": "login"}, "certSecretRef": {"name": REGISTRY_CA}}),
        )
        .await?;
    scene.lists("app").await?;
    let objects = scene.objects();
    let secrets = scene.env.secrets(&scene.tenant);
    secrets.delete("login", &kube::api::DeleteParams::default()).await?;
    let object = objects
        .failed("app", "AuthenticationFailed", "/login' not found")
        .await?;
    assert_eq!(result(&object)?.tag_count, 1);
    scene.login("login", PLANTED).await?;
    let text = "registry does not accept the login of the pull secret (401)";
    let object = objects.failed("app", "AuthenticationFailed", text).await?;
    assert_eq!(result(&object)?.tag_count, 1);
    secrets.delete("login", &kube::api::DeleteParams::default()).await?;
    scene.login("login", scene.registry.admin_password()).await?;
    scene.lists("app").await
}
