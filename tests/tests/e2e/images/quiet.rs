//! What does not happen: scans before their time, status writes that say nothing, events of scans that found nothing new.

use std::time::Duration;

use anyhow::Result;
use futures::future::try_join_all;
use mintmark_api::image_repository::ImageRepository;
use mintmark_tests::{
    env::{AUDIENCE, Env},
    fault_registry::{Fault, FaultRegistry, Recorded, Route, Verdict},
    http::until_within,
    specs,
};
use serde_json::{Value, json};

use super::{push, result, scans};

/// Time between scans of the objects here.
const INTERVAL: Duration = Duration::from_secs(3);
/// A scan that is due in less than this is made at once.
const SOON: Duration = Duration::from_secs(1);

fn first_pages(requests: &[Recorded]) -> Vec<&Recorded> {
    requests
        .iter()
        .filter(|page| page.path().ends_with("/tags/list"))
        .collect()
}

/// Most passes come long before a scan is due. They ask neither the registry nor the API server for anything.
#[tokio::test]
async fn a_pass_before_its_time_asks_nobody() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env
        .controller(&["--interval-jitter-percentage=90", "--min-interval=100ms"])
        .await?;
    let token = json!({"credential": "ServiceAccountToken", "audiences": [AUDIENCE], "serviceAccountName": "puller"});
    let objects = vec![
        quiet(&env, "open", json!({})),
        quiet(&env, "jwt", json!({"credential": "SpiffeJWT", "audiences": [AUDIENCE]})),
        quiet(&env, "account", token),
        quiet(&env, "login", json!({"secretRef": {"name": "login"}})),
    ];
    try_join_all(objects).await?;
    Ok(())
}

/// Looks at some scans, and passes before their time, of an object that is alone in its namespace.
async fn quiet(env: &Env, name: &str, more: Value) -> Result<()> {
    const SCANS: usize = 4;
    const EARLY: usize = 1;
    // Chance decides how many passes come early: about one in three.
    const PATIENCE: Duration = Duration::from_mins(3);
    let tenant = env.tenant(name).await?;
    env.service_account(&tenant, "puller").await?;
    let registry = FaultRegistry::start(None).await;
    push(&registry, &["1"]);
    let auths = json!({registry.host(): {"username": "u", "password": "p"}});
    env.pull_secret(&tenant, "login", auths).await?;
    let spec = json!({"image": format!("{}/app", registry.host()), "insecure": true, "interval": "3s"});
    let objects = env.objects::<ImageRepository>(&tenant);
    objects.create(name, specs::with(spec, more)).await?;
    objects.ready(name).await?;
    env.event(&tenant, name, "Succeeded").await?;
    registry.clear_records();
    let (mark, before) = (env.mark()?, objects.passes(name).await?);
    until_within(PATIENCE, "scans, and passes before their time", async || {
        let (made, scans) = (objects.passes(name).await? - before, scans(&registry));
        Ok(scans >= SCANS && made >= scans + EARLY)
    })
    .await?;
    let mut asked = env.requests(mark)?;
    asked.retain(|event| event.object_ref.as_ref().is_some_and(|it| it.namespace == tenant));
    let requests = registry.requests();
    let pages = first_pages(&requests);
    assert_eq!(pages.len(), requests.len(), "a scan of {name} is one request");
    for pair in pages.windows(2) {
        let apart = pair[1].at.duration_since(pair[0].at);
        // A request arrives a moment after its pass looked at the clock.
        assert!(apart + SOON > INTERVAL, "{name}: {apart:?} apart");
    }

    // One scan may have been under way at the begin.
    let scans = pages.len() + 1;
    let (writes, others): (Vec<_>, Vec<_>) = asked.iter().partition(|event| event.verb == "patch");
    assert!(writes.len() <= scans, "{name}: more writes than scans: {writes:#?}");
    // A scan reads the Secret, as no watch tells of it here; a pass before its time does not.
    let limit = if name == "login" { scans } else { 0 };
    assert!(others.len() <= limit, "{name}: {others:#?}");
    assert!(others.iter().all(|event| event.verb == "get"), "{name}: {others:#?}");
    assert_eq!(env.told(&tenant, name, "Succeeded").await?, 1, "{name}");
    Ok(())
}

/// A scan out of turn that finds the same moves no time in the status: the next one after the interval does.
#[tokio::test]
async fn the_time_of_the_last_scan_moves_once_per_interval() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    let registry = FaultRegistry::start(None).await;
    push(&registry, &["1"]);
    let objects = env.objects::<ImageRepository>(&tenant);
    let spec = json!({"image": format!("{}/app", registry.host()), "insecure": true, "interval": "10s"});
    objects.create("app", spec).await?;
    let first = result(&objects.ready("app").await?)?.scan_time;
    for round in 2..5 {
        let object = objects.reconcile("app").await?;
        assert_eq!(scans(&registry), round);
        assert_eq!(result(&object)?.scan_time, first);
    }
    let moved = objects.wait("app", "a later scan", |object| {
        result(object).is_ok_and(|result| result.scan_time != first)
    });
    let moved = result(&moved.await?)?;
    let (Some(first), Some(moved)) = (first, moved.scan_time) else {
        panic!("no times")
    };
    // Shown in whole seconds, and due a second early.
    assert!(moved.0.duration_since(first.0).as_secs() >= 8, "{first:?} {moved:?}");
    assert_eq!(env.told(&tenant, "app", "Succeeded").await?, 1);
    Ok(())
}

/// A failed scan stays due: each pass asks again, and tells no success until the registry has answered.
#[tokio::test]
async fn a_failed_scan_is_made_again_soon() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env
        .controller(&["--min-retry-delay=100ms", "--max-retry-delay=200ms"])
        .await?;
    let tenant = env.tenant("a").await?;
    let registry = FaultRegistry::start(None).await;
    push(&registry, &["1"]);
    let objects = env.objects::<ImageRepository>(&tenant);
    let spec = json!({"image": format!("{}/app", registry.host()), "insecure": true});
    objects.create("app", spec).await?;
    objects.ready("app").await?;
    registry.set_gate(|_| Verdict::Deny);
    objects.edit("app", json!({"exclusionList": ["x"]})).await?;
    objects.failed("app", "AuthenticationFailed", "403").await?;
    let before = scans(&registry);
    registry
        .until("more scans", |requests| {
            let pages = requests.iter().filter(|page| page.path().ends_with("/tags/list"));
            pages.count() >= before + 3
        })
        .await;
    let object = objects.get("app").await?;
    assert_eq!(result(&object)?.tag_count, 1, "what was found stays");
    objects.failed("app", "AuthenticationFailed", "403").await?;
    registry.set_gate(|_| Verdict::Allow);
    objects.ready("app").await?;
    registry.always(Route::Tags, Fault::status(500));
    let scanned = scans(&registry);
    objects
        .edit("app", json!({"accessFrom": {"namespaceSelectors": []}}))
        .await?;
    objects.ready("app").await?;
    assert_eq!(scans(&registry), scanned, "nothing is due");
    Ok(())
}
