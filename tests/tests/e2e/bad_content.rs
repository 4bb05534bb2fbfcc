//! Bad input: each kind gets its condition, its message and its Warning event; the earlier artifact stays served; what may
//! mend itself is tried again with backoff, what cannot is Stalled; recovery is told once.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Event;
use mintmark_api::{artifact::Artifact as Stored, oci_repository::OciRepository};
use mintmark_tests::{
    env::{Env, condition},
    fault_registry::{Artifact, Entry, Fault, FaultRegistry, INDEX, MANIFEST, Route, layer},
    served, specs,
};
use serde_json::{Value, json};

const REPOSITORY: &str = "team/app";
/// `--artifact-max-size` of these tests.
const MAX_SIZE: usize = 64 * 1024;
const PULL: &str = "OCIArtifactPullFailed";
const LAYER: &str = "OCIArtifactLayerOperationFailed";

/// One kind of bad input. In `message`, `{url}` is the object's URL.
struct Case {
    name: &'static str,
    reason: &'static str,
    message: String,
    /// Whether nothing but a change of the object can mend it.
    terminal: bool,
    /// What is done to the registry.
    spoil: Box<dyn Fn(&FaultRegistry) + Send + Sync>,
    /// What is done to the object, and how it is undone.
    edit: Option<(Value, Value)>,
}

impl Case {
    /// The registry goes bad.
    fn registry(
        name: &'static str,
        reason: &'static str,
        message: &str,
        spoil: impl Fn(&FaultRegistry) + Send + Sync + 'static,
    ) -> Self {
        Self {
            name,
            reason,
            message: message.to_owned(),
            terminal: false,
            spoil: Box::new(spoil),
            edit: None,
        }
    }

    /// A new revision whose pull goes wrong at `route`.
    fn fault(name: &'static str, message: &str, route: Route, fault: Fault) -> Self {
        let message = format!("failed to pull artifact from '{{url}}': {message}");
        Self::registry(name, PULL, &message, move |registry| {
            registry.push(REPOSITORY, "v1", &other());
            registry.always(route.clone(), fault.clone());
        })
    }

    /// A new revision that is bad itself.
    fn content(name: &'static str, reason: &'static str, message: &str, artifact: Artifact) -> Self {
        Self::registry(name, reason, message, move |registry| {
            registry.push(REPOSITORY, "v1", &artifact);
        })
    }

    /// A new revision whose layer cannot be extracted.
    fn layer(name: &'static str, message: &str, bytes: &[u8]) -> Self {
        let message = format!("failed to extract layer contents from artifact: {message}");
        Self::content(name, LAYER, &message, Artifact::with_layer(bytes))
    }

    /// The object goes bad.
    fn edit(name: &'static str, reason: &'static str, message: &str, edit: Value, undo: Value) -> Self {
        Self {
            edit: Some((edit, undo)),
            ..Self::registry(name, reason, message, |_| {})
        }
    }

    fn terminal(self) -> Self {
        Self { terminal: true, ..self }
    }
}

fn good() -> Artifact {
    Artifact::flux(&[("app.yaml", "good: true\n")])
}

fn other() -> Artifact {
    Artifact::flux(&[("app.yaml", "good: perhaps\n"), ("more.yaml", "more: yes\n")])
}

/// A good layer whose manifest has one annotation of this length.
fn annotated(length: usize) -> Artifact {
    let annotations = BTreeMap::from([("note".to_owned(), "x".repeat(length))]);
    Artifact::with_layer_and_annotations(&other().layer(), &annotations)
}

fn without_layers() -> Artifact {
    let config = json!({"mediaType": "application/json", "digest": other().digest(), "size": 2});
    let document = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []});
    Artifact::document(MANIFEST, &document)
}

