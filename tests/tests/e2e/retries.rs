//! Registries that fail for a moment: the pull waits as asked, shows why, goes on where it was cut, and becomes Ready.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;
use http::Method;
use mintmark_tests::{
    env::Env,
    fault_registry::{Artifact, Entry, Fault, FaultRegistry, Recorded, Route, layer},
    served, specs,
};
use serde_json::json;

const REPOSITORY: &str = "team/app";
const PULL: &str = "OCIArtifactPullFailed";

fn small() -> Artifact {
    Artifact::flux(&[("app.yaml", "a: 1\n")])
}

/// A registry with `artifact`.
async fn registry(artifact: &Artifact) -> FaultRegistry {
    let registry = FaultRegistry::start(None).await;
    registry.push(REPOSITORY, "v1", artifact);
    registry
}

fn count(requests: &[Recorded], method: &Method, part: &str) -> usize {
    requests
        .iter()
        .filter(|request| request.method == *method && request.path().contains(part))
        .count()
}

/// Requests so far: HEAD of the tag, GET of the manifest, GET of the blob.
fn counts(registry: &FaultRegistry) -> [usize; 3] {
    let requests = registry.requests();
    [
        (Method::HEAD, "/manifests/"),
        (Method::GET, "/manifests/"),
        (Method::GET, "/blobs/"),
    ]
    .map(|(method, part)| count(&requests, &method, part))
}

/// How often each reason was told about the object.
async fn told(env: &Env, tenant: &str, name: &str) -> Result<BTreeMap<String, i32>> {
    let mut told = BTreeMap::new();
    for event in env.events(tenant).await? {
        if event.involved_object.name.as_deref() == Some(name) {
            *told.entry(event.reason.unwrap_or_default()).or_default() += event.count.unwrap_or(1);
        }
    }
    Ok(told)
}

