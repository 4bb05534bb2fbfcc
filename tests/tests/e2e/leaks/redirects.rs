//! Redirects: what goes along to another origin, and where nobody follows.

use anyhow::Result;
use mintmark_tests::{
    fault_registry::{Fault, Route, Verdict},
    served,
};

use super::{PLANTED, REPOSITORY, World, artifact, blob_of, has_identity};

#[tokio::test]
async fn redirected_content_arrives_without_the_credential() -> Result<()> {
    let world = World::new().await?;
    let manifest = format!(
        "{}/v2/{REPOSITORY}/manifests/{}?sig={PLANTED}",
        world.store.origin(),
        artifact().digest()
    );
    world.registry.always(Route::ManifestGet, Fault::redirect(manifest));
    world
        .registry
        .always(Route::Blob, Fault::redirect(blob_of(&world.store)));
    for (name, spec) in world.objects() {
        world.env.create(&world.tenant, name, spec).await?;
    }
    for (name, _) in world.objects() {
        let object = world.env.ready(&world.tenant, name).await?;
        served::fetch(&served::artifact(&object)?).await?;
    }
    assert_eq!(
        world.store.requests().len(),
        6,
        "manifest and blob of each: {:?}",
        world.store.log()
    );
    assert!(
        world
            .store
            .requests()
            .iter()
            .all(|request| request.query().contains(PLANTED))
    );
    assert!(world.registry.requests().iter().all(has_identity));
    assert_eq!(world.tokens().len(), 6, "HEAD, manifest and blob of two objects");
    world.check().await
}

#[tokio::test]
async fn nothing_goes_from_https_to_http() -> Result<()> {
    let world = World::new().await?;
    world
        .registry
        .always(Route::Blob, Fault::redirect(blob_of(&world.clear)));
    world
        .all_fail("OCIArtifactPullFailed", "redirect refused: from https to http")
        .await?;
    assert_eq!(world.clear.accepted(), 0);

    // Not by a detour either.
    world.registry.heal();
    world
        .registry
        .always(Route::Blob, Fault::redirect(blob_of(&world.store)));
    world.store.always(Route::Blob, Fault::redirect(blob_of(&world.clear)));
    world.store.until("the detour", |requests| requests.len() >= 3).await;
    assert_eq!(world.clear.accepted(), 0);
    world.check().await
}

#[tokio::test]
async fn a_redirect_target_that_wants_a_credential_gets_none() -> Result<()> {
    let world = World::new().await?;
    world
        .registry
        .always(Route::Blob, Fault::redirect(blob_of(&world.store)));
    let realms =
        [world.store.origin(), world.registry.origin()].map(|origin| format!("Bearer realm=\"{origin}/token\""));
    world.store.set_gate(move |_| {
        let mut challenges = realms.to_vec();
        challenges.push("Basic realm=\"x\"".to_owned());
        Verdict::Challenge(challenges)
    });
    world
        .all_fail("OCIArtifactPullFailed", "registry answered with unexpected status 401")
        .await?;
    assert!(
        world
            .store
            .requests()
            .iter()
            .all(|request| request.path().contains("/blobs/"))
    );
    assert!(
        !world.registry.log().iter().any(|line| line.contains("/token")),
        "the challenge was answered"
    );
    world.check().await
}