fn broken_transfers() -> Vec<Case> {
    let swapped = Fault::Answer {
        status: 200,
        headers: vec![("content-type", MANIFEST.to_owned())],
        body: String::from_utf8_lossy(&annotated(1).manifest).into_owned(),
    };
    let length = other().layer().len();
    vec![
        Case::fault(
            "wrong-digest",
            "invalid content: content of blob does not match its digest",
            Route::Blob,
            Fault::Corrupt,
        ),
        Case::fault(
            "wrong-manifest",
            "invalid content: content of manifest does not match its digest",
            Route::ManifestGet,
            swapped,
        ),
        Case::fault(
            "cut-blob",
            "connection lost before the response was complete",
            Route::Blob,
            Fault::Truncate(16),
        ),
        Case::fault(
            "short-blob",
            &format!("invalid content: blob has another length than declared ({length} bytes)"),
            Route::Blob,
            Fault::Shorten(3),
        ),
        Case::fault(
            "long-blob",
            &format!("invalid content: blob has another length than declared ({length} bytes)"),
            Route::Blob,
            Fault::Lengthen(3),
        ),
        Case::fault(
            "contradiction",
            &format!("invalid content: manifest contradicts itself: mediaType is {MANIFEST}, Content-Type is {INDEX}"),
            Route::ManifestGet,
            Fault::ContentType(Some(INDEX)),
        ),
        Case::fault(
            "redirect-loop",
            "redirect refused: more than five in a row",
            Route::Blob,
            Fault::redirect("?again"),
        ),
        Case::registry(
            "html",
            PULL,
            "failed to determine artifact digest: invalid content: answer is not a manifest but 'text/html'",
            |registry| registry.always(Route::Any, Fault::html()),
        ),
        Case::registry(
            "no-tag",
            PULL,
            "failed to determine artifact digest: not found (404)",
            |registry| registry.with_content(|content| content.untag(REPOSITORY, "v1")),
        ),
    ]
}

fn bad_manifests() -> Vec<Case> {
    vec![
        Case::content("no-layers", LAYER, "no layers found in artifact", without_layers()),
        Case::content(
            "giant-manifest",
            PULL,
            "failed to pull artifact from '{url}': manifest is larger than the limit of 4194304 bytes",
            annotated(5 * 1024 * 1024),
        ),
        Case::content(
            "annotations",
            "MetadataTooLarge",
            "the manifest's annotations take 65541 bytes, more than 65536",
            annotated(64 * 1024 + 1),
        )
        .terminal(),
        Case::edit(
            "selector",
            LAYER,
            "failed to find layer with media type 'text/x' in artifact",
            json!({"layerSelector": {"mediaType": "text/x"}}),
            json!({"layerSelector": null}),
        ),
    ]
}

fn bad_layers() -> Vec<Case> {
    let file = |path| layer(&[Entry::File("a.yaml", b"a"), Entry::File(path, b"x")]);
    vec![
        Case::content(
            "oversized",
            PULL,
            &format!("failed to pull artifact from '{{url}}': blob is larger than the limit of {MAX_SIZE} bytes"),
            Artifact::with_layer(&[0; MAX_SIZE + 1]),
        ),
        Case::layer(
            "bomb",
            "layer has compressed by more than 200 to 1",
            &layer(&[Entry::File("zeros", &vec![0; 32 * 1024 * 1024])]),
        ),
        Case::layer("not-gzip", "layer is not gzip compressed", b"PK\x03\x04 is no gzip"),
        Case::layer(
            "traversal",
            "tar entry '../../escape' has an unsafe path: it contains '..'",
            &file("../../escape"),
        ),
        Case::layer(
            "absolute",
            "tar entry '/etc/passwd' has an unsafe path: it is absolute",
            &file("/etc/passwd"),
        ),
        Case::layer(
            "device",
            "tar entry 'null' is a device, which is not supported",
            &layer(&[Entry::Device("null")]),
        ),
        Case::layer(
            "hardlink",
            "tar entry 'b' is a hard link, which is not supported",
            &layer(&[Entry::File("a", b"a"), Entry::HardLink("b", "a")]),
        ),
    ]
}