#[tokio::test]
async fn a_burst_of_server_errors_is_waited_out_within_the_pass_and_shown() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("retries").await?;
    let registry = registry(&small()).await;
    registry.times(2, Route::ManifestHead, Fault::status(503));
    registry.once(Route::ManifestGet, Fault::status(408));
    registry.times(2, Route::Blob, Fault::status(500));
    env.create(&tenant, "app", specs::jwt(&registry.url(REPOSITORY)))
        .await?;
    for status in [503, 408, 500] {
        let cause = format!("waiting to try again: registry answered with status {status}");
        let object = env.failed(&tenant, "app", PULL, &cause).await?;
        let observed = object.status.and_then(|status| status.observed_generation);
        assert_eq!(observed, Some(-1), "nothing is handled yet");
    }
    env.ready(&tenant, "app").await?;
    assert_eq!(counts(&registry), [3, 2, 3]);
    env.event(&tenant, "app", "NewArtifact").await?;
    let told = told(&env, &tenant, "app").await?;
    assert_eq!(
        told.len(),
        1,
        "a pass that succeeds in the end has not failed: {told:?}"
    );
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn while_it_waits_the_object_keeps_artifact_and_credential() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("retries").await?;
    let registry = registry(&small()).await;
    env.create(&tenant, "app", specs::jwt(&registry.url(REPOSITORY)))
        .await?;
    let before = env.ready(&tenant, "app").await?;
    registry.once(Route::ManifestHead, Fault::status(503));
    env.patch(&tenant, "app", json!({"spec": {"interval": "2h"}})).await?;
    let waiting = env.failed(&tenant, "app", PULL, "waiting to try again").await?;
    served::fetch(&served::artifact(&waiting)?).await?;
    let (before, waiting) = (before.status.unwrap_or_default(), waiting.status.unwrap_or_default());
    assert_eq!(waiting.artifact, before.artifact);
    assert!(before.credential.is_some());
    assert_eq!(waiting.credential, before.credential);
    assert_eq!(waiting.observed_generation, Some(1));
    let after = env.ready(&tenant, "app").await?.status.unwrap_or_default();
    assert_eq!((after.artifact, after.observed_generation), (before.artifact, Some(2)));
    let told = told(&env, &tenant, "app").await?;
    assert_eq!(
        told.keys().collect::<Vec<_>>(),
        ["NewArtifact"],
        "nothing failed, nothing recovered"
    );
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn a_registry_that_is_down_is_found_when_it_is_back() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("retries").await?;
    let address = registry(&small()).await.address();
    let url = format!("oci://{address}/{REPOSITORY}");
    env.create(&tenant, "app", specs::jwt(&url)).await?;
    let cause = "failed to determine artifact digest: cannot connect";
    env.failed(&tenant, "app", PULL, cause).await?;
    // Five failures in a row: from now on one probe at a time.
    env.failed(&tenant, "app", PULL, "cannot connect, next attempt in")
        .await?;
    let back = FaultRegistry::start_on(address, None).await;
    back.push(REPOSITORY, "v1", &small());
    env.ready(&tenant, "app").await?;
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn a_longer_burst_fails_the_pass_and_the_next_one_recovers() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("retries").await?;
    let registry = registry(&small()).await;
    registry.times(3, Route::ManifestHead, Fault::status(502));
    env.create(&tenant, "app", specs::jwt(&registry.url(REPOSITORY)))
        .await?;
    let cause = "failed to determine artifact digest: registry answered with status 502";
    env.failed(&tenant, "app", PULL, cause).await?;
    env.ready(&tenant, "app").await?;
    assert_eq!(counts(&registry), [4, 1, 1]);
    let event = env.event(&tenant, "app", PULL).await?;
    assert_eq!(event.message.as_deref(), Some(cause));
    assert_eq!(event.count.unwrap_or(1), 1);
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn retry_after_is_obeyed_in_both_forms_and_never_for_an_hour() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("retries").await?;
    let [seconds, date, hour] = [
        registry(&small()).await,
        registry(&small()).await,
        registry(&small()).await,
    ];
    seconds.once(Route::ManifestHead, Fault::retry_after(429, "3"));
    // A date has whole seconds.
    let due = SystemTime::UNIX_EPOCH + Duration::from_secs(SystemTime::UNIX_EPOCH.elapsed()?.as_secs() + 8);
    let due_at = Instant::now() + due.duration_since(SystemTime::now())?;
    date.once(
        Route::ManifestHead,
        Fault::retry_after(429, httpdate::fmt_http_date(due)),
    );
    hour.once(Route::ManifestHead, Fault::retry_after(429, "3600"));
    for (name, registry) in [("seconds", &seconds), ("date", &date), ("hour", &hour)] {
        env.create(&tenant, name, specs::jwt(&registry.url(REPOSITORY))).await?;
    }
    let cause = "waiting to try again: registry limits the rate (429)";
    let final_cause = "failed to determine artifact digest: registry limits the rate (429)";
    tokio::try_join!(
        env.failed(&tenant, "seconds", PULL, cause),
        env.failed(&tenant, "date", PULL, cause),
        env.failed(&tenant, "hour", PULL, final_cause),
    )?;
    for (name, registry) in [("seconds", &seconds), ("date", &date), ("hour", &hour)] {
        env.ready(&tenant, name).await?;
        assert_eq!(counts(registry), [2, 1, 1], "{name}");
    }
    let gap = |registry: &FaultRegistry| registry.requests()[1].at.duration_since(registry.requests()[0].at);
    assert!(gap(&seconds) >= Duration::from_secs(3), "{:?}", gap(&seconds));
    assert!(date.requests()[0].at < due_at, "asked before the date");
    let early = due_at.saturating_duration_since(date.requests()[1].at);
    assert!(early < Duration::from_millis(50), "{early:?} before the date");
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn a_cut_transfer_goes_on_where_it_was_cut() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("retries").await?;
    let content: Vec<u8> = (0..100_000).map(|_| rand::random()).collect();
    let artifact = Artifact::with_layer(&layer(&[Entry::File("big.bin", &content)]));
    let [resumed, over] = [registry(&artifact).await, registry(&artifact).await];
    resumed.once(Route::ManifestHead, Fault::Reset);
    resumed.times(2, Route::Blob, Fault::Truncate(30_000));
    over.once(Route::Blob, Fault::Truncate(30_000));
    over.once(Route::Blob, Fault::IgnoreRange);
    for (name, registry) in [("resumed", &resumed), ("over", &over)] {
        env.create(&tenant, name, specs::jwt(&registry.url(REPOSITORY))).await?;
    }
    for name in ["resumed", "over"] {
        let archive = served::fetch(&served::artifact(&env.ready(&tenant, name).await?)?).await?;
        assert!(served::files(&archive)?["big.bin"] == content, "{name}: other bytes");
    }
    let ranges = |registry: &FaultRegistry| -> Vec<_> {
        let requests = registry.requests();
        let blobs = requests.iter().filter(|request| request.path().contains("/blobs/"));
        blobs
            .map(|request| request.header("range").map(str::to_owned))
            .collect()
    };
    let from = |byte: usize| Some(format!("bytes={byte}-"));
    assert_eq!(ranges(&resumed), [None, from(30_000), from(60_000)]);
    assert_eq!(ranges(&over), [None, from(30_000)]);
    assert_eq!(counts(&resumed)[0], 2, "the lost answer was asked for again");
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn a_stalled_transfer_ends_with_the_timeout_of_the_object() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("retries").await?;
    let registry = registry(&small()).await;
    registry.once(Route::Blob, Fault::Stall(10));
    let mut spec = specs::jwt(&registry.url(REPOSITORY));
    spec["timeout"] = json!("2s");
    env.create(&tenant, "app", spec).await?;
    let cause = format!("failed to pull artifact from '{}': timed out", registry.url(REPOSITORY));
    env.failed(&tenant, "app", PULL, &cause).await?;
    env.ready(&tenant, "app").await?;
    assert_eq!(counts(&registry), [2, 2, 2]);
    drop(controller);
    Ok(())
}
