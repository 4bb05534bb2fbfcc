//! Each credential lists the tags that its own object may read, and is refused elsewhere: as another object's, by another
//! issuer, under another CA, by a registry that asks for none.

use anyhow::{Context, Result};
use mintmark_api::image_repository::ImageRepository;
use mintmark_hack::{
    pki::TestCa,
    registry::{Artifact, Issuer, RegistryOptions, RegistryServer},
};
use mintmark_tests::{
    env::{AUDIENCE, Env},
    specs,
};
use serde_json::{Value, json};

use super::{result, revision};

const TAGS: [&str; 2] = ["v1", "v2"];

/// Pushes an image whose tags exactly these subjects may list, and returns the repository's URL.
async fn seed(registry: &RegistryServer, repository: &str, readers: &[&str]) -> Result<String> {
    for tag in TAGS {
        let artifact = Artifact::from_files(&[("a.yaml", tag.as_bytes())])?;
        registry.push(repository, tag, &artifact).await?;
    }
    registry.set_readers(repository, readers)?;
    Ok(registry.url(repository))
}

/// The objects of a namespace, each with a credential.
struct Tenant<'a> {
    env: &'a Env,
    namespace: String,
}

impl Tenant<'_> {
    async fn create(&self, name: &str, spec: Value) -> Result<()> {
        let objects = self.env.objects::<ImageRepository>(&self.namespace);
        objects.create(name, specs::image(spec)).await?;
        Ok(())
    }

    /// Waits until the object lists the tags as `subject`.
    async fn lists(&self, name: &str, kind: &str, subject: &str) -> Result<()> {
        let objects = self.env.objects::<ImageRepository>(&self.namespace);
        let object = objects.ready(name).await?;
        assert_eq!(result(&object)?.revision, revision(&TAGS));
        let credential = object.status.context("a status")?.credential.context("a credential")?;
        assert_eq!(
            (credential.kind.to_string(), &*credential.subject),
            (kind.to_owned(), subject)
        );
        assert!(credential.key_id.is_some(), "{credential:?}");
        Ok(())
    }

    /// Waits until the object is refused with this text; then it has no tags, and a Warning event says the same.
    async fn refused(&self, name: &str, text: &str) -> Result<()> {
        let objects = self.env.objects::<ImageRepository>(&self.namespace);
        let object = objects.failed(name, "AuthenticationFailed", text).await?;
        assert!(result(&object).is_err(), "{name} got tags");
        let event = self
            .env
            .event_saying(&self.namespace, name, "AuthenticationFailed", text)
            .await?;
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        Ok(())
    }
}

#[tokio::test]
async fn each_credential_lists_its_own_image_and_no_other() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let (bearer, mtls) = (env.jwt_registry()?, env.mtls_registry(env.ca.pem())?);
    let mut tenants = Vec::new();
    for name in ["a", "b"] {
        let namespace = env.tenant(name).await?;
        env.service_account(&namespace, "puller").await?;
        env.secret(&namespace, specs::REGISTRY_CA, &[("ca.crt", mtls.ca_pem())])
            .await?;
        tenants.push(Tenant { env: &env, namespace });
    }
    let own = &tenants[0].namespace;
    let subject = |name: &str| env.objects::<ImageRepository>(own).spiffe_id(name);
    assert_eq!(
        subject("jwt"),
        format!("spiffe://cluster.example/imagerepositories/{own}/jwt")
    );
    let account = format!("system:serviceaccount:{own}:puller");
    let jwt = seed(&bearer, "team/jwt", &[&subject("jwt")]).await?;
    let token = seed(&bearer, "team/account", &[&account]).await?;
    let certificate = seed(&mtls, "team/cert", &[&subject("cert")]).await?;
    for tenant in &tenants {
        tenant.create("jwt", specs::jwt(&jwt)).await?;
        tenant.create("account", specs::account(&token)).await?;
        tenant.create("cert", specs::certificate(&certificate)).await?;
    }
    for (name, kind, subject) in [
        ("jwt", "SpiffeJWT", subject("jwt")),
        ("account", "ServiceAccountToken", account),
        ("cert", "SpiffeCertificate", subject("cert")),
    ] {
        tenants[0].lists(name, kind, &subject).await?;
        tenants[1]
            .refused(name, "authenticated but not authorised (403)")
            .await?;
    }

    // An OCIRepository of the same name is somebody else.
    env.create(own, "jwt", specs::jwt(&jwt)).await?;
    env.failed(
        own,
        "jwt",
        "AuthenticationFailed",
        "authenticated but not authorised (403)",
    )
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_credential_is_refused_where_nobody_trusts_it() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let namespace = env.tenant("a").await?;
    env.service_account(&namespace, "puller").await?;
    let tenant = Tenant { env: &env, namespace };
    let bearer = RegistryServer::start(RegistryOptions {
        issuers: vec![Issuer::new("http://127.0.0.1:9", &[AUDIENCE])],
        ..RegistryOptions::default()
    })?;
    let mtls = env.mtls_registry(TestCa::new("somebody else's CA")?.pem())?;
    env.secret(&tenant.namespace, specs::REGISTRY_CA, &[("ca.crt", mtls.ca_pem())])
        .await?;
    let url = seed(&bearer, "team/app", &[]).await?;
    tenant.create("jwt", specs::jwt(&url)).await?;
    tenant.create("account", specs::account(&url)).await?;
    tenant
        .create("cert", specs::certificate(&seed(&mtls, "team/app", &[]).await?))
        .await?;
    for name in ["jwt", "account"] {
        tenant
            .refused(name, "registry does not accept the credential (401")
            .await?;
    }
    let text = "registry does not accept the client certificate issued by 'mintmark test CA'";
    tenant.refused("cert", text).await
}

#[tokio::test]
async fn nothing_is_listed_anonymously_in_place_of_a_credential() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let tenant = Tenant {
        env: &env,
        namespace: env.tenant("a").await?,
    };
    let registry = RegistryServer::start(RegistryOptions {
        tls: true,
        ..RegistryOptions::default()
    })?;
    let url = seed(&registry, "team/app", &[]).await?;
    registry.allow_anonymous("team/app")?;
    env.secret(&tenant.namespace, specs::REGISTRY_CA, &[("ca.crt", registry.ca_pem())])
        .await?;
    tenant.create("cert", specs::certificate(&url)).await?;
    tenant
        .refused("cert", "registry did not ask for a client certificate")
        .await?;
    assert!(registry.access_log()?.iter().all(|entry| entry.kind != "anonymous"));

    let open = json!({"url": url, "certSecretRef": {"name": specs::REGISTRY_CA}});
    tenant.create("open", open).await?;
    let objects = env.objects::<ImageRepository>(&tenant.namespace);
    let object = objects.ready("open").await?;
    assert!(object.status.is_some_and(|status| status.credential.is_none()));
    Ok(())
}
