//! CNCF distribution behind a token service: each credential that can be exchanged there pulls what the service grants, and
//! goes to no realm that is not meant for it.

use std::sync::Arc;

use anyhow::Result;
use mintmark_hack::{controller::Controller, registry::Artifact};
use mintmark_issuer::{TrustBundle, TrustDomain};
use mintmark_tests::{
    env::{AUDIENCE, Env, TRUST_DOMAIN},
    secure::ServerCa,
    served,
    specs::{REGISTRY_CA, secure_jwt, with},
    token_service::{TokenService, basic},
};
use serde_json::{Value, json};

const USER: &str = "robot";
const PASSWORD: &str = "the right one";
const FAILED: &str = "AuthenticationFailed";

struct Scene {
    env: Env,
    _controller: Controller,
    tenant: String,
    service: TokenService,
}

/// What `public` holds is for everybody, `team/login` for the user, `team/svid` for the object `svid`.
fn may(tenant: &str, subject: Option<&str>, repository: &str) -> bool {
    match repository {
        "public/app" => true,
        "team/login" => subject == Some(USER),
        "team/svid" => subject == Some(&*Env::spiffe_id(tenant, "svid")),
        _ => false,
    }
}

/// The user with the password, or `jwt` with a JWT-SVID of the controller for the registry.
fn who(svids: &TrustBundle, user: &str, password: &str) -> Option<String> {
    match user {
        USER if password == PASSWORD => Some(USER.to_owned()),
        "jwt" => {
            let domain = TrustDomain::parse(TRUST_DOMAIN).ok()?;
            let verified = svids.verify_jwt(password, &domain, Some(AUDIENCE), jiff::Timestamp::now());
            Some(verified.ok()?.subject.as_str().to_owned())
        }
        _ => None,
    }
}

impl Scene {
    async fn new() -> Result<Self> {
        let env = Env::new().await?;
        let controller = env.controller(&[]).await?;
        let tenant = env.tenant("tokens").await?;
        let keys = reqwest::get(format!("{}/keys", env.ports.issuer_url())).await?;
        let svids = Arc::new(TrustBundle::parse(&keys.error_for_status()?.bytes().await?)?);
        let (ca, readers) = (ServerCa::new(&env, &tenant).await?, tenant.clone());
        let service = TokenService::start(
            &ca,
            move |user, password| who(&svids, user, password),
            move |subject, repository| may(&readers, subject, repository),
        )
        .await?;
        let roots = format!("{}{}", ca.pem(), service.registry_ca());
        env.secret(&tenant, REGISTRY_CA, &[("ca.crt", &roots)]).await?;
        for repository in ["public/app", "team/login", "team/svid"] {
            let artifact = Artifact::from_files(&[("name.txt", repository.as_bytes())])?;
            service.push(repository, "v1", &artifact).await?;
        }
        Ok(Self {
            env,
            _controller: controller,
            tenant,
            service,
        })
    }

    /// The spec of an object without a credential, and more.
    fn spec(&self, repository: &str, more: Value) -> Value {
        let bare = json!({"url": self.service.url(repository), "ref": {"tag": "v1"},
            "certSecretRef": {"name": REGISTRY_CA}});
        with(bare, more)
    }

    /// The spec of an object whose JWT names these audiences besides the registry's.
    fn jwt(&self, repository: &str, audiences: &[&str]) -> Value {
        let audiences = [&[AUDIENCE], audiences].concat();
        with(
            secure_jwt(&self.service.url(repository)),
            json!({"audiences": audiences}),
        )
    }

    async fn pulled(&self, name: &str, repository: &str) -> Result<()> {
        let object = self.env.ready(&self.tenant, name).await?;
        let archive = served::fetch(&served::artifact(&object)?).await?;
        assert_eq!(served::files(&archive)?["name.txt"], repository.as_bytes());
        Ok(())
    }
}

#[tokio::test]
async fn a_login_and_nobody_are_exchanged_for_what_they_may_read() -> Result<()> {
    let scene = Scene::new().await?;
    let (env, tenant) = (&scene.env, &scene.tenant);
    let host = scene.service.registry_host();
    for (name, password) in [("right", PASSWORD), ("wrong", "another")] {
        let login = json!({"username": USER, "password": password});
        env.pull_secret(tenant, name, json!({&host: login})).await?;
        let spec = scene.spec("team/login", json!({"secretRef": {"name": name}}));
        env.create(tenant, name, spec).await?;
    }
    env.create(tenant, "nobody", scene.spec("public/app", json!({})))
        .await?;
    env.create(tenant, "uninvited", scene.spec("team/svid", json!({})))
        .await?;
    scene.pulled("right", "team/login").await?;
    scene.pulled("nobody", "public/app").await?;
    let refused = "registry does not accept the login of the pull secret (401)";
    env.failed(tenant, "wrong", FAILED, refused).await?;
    env.failed(tenant, "uninvited", FAILED, "registry requires a credential (401)")
        .await?;
    for repository in ["public/app", "team/svid"] {
        let asked = scene.service.asked_about(repository);
        assert!(!asked.is_empty() && asked.iter().all(|request| request.authorization().is_none()));
    }
    assert_eq!(
        scene.service.asked_about("public/app").len(),
        1,
        "one token for a whole pull"
    );
    Ok(())
}

#[tokio::test]
async fn a_minted_jwt_is_exchanged_at_a_realm_that_an_audience_names() -> Result<()> {
    let scene = Scene::new().await?;
    let (env, tenant) = (&scene.env, &scene.tenant);
    let realm = scene.service.origin();
    env.create(tenant, "svid", scene.jwt("team/svid", &[&realm])).await?;
    env.create(tenant, "stranger", scene.jwt("team/login", &[&realm]))
        .await?;
    env.create(tenant, "unnamed", scene.jwt("public/app", &[])).await?;
    scene.pulled("svid", "team/svid").await?;
    let asked = scene.service.asked_about("team/svid");
    let users: Vec<_> = asked.iter().filter_map(basic).map(|(user, _)| user).collect();
    assert_eq!(users, ["jwt"], "once for a whole pull");
    env.failed(
        tenant,
        "stranger",
        FAILED,
        "registry does not accept the credential (401",
    )
    .await?;
    env.failed(tenant, "unnamed", FAILED, "no audience names it").await?;
    assert!(scene.service.asked_about("public/app").is_empty(), "nothing went there");
    Ok(())
}
