//! What the webhook posts, and what it does when its receiver does not take it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use mintmark_tests::{
    env::Env,
    fault_registry::{Artifact, Entry, Fault, FaultRegistry, layer},
    http::until,
    receiver::Receiver,
    served::artifact,
};
use serde_json::json;

/// One kind of failure of the receiver, and what follows it.
struct Case {
    name: &'static str,
    fault: Fault,
    /// How often the post arrives.
    posts: usize,
    outcome: &'static str,
}

fn cases() -> [Case; 4] {
    let case = |name, fault, posts, outcome| Case {
        name,
        fault,
        posts,
        outcome,
    };
    [
        case("unavailable", Fault::status(503), 2, "sent"),
        case("reset", Fault::Reset, 2, "sent"),
        case("duplicate", Fault::status(429), 1, "duplicate"),
        case("refused", Fault::status(400), 1, "failed"),
    ]
}

async fn counted(env: &Env, outcome: &str) -> Result<u32> {
    let line = format!("mintmark_events_sent_total{{sink=\"webhook\",outcome=\"{outcome}\"}} ");
    let text = env.metrics().await?;
    let value = text.lines().find_map(|text| text.strip_prefix(&line)).unwrap_or("0");
    Ok(value.parse()?)
}

#[tokio::test]
async fn a_failing_receiver_gets_a_post_again_and_a_refusing_one_does_not() -> Result<()> {
    let env = Env::new().await?;
    let receiver = Receiver::start().await;
    let flag = receiver.flag();
    let controller = env.controller(&[&flag, "--per-object-metrics=false"]).await?;
    let tenant = env.tenant("a").await?;
    let registry = FaultRegistry::start(None).await;
    for Case {
        name,
        fault,
        posts,
        outcome,
    } in cases()
    {
        registry.push(name, "v1", &Artifact::flux(&[("app.yaml", name)]));
        receiver.fail(name, fault);
        let before = counted(&env, outcome).await?;
        let spec = json!({"url": registry.url(name), "insecure": true, "ref": {"tag": "v1"}});
        env.create(&tenant, name, spec).await?;
        env.ready(&tenant, name).await?;
        until(&format!("the post of {name} arrived and is counted"), || async {
            Ok(receiver.bodies(name).len() >= posts && counted(&env, outcome).await? > before)
        })
        .await?;
        let bodies = receiver.bodies(name);
        assert_eq!(bodies.len(), posts, "{name}: {bodies:#?}");
        assert!(
            bodies
                .iter()
                .all(|body| body["reason"] == "NewArtifact" && *body == bodies[0]),
            "{bodies:#?}"
        );
        env.event(&tenant, name, "NewArtifact").await?;
    }
    let metrics = env.metrics().await?;
    for series in ["gotk_reconcile_duration_seconds_count{", "mintmark_object_ready{"] {
        assert!(
            !metrics.contains(series),
            "{series} in spite of --per-object-metrics=false"
        );
    }
    controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn a_post_has_every_field_and_the_metadata() -> Result<()> {
    let env = Env::new().await?;
    let receiver = Receiver::start().await;
    let controller = env.controller(&[&receiver.flag()]).await?;
    let tenant = env.tenant("a").await?;
    let registry = FaultRegistry::start(None).await;
    let annotations = BTreeMap::from([
        (
            "org.opencontainers.image.source".to_owned(),
            "https://git.example/app".to_owned(),
        ),
        (
            "org.opencontainers.image.revision".to_owned(),
            "main@sha1:0123".to_owned(),
        ),
    ]);
    let content = layer(&[Entry::File("app.yaml", b"1")]);
    let content = Artifact::with_layer_and_annotations(&content, &annotations);
    registry.push("app", "v1", &content);
    let (url, revision) = (registry.url("app"), format!("v1@{}", content.digest()));
    let spec = json!({"url": url, "insecure": true, "ref": {"tag": "v1"}, "suspend": true});
    env.create(&tenant, "app", spec).await?;
    let patch = json!({"metadata": {"annotations": {"event.toolkit.fluxcd.io/team": "blue", "example.com/other": "x"}},
        "spec": {"suspend": false}});
    env.patch(&tenant, "app", patch).await?;
    let object = env.ready(&tenant, "app").await?;
    until("a post", || async { Ok(!receiver.bodies("app").is_empty()) }).await?;
    let mut body = receiver.bodies("app").swap_remove(0);
    let stored = artifact(&object)?;
    let time = body["timestamp"].take();
    let _: jiff::Timestamp = time.as_str().context("a time")?.parse()?;
    assert!(body["involvedObject"]["resourceVersion"].take().is_string());
    assert!(
        body["reportingInstance"]
            .take()
            .as_str()
            .is_some_and(|name| !name.is_empty())
    );
    let expected = json!({
        "involvedObject": {"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository",
            "namespace": tenant, "name": "app", "uid": object.metadata.uid, "resourceVersion": null},
        "severity": "info",
        "timestamp": null,
        "message": format!("stored artifact with revision '{revision}' from '{url}', origin source \
            'https://git.example/app', origin revision 'main@sha1:0123'"),
        "reason": "NewArtifact",
        "action": "Reconcile",
        "metadata": {"event.toolkit.fluxcd.io/team": "blue", "source.toolkit.fluxcd.io/revision": revision,
            "source.toolkit.fluxcd.io/digest": stored.digest,
            "source.toolkit.fluxcd.io/originRevision": "main@sha1:0123"},
        "reportingController": "mintmark",
        "reportingInstance": null,
    });
    assert_eq!(body, expected);
    let event = env.event(&tenant, "app", "NewArtifact").await?;
    let annotations = serde_json::to_value(event.metadata.annotations)?;
    assert_eq!(annotations, expected["metadata"], "the Event has the same");
    controller.kill()?;
    Ok(())
}
