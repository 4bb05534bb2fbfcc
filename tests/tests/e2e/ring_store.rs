//! The key ring in its two Secrets, on a real API server: kept over restarts, written again when somebody deletes, restores
//! or forges it, and moved on only when it could be written. Revocation, activation and the second signing Secret.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::{ByteString, api::rbac::v1::RoleBinding};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use mintmark_hack::{
    controller::{Controller, RING_SECRET, SIGNING_SECRET, STATE_SECRET},
    pki::TestCa,
};
use mintmark_tests::{
    env::{Env, condition},
    fault_registry::{Artifact, FaultRegistry},
    http::{until, until_status},
    issuer::{chains, mutual_tls, tokens},
    ring::Ids,
    specs,
};
use serde_json::{Value, json};

/// Longer than any test runs.
const LONG: [&str; 2] = ["--spiffe-key-overlap=1h", "--spiffe-x509-overlap=1h"];

/// A controller whose first key signs.
async fn signing(flags: &[&str]) -> Result<(Env, Controller, Ids)> {
    let env = Env::new().await?;
    let controller = env.controller(flags).await?;
    let ids = Ids::of(env.ca.key_and_certificate())?;
    env.key_is(&ids.kid, "signing").await?;
    env.key_is(&ids.authority, "signing").await?;
    Ok((env, controller, ids))
}

/// Puts a new key and CA into the signing Secret.
async fn rotate(env: &Env) -> Result<Ids> {
    let next = TestCa::new("the next CA")?;
    env.sign_with(next.key_and_certificate()).await?;
    Ids::of(next.key_and_certificate())
}

async fn told(env: &Env, reason: &str, text: &str) -> Result<()> {
    let namespace = &env.installation.namespace;
    env.event_saying(namespace, SIGNING_SECRET, reason, text).await?;
    Ok(())
}

fn has_keys(state: &Value, count: usize) -> bool {
    state["jwt"].as_array().is_some_and(|keys| keys.len() == count)
}

async fn ring_names(env: &Env) -> Result<Vec<String>> {
    Ok(env.data(RING_SECRET).await?.unwrap_or_default().into_keys().collect())
}

#[tokio::test]
async fn a_restart_goes_on_with_what_is_stored_and_writes_nothing() -> Result<()> {
    let (env, controller, ids) = signing(&LONG).await?;
    let secrets = env.secrets(&env.installation.namespace);
    let state = secrets.get(STATE_SECRET).await?;
    assert!(has_keys(&Env::state_of(&state).context("no state")?, 1));
    let labels = state.metadata.labels.as_ref().context("the labels are gone")?;
    assert_eq!(
        labels.get("app.kubernetes.io/name").map(String::as_str),
        Some("mintmark")
    );
    let names = [format!("jwt.{}.pem", ids.kid), format!("x509.{}.pem", ids.authority)];
    assert_eq!(ring_names(&env).await?, names);
    let ring = secrets.get(RING_SECRET).await?;
    let (sequence, keys) = (env.sequence().await?, env.jwks().await?);

    controller.stop()?;
    controller.resume()?;
    controller.wait_ready().await?;
    env.key_is(&ids.kid, "signing").await?;
    assert_eq!((env.sequence().await?, env.jwks().await?), (sequence, keys));
    for before in [state, ring] {
        let name = before.metadata.name.clone().context("no name")?;
        let version = secrets.get(&name).await?.metadata.resource_version;
        assert_eq!(version, before.metadata.resource_version, "{name} was written");
    }
    Ok(())
}

