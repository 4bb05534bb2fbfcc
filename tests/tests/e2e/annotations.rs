//! ServiceAccount annotations in place of a credential: a token of the account or of the object, by bearer and by user name,
//! and what cannot be followed. The registry verifies every token.

use anyhow::{Context, Result};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use mintmark_hack::registry::{Accept, Artifact, RegistryOptions, RegistryServer};
use mintmark_tests::{
    env::{AUDIENCE, Env},
    specs,
};
use serde_json::{Value, json};

async fn account(env: &Env, tenant: &str, name: &str, annotations: &[(&str, &str)], more: Value) -> Result<()> {
    env.service_account(tenant, name).await?;
    let annotations: serde_json::Map<_, _> = annotations
        .iter()
        .map(|(name, value)| (format!("credential.auth.fluxcd.io/{name}"), json!(value)))
        .collect();
    let patch = specs::with(json!({"metadata": {"annotations": annotations}}), more);
    let api = env.accounts(tenant);
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}

async fn registry(env: &Env) -> Result<RegistryServer> {
    let registry = RegistryServer::start(RegistryOptions {
        issuers: env.issuers(),
        accept: vec![Accept::Bearer, Accept::Basic],
        ..RegistryOptions::default()
    })?;
    registry
        .push("team/app", "v1", &Artifact::from_files(&[("a.yaml", b"a: 1\n")])?)
        .await?;
    Ok(registry)
}

async fn create(env: &Env, tenant: &str, registry: &RegistryServer, name: &str) -> Result<()> {
    let spec =
        json!({"url": registry.url("team/app"), "insecure": true, "ref": {"tag": "v1"}, "serviceAccountName": name});
    env.create(tenant, name, spec).await?;
    Ok(())
}

#[tokio::test]
async fn annotations_ask_for_tokens() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let tenant = env.tenant("annotated").await?;
    let registry = registry(&env).await?;
    let object = Env::spiffe_id(&tenant, "object");
    let named = Env::spiffe_id(&tenant, "named");
    let own = format!("system:serviceaccount:{tenant}:own");
    registry.set_readers("team/app", &[&object, &named, &own])?;

    let spiffe = [("provider", "spiffe"), ("type", "jwt"), ("audiences", AUDIENCE)];
    let kubernetes = [("provider", "kubernetes"), ("type", "jwt"), ("audiences", AUDIENCE)];
    let with_user = [spiffe.as_slice(), &[("username", "robot")]].concat();
    account(&env, &tenant, "object", &spiffe, json!({})).await?;
    account(&env, &tenant, "named", &with_user, json!({})).await?;
    account(&env, &tenant, "own", &kubernetes, json!({})).await?;
    account(&env, &tenant, "half", &spiffe[..1], json!({})).await?;
    account(
        &env,
        &tenant,
        "both",
        &spiffe,
        json!({"imagePullSecrets": [{"name": "x"}]}),
    )
    .await?;
    account(&env, &tenant, "host", &spiffe[..2], json!({})).await?;
    for name in ["object", "named", "own", "half", "both", "host"] {
        create(&env, &tenant, &registry, name).await?;
    }

    let ready = env.ready(&tenant, "object").await?;
    let credential = ready
        .status
        .and_then(|status| status.credential)
        .map(|credential| credential.subject);
    assert_eq!(credential, Some(object.clone()));
    env.ready(&tenant, "named").await?;
    env.ready(&tenant, "own").await?;
    let invalid = |name: &str, why: &str| format!("failed to validate configuration: service account '{name}': {why}");
    let half = invalid("half", "annotation credential.auth.fluxcd.io/type is missing");
    env.failed(&tenant, "half", "AuthenticationFailed", &half).await?;
    let both = invalid("both", "credential annotations and imagePullSecrets exclude each other");
    env.failed(&tenant, "both", "AuthenticationFailed", &both).await?;
    // Its token is for the host of the registry, which here goes by another name.
    env.failed(
        &tenant,
        "host",
        "AuthenticationFailed",
        "registry does not accept the credential (401",
    )
    .await?;

    let log = registry.access_log()?;
    let kinds = |subject: &str| -> Vec<_> {
        let mut kinds: Vec<_> = log
            .iter()
            .filter(|entry| entry.subject == subject)
            .map(|entry| entry.kind.as_str())
            .collect();
        kinds.dedup();
        kinds
    };
    assert_eq!(
        (kinds(&object), kinds(&named), kinds(&own)),
        (vec!["bearer"], vec!["basic"], vec!["bearer"])
    );
    Ok(())
}

#[tokio::test]
async fn tokens_live_as_long_as_the_account_says() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("annotated").await?;
    let registry = registry(&env).await?;
    let brief = Env::spiffe_id(&tenant, "brief");
    let lasting = format!("system:serviceaccount:{tenant}:lasting");
    registry.set_readers("team/app", &[&brief, &lasting])?;
    // The flags say 5 and 10 minutes.
    for (name, provider, life, minutes) in [
        ("brief", "spiffe", "1m30s", 1..=2),
        ("lasting", "kubernetes", "40m", 39..=40),
    ] {
        let annotations = [
            ("provider", provider),
            ("type", "jwt"),
            ("audiences", AUDIENCE),
            ("expiration", life),
        ];
        account(&env, &tenant, name, &annotations, json!({})).await?;
        create(&env, &tenant, &registry, name).await?;
        env.ready(&tenant, name).await?;
        let lines = controller.log_lines()?;
        let issued = lines
            .iter()
            .find(|line| line["msg"] == "credential issued" && line["name"] == name);
        let expires: Timestamp = issued
            .and_then(|line| line["expires"].as_str())
            .context("an audit line")?
            .parse()?;
        let life = expires.duration_since(Timestamp::now()).as_secs_f64() / 60.0;
        #[expect(clippy::cast_possible_truncation, reason = "minutes of an hour")]
        let life = life.ceil() as i64;
        assert!(minutes.contains(&life), "the token of {name} lives {life} minutes");
    }
    Ok(())
}

#[tokio::test]
async fn an_account_that_contradicts_the_credential_fails_it() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let tenant = env.tenant("annotated").await?;
    let registry = registry(&env).await?;
    registry.set_readers("team/app", &[&format!("system:serviceaccount:{tenant}:same")])?;
    let kubernetes = [("provider", "kubernetes"), ("type", "jwt")];
    let same = [kubernetes.as_slice(), &[("audiences", AUDIENCE)]].concat();
    let other = [kubernetes.as_slice(), &[("audiences", "elsewhere")]].concat();
    let accounts = [
        ("same", same),
        ("audiences", other),
        ("provider", vec![("provider", "spiffe"), ("type", "jwt")]),
    ];
    for (name, annotations) in &accounts {
        account(&env, &tenant, name, annotations, json!({})).await?;
        let spec = json!({"url": registry.url("team/app"), "insecure": true, "ref": {"tag": "v1"},
            "serviceAccountName": name, "credential": "ServiceAccountToken", "audiences": [AUDIENCE]});
        env.create(&tenant, name, spec).await?;
    }
    env.ready(&tenant, "same").await?;
    for name in ["audiences", "provider"] {
        let text = format!(
            "annotation credential.auth.fluxcd.io/{name} of service account '{name}' contradicts spec.credential"
        );
        env.failed(&tenant, name, "CredentialInvalid", &text).await?;
    }
    Ok(())
}
