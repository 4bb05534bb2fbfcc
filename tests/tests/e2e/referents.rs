//! What objects refer to, changed under them. With the opt-in rights of `config/referents` it takes effect at once, for
//! thousands of objects without a burst, and a pass that finds nothing new reads nothing; without them each pass reads.
//! Failed passes are retried after an hour here, so that nothing but a watch starts the next.

use std::{collections::BTreeSet, time::Instant};

use anyhow::{Result, ensure};
use k8s_openapi::{
    api::rbac::v1::{Role, RoleBinding},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use mintmark_hack::{
    cluster::AuditMark,
    controller::Controller,
    pki::TestCa,
    registry::{ADMIN, Accept, Artifact, RegistryOptions, RegistryServer},
};
use mintmark_tests::{
    env::{AUDIENCE, Env, condition},
    fault_registry::{self, FaultRegistry},
    http::until,
    specs,
};
use serde_json::{Value, json};

/// What stands in wrong passwords.
const WRONG: &str = "planted-password";
const NO_LOGIN: &str = "does not accept the login";
/// Between the passes that a change asks for.
const SPREAD_MS: u128 = 10;

struct Scene {
    env: Env,
    controller: Controller,
    tenant: String,
    registry: RegistryServer,
}

impl Scene {
    /// A controller with the rights, which watches already.
    async fn watching(flags: &[&str]) -> Result<Self> {
        let env = Env::new().await?;
        env.grant("referents").await?;
        let scene = Self::new(env, flags).await?;
        scene.watches().await?;
        Ok(scene)
    }

    async fn new(env: Env, flags: &[&str]) -> Result<Self> {
        let flags = [&["--min-retry-delay=1h", "--max-retry-delay=1h"], flags].concat();
        let controller = env.controller(&flags).await?;
        let tenant = env.tenant("refers").await?;
        let registry = RegistryServer::start(RegistryOptions {
            tls: true,
            issuers: env.issuers(),
            accept: vec![Accept::Bearer, Accept::Basic],
            ..RegistryOptions::default()
        })?;
        let artifact = Artifact::from_files(&[("a.yaml", b"a: 1\n")])?;
        registry.push("team/app", "v1", &artifact).await?;
        registry.set_readers("team/app", &[ADMIN, &Env::spiffe_id(&tenant, "account")])?;
        env.secret(&tenant, "registry-ca", &[("ca.crt", registry.ca_pem())])
            .await?;
        Ok(Self {
            env,
            controller,
            tenant,
            registry,
        })
    }

    async fn watches(&self) -> Result<()> {
        until("what is referred to is watched", || async {
            Ok(self.env.metrics().await?.contains("mintmark_referents_watched 1"))
        })
        .await
    }

    /// Writes a pull secret for the registry; `more` stands beside its one entry.
    async fn login(&self, name: &str, password: &str, more: Value) -> Result<()> {
        let entry = json!({"username": ADMIN, "password": password});
        let auths = specs::with(json!({self.registry.address(): entry}), more);
        let text = json!({"auths": auths}).to_string();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": text}});
        let (secrets, params) = (self.env.secrets(&self.tenant), PatchParams::apply("test").force());
        secrets.patch(name, &params, &Patch::Apply(secret)).await?;
        Ok(())
    }

    async fn right_login(&self, name: &str) -> Result<()> {
        self.login(name, self.registry.admin_password(), json!({})).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        let secrets = self.env.secrets(&self.tenant);
        secrets.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn account(&self, name: &str, patch: Value) -> Result<()> {
        let accounts = self.env.accounts(&self.tenant);
        accounts
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    async fn create(&self, name: &str, more: Value) -> Result<()> {
        let spec = json!({"url": self.registry.url("team/app"), "ref": {"tag": "v1"},
            "certSecretRef": {"name": "registry-ca"}});
        self.env.create(&self.tenant, name, specs::with(spec, more)).await?;
        Ok(())
    }

    async fn ready(&self, name: &str) -> Result<()> {
        self.env.ready(&self.tenant, name).await?;
        Ok(())
    }

    async fn failed(&self, name: &str, text: &str) -> Result<()> {
        let what = format!("Ready=False …{text}…");
        let is_wanted = |ready: &Condition| ready.status == "False" && ready.message.contains(text);
        let object = self.env.wait(&self.tenant, name, &what, |object| {
            condition(object, "Ready").is_some_and(is_wanted)
        });
        object.await?;
        Ok(())
    }

    /// Waits for so many further passes and returns how many there were.
    async fn passes(&self, name: &str, count: usize) -> Result<usize> {
        let before = self.env.passes(&self.tenant, name).await?;
        until("further passes", || async {
            Ok(self.env.passes(&self.tenant, name).await? >= before + count)
        })
        .await?;
        Ok(self.env.passes(&self.tenant, name).await? - before)
    }

    /// How many passes have begun, over whatever object.
    async fn passes_begun(&self) -> Result<usize> {
        let text = self.env.metrics().await?;
        let mut lines = text.lines();
        let count = lines.find_map(|line| line.strip_prefix("mintmark_queue_latency_seconds_count"));
        let count = count.and_then(|line| line.rsplit(' ').next());
        Ok(count.unwrap_or("0").parse()?)
    }

    fn reads(&self, mark: AuditMark, secret: &str) -> Result<usize> {
        self.env.reads(mark, "secrets", &self.tenant, secret)
    }

    fn lines(&self, text: &str) -> Result<usize> {
        let lines = self.controller.log_lines()?;
        Ok(lines.iter().filter(|line| line.to_string().contains(text)).count())
    }
}

#[tokio::test]
async fn a_pull_secret_takes_effect_at_once() -> Result<()> {
    let scene = Scene::watching(&[]).await?;
    scene.create("app", json!({"secretRef": {"name": "login"}})).await?;
    scene.failed("app", "/login' not found").await?;
    scene.login("login", WRONG, json!({})).await?;
    scene.failed("app", NO_LOGIN).await?;
    scene.right_login("login").await?;
    scene.ready("app").await?;
    scene.login("login", WRONG, json!({})).await?;
    scene.failed("app", NO_LOGIN).await?;
    scene.delete("login").await?;
    scene.failed("app", "/login' not found").await?;
    scene.env.secret(&scene.tenant, "login", &[("password", WRONG)]).await?;
    scene.failed("app", "has type 'Opaque'").await?;
    scene.delete("login").await?;
    scene.right_login("login").await?;
    scene.ready("app").await?;
    scene
        .env
        .never_written(&scene.controller, &scene.tenant, &[WRONG])
        .await
}

#[tokio::test]
async fn a_ca_a_proxy_and_an_account_take_effect_at_once() -> Result<()> {
    let scene = Scene::watching(&[]).await?;
    let (env, tenant) = (&scene.env, &scene.tenant);
    scene.right_login("login").await?;

    let stranger = TestCa::new("another registry's CA")?;
    env.secret(tenant, "ca", &[("ca.crt", stranger.pem())]).await?;
    let more = json!({"secretRef": {"name": "login"}, "certSecretRef": {"name": "ca"}});
    scene.create("trusting", more).await?;
    scene.failed("trusting", "certificate").await?;
    env.secret(tenant, "ca", &[("ca.crt", scene.registry.ca_pem())]).await?;
    scene.ready("trusting").await?;

    let behind = FaultRegistry::start(None).await;
    let artifact = fault_registry::Artifact::flux(&[("a.yaml", "a: 1\n")]);
    behind.push("team/app", "v1", &artifact);
    env.secret(tenant, "proxy", &[("address", "socks5://proxy.example")])
        .await?;
    let spec = json!({"url": "oci://registry.behind.example/team/app", "ref": {"tag": "v1"}, "insecure": true,
        "proxySecretRef": {"name": "proxy"}});
    env.create(tenant, "proxied", spec).await?;
    scene.failed("proxied", "neither http nor https").await?;
    let address = format!("http://{}", behind.host());
    env.secret(tenant, "proxy", &[("address", &address)]).await?;
    scene.ready("proxied").await?;

    scene.create("account", json!({"serviceAccountName": "puller"})).await?;
    scene.failed("account", "/puller': not found").await?;
    env.service_account(tenant, "puller").await?;
    scene.failed("account", "registry requires a credential (401)").await?;
    scene
        .account("puller", json!({"imagePullSecrets": [{"name": "login"}]}))
        .await?;
    scene.ready("account").await?;
    scene.account("puller", json!({"imagePullSecrets": []})).await?;
    scene.failed("account", "registry requires a credential (401)").await?;
    let annotations = json!({"credential.auth.fluxcd.io/provider": "spiffe", "credential.auth.fluxcd.io/type": "jwt",
        "credential.auth.fluxcd.io/audiences": AUDIENCE});
    scene
        .account("puller", json!({"metadata": {"annotations": annotations}}))
        .await?;
    scene.ready("account").await
}

#[tokio::test]
async fn what_stalls_because_of_a_secret_is_healed_by_it() -> Result<()> {
    let scene = Scene::watching(&[]).await?;
    let (env, tenant) = (&scene.env, &scene.tenant);
    let own = TestCa::new("users")?.uri_client("spiffe://users.example/robot")?;
    let data = [
        ("ca.crt", scene.registry.ca_pem()),
        ("tls.crt", own.certificate_pem.as_str()),
        ("tls.key", own.key_pem.as_str()),
    ];
    env.secret(tenant, "mixed", &data).await?;
    scene
        .create(
            "app",
            json!({"credential": "SpiffeCertificate", "certSecretRef": {"name": "mixed"}}),
        )
        .await?;
    let stalled = env
        .failed(tenant, "app", "CredentialInvalid", "only ca.crt is meant there")
        .await?;
    assert!(condition(&stalled, "Stalled").is_some());
    let patch = Patch::Merge(json!({"data": {"tls.crt": null, "tls.key": null}}));
    let secrets = env.secrets(tenant);
    secrets.patch("mixed", &PatchParams::default(), &patch).await?;
    scene
        .failed("app", "registry did not ask for a client certificate")
        .await
}

#[tokio::test]
async fn without_the_rights_each_pass_reads_until_they_are_granted() -> Result<()> {
    let env = Env::new().await?;
    let scene = Scene::new(env, &["--min-interval=100ms"]).await?;
    scene.right_login("login").await?;
    let more = json!({"secretRef": {"name": "login"}, "interval": "200ms"});
    scene.create("app", more).await?;
    scene.ready("app").await?;
    let mark = scene.env.mark()?;
    let passes = scene.passes("app", 6).await?;
    for secret in ["login", "registry-ca"] {
        let reads = scene.reads(mark, secret)?;
        // A pass may begin or end between two looks.
        assert!(
            reads.abs_diff(passes) <= 2,
            "{reads} GETs of {secret} in {passes} passes"
        );
    }

    let refused = |mark| -> Result<usize> {
        let events = scene.env.cluster.audit().events_of(&scene.env.user(), mark)?;
        let asked = events
            .iter()
            .filter(|event| event.verb == "list" && event.code() == 403);
        Ok(asked.count())
    };
    until("the rights are asked for again", || async { Ok(refused(mark)? > 0) }).await?;
    assert_eq!(scene.lines("no rights to watch Secrets")?, 1);
    assert!(scene.env.metrics().await?.contains("mintmark_referents_watched 0"));

    scene.env.grant("referents").await?;
    scene.watches().await?;
    // A pass that began before may read once more.
    scene.passes("app", 2).await?;
    let mark = scene.env.mark()?;
    scene.passes("app", 6).await?;
    let asked = scene.env.requests(mark)?;
    assert!(asked.is_empty(), "quiet passes asked the API server: {asked:#?}");
    assert_eq!(scene.lines("no rights to watch Secrets")?, 1);
    Ok(())
}

#[tokio::test]
async fn a_secret_of_many_is_read_once_and_their_passes_are_spread() -> Result<()> {
    const OBJECTS: usize = 300;
    let scene = Scene::watching(&[]).await?;
    scene.right_login("shared").await?;
    let mark = scene.env.mark()?;
    let names: Vec<_> = (0..OBJECTS).map(|number| format!("app-{number}")).collect();
    for name in &names {
        scene.create(name, json!({"secretRef": {"name": "shared"}})).await?;
    }
    for name in &names {
        scene.ready(name).await?;
    }
    assert_eq!(scene.reads(mark, "shared")?, 1, "all share what the first has read");
    assert_eq!(scene.reads(mark, "registry-ca")?, 1);

    let mark = scene.env.mark()?;
    let before = scene.passes_begun().await?;
    let changed = Instant::now();
    let more = json!({"other.example": {"username": "u"}});
    scene.login("shared", scene.registry.admin_password(), more).await?;
    until("every object has a pass", || async {
        let begun = scene.passes_begun().await? - before;
        let due = changed.elapsed().as_millis() / SPREAD_MS + 1;
        ensure!(begun as u128 <= due, "{begun} passes where {due} were due");
        Ok(begun >= OBJECTS)
    })
    .await?;
    let reads = scene.reads(mark, "shared")?;
    assert_eq!(reads, 1, "{OBJECTS} objects read the new login {reads} times");
    Ok(())
}

#[tokio::test]
async fn no_secret_is_listed_whole() -> Result<()> {
    let mark = Env::new().await?.mark()?;
    let scene = Scene::watching(&[]).await?;
    let events = scene.env.cluster.audit().events_of(&scene.env.user(), mark)?;
    let answers = |of_all: bool| -> BTreeSet<_> {
        let lists = events
            .iter()
            .filter(|event| event.verb == "list" && event.code() == 200);
        let lists = lists.filter(|event| {
            let secrets = event.object_ref.as_ref().filter(|object| object.resource == "secrets");
            secrets.is_some_and(|object| object.namespace.is_empty() == of_all)
        });
        lists.filter_map(|event| event.answer()).collect()
    };
    assert_eq!(answers(true), BTreeSet::from(["PartialObjectMetadataList"]));
    // So it looks where data is asked for: the signing Secret, by name.
    assert!(answers(false).contains("SecretList"));
    Ok(())
}

#[tokio::test]
async fn in_one_namespace_the_rights_there_are_enough() -> Result<()> {
    let env = Env::new().await?;
    let namespace = env.installation.namespace.clone();
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "referents"},
        "rules": [{"apiGroups": [""], "resources": ["secrets", "serviceaccounts"], "verbs": ["list", "watch"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "referents"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "referents"},
        "subjects": [{"kind": "ServiceAccount", "name": "mintmark", "namespace": namespace}]});
    let params = PatchParams::apply("test");
    let roles: Api<Role> = Api::namespaced(env.client.clone(), &namespace);
    roles.patch("referents", &params, &Patch::Apply(role)).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(env.client.clone(), &namespace);
    bindings.patch("referents", &params, &Patch::Apply(binding)).await?;
    Scene::new(env, &["--watch-all-namespaces=false"])
        .await?
        .watches()
        .await
}