#[tokio::test]
async fn a_secret_rotated_while_nobody_runs_still_waits_for_its_overlap() -> Result<()> {
    let (env, controller, first) = signing(&LONG).await?;
    controller.stop()?;
    let second = rotate(&env).await?;
    controller.resume()?;
    controller.wait_ready().await?;
    for (old, new) in [(&first.kid, &second.kid), (&first.authority, &second.authority)] {
        env.key_is(new, "published").await?;
        env.key_is(old, "signing").await?;
    }
    let keys = env.jwks().await?;
    assert!(keys.contains(&first.kid) && keys.contains(&second.kid));
    assert_eq!(ring_names(&env).await?.len(), 4);

    controller.stop()?;
    controller.resume_with(&["--spiffe-key-overlap=1s", "--spiffe-x509-overlap=1s"])?;
    controller.wait_ready().await?;
    for (old, new) in [(&first.kid, &second.kid), (&first.authority, &second.authority)] {
        env.key_is(new, "signing").await?;
        env.key_is(old, "retired").await?;
    }
    until("the retired keys are wiped", || async {
        let names = ring_names(&env).await?;
        Ok(names.len() == 2 && names.iter().all(|name| !name.contains(&first.kid)))
    })
    .await?;
    told(&env, "KeyRetired", &first.kid).await
}

#[tokio::test]
async fn a_deleted_state_is_missed_by_the_next_process_only() -> Result<()> {
    let (env, controller, ids) = signing(&LONG).await?;
    let (sequence, keys) = (env.sequence().await?, env.jwks().await?);
    env.delete_own_secret(STATE_SECRET).await?;
    told(&env, "StateMissing", "gone").await?;
    told(&env, "KeyStoreFailed", "kubectl apply -k config/state").await?;
    assert_eq!((env.sequence().await?, env.jwks().await?), (sequence, keys.clone()));
    env.create_own_secret(STATE_SECRET).await?;
    let state = env.stored("the state again", |state| has_keys(state, 1)).await?;
    assert_eq!(state["sequence"], json!(sequence));
    assert_eq!(env.jwks().await?, keys);

    env.delete_own_secret(STATE_SECRET).await?;
    controller.stop()?;
    controller.resume()?;
    controller.wait_ready().await?;
    let url = format!("{}/keys", env.ports.issuer_url());
    told(&env, "KeyStoreFailed", STATE_SECRET).await?;
    until_status(&url, 503).await?;
    env.create_own_secret(STATE_SECRET).await?;
    until_status(&url, 200).await?;
    env.key_is(&ids.kid, "signing").await
}

#[tokio::test]
async fn what_is_restored_or_forged_is_written_over() -> Result<()> {
    let (env, _controller, first) = signing(&LONG).await?;
    let older = env.data(STATE_SECRET).await?.context("no state")?;
    let second = rotate(&env).await?;
    env.key_is(&second.kid, "published").await?;
    let sequence = env.sequence().await?;
    let good = env.data(STATE_SECRET).await?.context("no state")?;

    env.overwrite(STATE_SECRET, older).await?;
    env.stored("both keys again", |state| has_keys(state, 2)).await?;
    told(&env, "StateOverwritten", "changed by somebody else").await?;
    assert!(env.sequence().await? >= sequence);

    let stranger = Ids::of(TestCa::new("a stranger")?.key_and_certificate())?;
    for (what, forged) in [
        (
            "another kid",
            forge(&good, |state| state["jwt"][0]["id"] = json!(stranger.kid))?,
        ),
        (
            "garbage",
            BTreeMap::from([("state.json".to_owned(), ByteString(b"{".to_vec()))]),
        ),
        (
            "a CA that is none of ours",
            forge(&good, |state| {
                let mut entry = state["x509"][0].clone();
                entry["id"] = json!(stranger.authority);
                if let Some(entries) = state["x509"].as_array_mut() {
                    entries.push(entry);
                }
            })?,
        ),
        (
            "a time to come",
            forge(&good, |state| {
                state["jwt"][0]["publishedAt"] = json!("2999-01-01T00:00:00Z");
            })?,
        ),
    ] {
        let before = env
            .told(&env.installation.namespace, SIGNING_SECRET, "StateRefused")
            .await?;
        env.overwrite(STATE_SECRET, forged).await?;
        env.stored(what, |state| {
            let ids = [&state["jwt"][0]["id"], &state["jwt"][1]["id"]];
            ids == [&json!(first.kid), &json!(second.kid)]
                && state["x509"].as_array().is_some_and(|all| all.len() == 2)
                && state["jwt"][0]["publishedAt"] != json!("2999-01-01T00:00:00Z")
        })
        .await?;
        let env = &env;
        until(&format!("{what} is told"), || async move {
            Ok(env
                .told(&env.installation.namespace, SIGNING_SECRET, "StateRefused")
                .await?
                > before)
        })
        .await?;
        let keys = env.jwks().await?;
        ensure!(
            keys.contains(&first.kid) && !keys.contains(&stranger.kid),
            "{what}: {keys}"
        );
    }
    env.overwrite(RING_SECRET, BTreeMap::new()).await?;
    until("the private keys again", || async {
        Ok(ring_names(&env).await?.len() == 4)
    })
    .await?;
    env.key_is(&first.kid, "signing").await
}