/// The tests on the URL itself; `url` is the good one.
fn bad_urls(url: &str) -> Vec<Case> {
    let undo = json!({"url": url});
    let tagged = format!("{url}:v1");
    vec![
        Case::edit(
            "tag-in-url",
            "URLInvalid",
            &format!(
                "URL validation failed for '{tagged}': the URL names a tag or digest, which belongs into spec.ref"
            ),
            json!({"url": tagged}),
            undo.clone(),
        )
        .terminal(),
        Case::edit(
            "unknown-host",
            PULL,
            "failed to determine artifact digest: cannot connect",
            json!({"url": "oci://registry.invalid/team/app"}),
            undo,
        ),
    ]
}

struct Place<'a> {
    env: &'a Env,
    tenant: &'a str,
}

impl Place<'_> {
    /// Good, then bad, then good again.
    async fn run(&self, registry: &FaultRegistry, case: Case) -> Result<()> {
        let (env, tenant, name) = (self.env, self.tenant, case.name);
        registry.push(REPOSITORY, "v1", &good());
        let url = registry.url(REPOSITORY);
        env.create(tenant, name, specs::jwt(&url)).await?;
        let before = served::artifact(&env.ready(tenant, name).await?)?;

        (case.spoil)(registry);
        // A new generation, which only a pass that is not to be repeated observes.
        let mut spec = json!({"interval": "2h"});
        if let Some((edit, _)) = &case.edit {
            merge(&mut spec, edit);
        }
        env.patch(tenant, name, json!({"spec": spec})).await?;
        let message = case.message.replace("{url}", &url);
        let object = env.failed(tenant, name, case.reason, &message).await?;
        check_conditions(&object, &case, &message)?;
        ensure!(served::artifact(&object)? == before, "the artifact changed");
        served::fetch(&before).await?;
        self.check_event(&case, &message).await?;

        registry.heal();
        registry.push(REPOSITORY, "v1", &good());
        if let Some((_, undo)) = &case.edit {
            env.patch(tenant, name, json!({"spec": undo})).await?;
        }
        self.check_recovery(name, &before).await
    }

    async fn check_event(&self, case: &Case, message: &str) -> Result<()> {
        let count = if case.terminal { 1 } else { 2 };
        let event = self
            .env
            .repeated_event(self.tenant, case.name, case.reason, count)
            .await?;
        ensure!(event.type_.as_deref() == Some("Warning"), "{event:?}");
        ensure!(
            event.message.as_deref().is_some_and(|text| text.starts_with(message)),
            "{event:?}"
        );
        Ok(())
    }

    async fn check_recovery(&self, name: &str, before: &Stored) -> Result<()> {
        let (env, tenant) = (self.env, self.tenant);
        env.reconcile(tenant, name).await?;
        let object = env.ready(tenant, name).await?;
        ensure!(served::artifact(&object)? == *before, "the same artifact");
        for kind in ["FetchFailed", "Stalled", "Reconciling", "ArtifactOutdated"] {
            ensure!(condition(&object, kind).is_none(), "{kind} is over");
        }
        let observed = object.status.as_ref().and_then(|status| status.observed_generation);
        ensure!(observed == object.metadata.generation, "observed {observed:?}");
        env.reconcile(tenant, name).await?;
        Ok(())
    }

    /// Waits until every event so far is written: those of a namespace are written in order.
    async fn flush_events(&self) -> Result<Vec<Event>> {
        self.env
            .create(self.tenant, "marker", specs::jwt("oci://127.0.0.1:9/team/app:tag"))
            .await?;
        self.env.event(self.tenant, "marker", "URLInvalid").await?;
        self.env.events(self.tenant).await
    }
}