/// The state with one thing changed.
fn forge(good: &BTreeMap<String, ByteString>, change: impl Fn(&mut Value)) -> Result<BTreeMap<String, ByteString>> {
    let mut state: Value = serde_json::from_slice(&good.get("state.json").context("no state")?.0)?;
    change(&mut state);
    let mut forged = good.clone();
    forged.insert("state.json".to_owned(), ByteString(serde_json::to_vec(&state)?));
    Ok(forged)
}

#[tokio::test]
async fn nothing_moves_on_while_it_cannot_be_written() -> Result<()> {
    let overlap = ["--spiffe-key-overlap=8s", "--spiffe-x509-overlap=8s"];
    let (env, controller, first) = signing(&overlap).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(env.client.clone(), &env.installation.namespace);
    let second = rotate(&env).await?;
    env.key_is(&second.kid, "published").await?;
    let mut binding = bindings.get("mintmark-issuer-state").await?;
    bindings
        .delete("mintmark-issuer-state", &DeleteParams::default())
        .await?;

    // The overlap is over, and that cannot be stored.
    told(&env, "KeyStoreFailed", "answered 403").await?;
    env.key_is(&first.kid, "signing").await?;
    env.key_is(&second.kid, "published").await?;
    assert!(env.jwks().await?.contains(&second.kid));
    assert!(controller.ended()?.is_none());

    binding.metadata.resource_version = None;
    binding.metadata.uid = None;
    bindings.create(&PostParams::default(), &binding).await?;
    env.key_is(&second.kid, "signing").await?;
    env.key_is(&first.kid, "retired").await
}

/// An object that pulls with a token once an hour.
async fn puller(env: &Env) -> Result<(String, FaultRegistry)> {
    let namespace = env.tenant("a").await?;
    let registry = FaultRegistry::start(None).await;
    registry.push("team/app", "v1", &Artifact::flux(&[("a.yaml", "a")]));
    let url = format!("oci://{}/team/app", registry.host());
    env.create(&namespace, "jwt", specs::jwt(&url)).await?;
    env.ready(&namespace, "jwt").await?;
    Ok((namespace, registry))
}

fn presented(registry: &FaultRegistry, kid: &str) -> Result<bool> {
    Ok(tokens(registry)?.iter().any(|token| token.header["kid"] == kid))
}

#[tokio::test]
async fn a_revoked_key_is_gone_for_good_and_its_tokens_are_minted_anew() -> Result<()> {
    let (env, controller, first) = signing(&LONG).await?;
    let (namespace, registry) = puller(&env).await?;
    assert!(presented(&registry, &first.kid)?);
    let (mtls, mtls_ca) = mutual_tls(env.ca.pem()).await?;
    mtls.push("team/app", "v1", &Artifact::flux(&[("a.yaml", "a")]));
    env.secret(&namespace, "registry-ca", &[("ca.crt", &mtls_ca)]).await?;
    let url = format!("oci://{}/team/app", mtls.host());
    env.create(&namespace, "cert", specs::certificate(&url)).await?;
    env.ready(&namespace, "cert").await?;
    assert_eq!(chains(&mtls).len(), 1);
    let second = rotate(&env).await?;
    env.key_is(&second.kid, "published").await?;
    assert!(!presented(&registry, &second.kid)?, "a transition causes no pass");

    let ids = format!("my-key, {}, {}", first.kid, first.authority);
    env.annotate_signing_secret("mintmark.dev/revoke", &ids).await?;
    env.key_is(&second.kid, "signing").await?;
    env.key_is(&second.authority, "signing").await?;
    assert!(!env.jwks().await?.contains(&first.kid));
    told(&env, "AnnotationInvalid", "mintmark.dev/revoke: \"my-key\"").await?;
    told(&env, "KeyRevoked", &first.kid).await?;
    // Its next pass would be in an hour.
    until("a token of the successor", || async {
        presented(&registry, &second.kid)
    })
    .await?;
    // This registry does not trust the successor; that it is presented is all.
    mtls.until_open("the connection of the revoked CA ends", |open| !open.contains(&0))
        .await;

    let all = format!("{ids},{},{}", second.kid, second.authority);
    env.annotate_signing_secret("mintmark.dev/revoke", &all).await?;
    env.failed(&namespace, "jwt", "CredentialNotConfigured", "is revoked")
        .await?;
    let state = env
        .stored("four revocations", |state| {
            state["revoked"].as_array().is_some_and(|ids| ids.len() == 4)
        })
        .await?;
    assert!(has_keys(&state, 0), "{state}");
    assert!(ring_names(&env).await?.is_empty());

    controller.stop()?;
    env.annotate_signing_secret("mintmark.dev/revoke", "").await?;
    controller.resume()?;
    controller.wait_ready().await?;
    told(&env, "RevokedKeyInSecret", &second.kid).await?;
    let jwks = env.jwks().await?;
    assert!(!jwks.contains(&first.kid) && !jwks.contains(&second.kid));
    let third = rotate(&env).await?;
    env.key_is(&third.kid, "signing").await?;
    let object = env.ready(&namespace, "jwt").await?;
    assert!(condition(&object, "Reconciling").is_none());
    assert!(presented(&registry, &third.kid)?);
    Ok(())
}

#[tokio::test]
async fn an_activated_ca_signs_before_its_overlap_is_over() -> Result<()> {
    let (env, _controller, first) = signing(&LONG).await?;
    let second = rotate(&env).await?;
    env.key_is(&second.authority, "published").await?;
    env.annotate_signing_secret("mintmark.dev/activate", &format!(" {} ", second.authority))
        .await?;
    env.key_is(&second.authority, "signing").await?;
    env.key_is(&first.authority, "retired").await?;
    told(&env, "KeyActivated", &second.authority).await?;
    env.key_is(&first.kid, "signing").await?;
    env.key_is(&second.kid, "published").await
}

#[tokio::test]
async fn a_second_secret_signs_the_tokens_alone() -> Result<()> {
    let env = Env::new().await?;
    let jwt = TestCa::new("tokens only")?;
    let pair = jwt.key_and_certificate();
    let data = [
        ("tls.key", pair.key_pem.as_str()),
        ("tls.crt", pair.certificate_pem.as_str()),
    ];
    let name = "mintmark-signing-jwt";
    env.secret(&env.installation.namespace, name, &data).await?;
    let flags = [LONG[0], LONG[1], "--spiffe-jwt-secret-name=mintmark-signing-jwt"];
    let _controller = env.controller(&flags).await?;
    let (first, second) = (Ids::of(env.ca.key_and_certificate())?, Ids::of(pair)?);
    env.key_is(&first.authority, "signing").await?;
    env.key_is(&second.kid, "signing").await?;
    let expected = [&first.authority, &second.kid].map(|id| (id.clone(), "signing".to_owned()));
    assert_eq!(env.key_states().await?, expected.into_iter().collect());
    let (_, registry) = puller(&env).await?;
    assert!(presented(&registry, &second.kid)?);
    let namespace = &env.installation.namespace;
    env.event_saying(namespace, name, "KeySigning", &second.kid).await?;
    env.event_saying(namespace, SIGNING_SECRET, "KeySigning", &first.authority)
        .await?;

    env.overwrite(name, BTreeMap::new()).await?;
    env.event_saying(namespace, name, "SigningSecretInvalid", "tls.key")
        .await?;
    env.key_is(&second.kid, "signing").await
}