/// What the conditions say of the failure; the generation of the bad object is 2.
fn check_conditions(object: &OciRepository, case: &Case, message: &str) -> Result<()> {
    let is = |kind: &str, reason: &str| condition(object, kind).is_some_and(|found| found.reason == reason);
    for kind in ["FetchFailed", "Ready"] {
        let found = condition(object, kind).with_context(|| format!("no {kind}"))?;
        ensure!(
            (found.reason.as_str(), found.message.as_str()) == (case.reason, message),
            "{found:?}"
        );
    }
    ensure!(is("ArtifactInStorage", "Succeeded"), "what is stored is still told");
    ensure!(is("Stalled", case.reason) == case.terminal, "Stalled");
    ensure!(
        is("Reconciling", "ProgressingWithRetry") != case.terminal,
        "Reconciling"
    );
    let observed = object.status.as_ref().and_then(|status| status.observed_generation);
    ensure!(
        observed == Some(if case.terminal { 2 } else { 1 }),
        "observed {observed:?}"
    );
    Ok(())
}

fn merge(into: &mut Value, from: &Value) {
    if let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) {
        into.extend(from.clone());
    }
}

/// `(reason, occurrences)` of all events about `name`.
fn told(events: &[Event], name: &str) -> BTreeMap<String, i32> {
    let mut told = BTreeMap::new();
    for event in events
        .iter()
        .filter(|event| event.involved_object.name.as_deref() == Some(name))
    {
        *told.entry(event.reason.clone().unwrap_or_default()).or_default() += event.count.unwrap_or(1);
    }
    told
}

#[tokio::test]
async fn every_failure_is_told_leaves_the_artifact_and_is_over_when_mended() -> Result<()> {
    let env = Env::new().await?;
    let max_size = format!("--artifact-max-size={MAX_SIZE}");
    let controller = env.controller(&[&max_size]).await?;
    let tenant = env.tenant("bad").await?;
    let place = Place {
        env: &env,
        tenant: &tenant,
    };
    let with_urls = FaultRegistry::start(None).await;
    let url = with_urls.url(REPOSITORY);
    let cases: Vec<_> = [broken_transfers(), bad_manifests(), bad_layers(), bad_urls(&url)]
        .into_iter()
        .flatten()
        .collect();
    let outcomes: Vec<_> = cases
        .iter()
        .map(|case| (case.name, case.reason, case.terminal))
        .collect();
    try_join_all(cases.into_iter().map(async |case| {
        let (name, own) = (case.name, FaultRegistry::start(None).await);
        let registry = if case.edit.as_ref().is_some_and(|(edit, _)| edit.get("url").is_some()) {
            &with_urls
        } else {
            &own
        };
        place.run(registry, case).await.context(name)
    }))
    .await?;
    let events = place.flush_events().await?;
    for (name, reason, terminal) in outcomes {
        let told = told(&events, name);
        assert_eq!(told.get("NewArtifact"), Some(&1), "{name}: {told:?}");
        assert_eq!(told.get("Succeeded"), Some(&1), "{name}: {told:?}");
        let failures = told.get(reason).copied().unwrap_or_default();
        assert!(if terminal { failures == 1 } else { failures >= 2 }, "{name}: {told:?}");
        assert_eq!(told.len(), 3, "{name}: {told:?}");
    }
    drop(controller);
    Ok(())
}

#[tokio::test]
async fn a_failing_object_waits_twice_as_long_each_time() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("bad").await?;
    let registry = FaultRegistry::start(None).await;
    env.create(&tenant, "absent", specs::jwt(&registry.url(REPOSITORY)))
        .await?;
    let object = env.failed(&tenant, "absent", PULL, "not found (404)").await?;
    assert!(object.status.as_ref().is_some_and(|status| status.artifact.is_none()));
    assert!(condition(&object, "ArtifactInStorage").is_none());
    assert_eq!(object.status.and_then(|status| status.observed_generation), Some(-1));
    registry.until("four passes", |requests| requests.len() >= 4).await;
    let at: Vec<_> = registry.requests().iter().map(|request| request.at).collect();
    for (index, least) in [750, 1500, 3000].into_iter().enumerate() {
        let gap = at[index + 1].duration_since(at[index]);
        assert!(
            gap >= Duration::from_millis(least),
            "pass {index}: {gap:?} instead of {least} ms"
        );
    }
    drop(controller);
    Ok(())
}
