//! The controller ends and comes back: with its storage it scans when it would have, without it at once; what happened to
//! objects meanwhile is found.

use std::fs;

use anyhow::Result;
use mintmark_api::image_repository::ImageRepository;
use mintmark_tests::{env::Env, fault_registry::FaultRegistry, history::shown, http::until, scene, specs};
use serde_json::json;

use super::{push, result, revision, scans};

type Scene = scene::Scene<ImageRepository>;

/// A scene with an object that has been scanned.
async fn scanned() -> Result<(Scene, ImageRepository)> {
    let scene = Scene::new(&[]).await?;
    push(&scene.registry, &["1", "2"]);
    let spec = json!({"image": format!("{}/app", scene.registry.host()), "insecure": true});
    scene.create(spec).await?;
    let object = scene.objects().ready("app").await?;
    scene.env.event(&scene.tenant, "app", "Succeeded").await?;
    Ok((scene, object))
}

/// Waits until the controller, which was started again, has had a pass over the object.
async fn passed(scene: &Scene) -> Result<()> {
    until("a pass", || async { Ok(scene.objects().passes("app").await? > 0) }).await
}

#[tokio::test]
async fn with_its_storage_nothing_is_scanned_before_its_time() -> Result<()> {
    let (scene, before) = scanned().await?;
    scene.controller.kill()?;
    push(&scene.registry, &["3"]);
    scene.registry.clear_records();
    scene.controller.resume()?;
    scene.controller.wait_ready().await?;
    passed(&scene).await?;
    assert_eq!(scene.registry.log(), Vec::<String>::new(), "no scan is due for an hour");
    let after = scene.objects().get("app").await?;
    assert_eq!(after, before, "and nothing is written");
    let object = scene.objects().reconcile("app").await?;
    assert_eq!(result(&object)?.revision, revision(&["1", "2", "3"]));
    Ok(())
}

#[tokio::test]
async fn no_credential_is_had_before_a_scan_is_due() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    env.service_account(&tenant, "puller").await?;
    let registry = FaultRegistry::start(None).await;
    push(&registry, &["1"]);
    let objects = env.objects::<ImageRepository>(&tenant);
    for spec in [specs::jwt(&registry.url("app")), specs::account(&registry.url("app"))] {
        let name = spec["credential"].as_str().unwrap_or_default().to_lowercase();
        objects.create(&name, specs::image(spec)).await?;
        objects.ready(&name).await?;
    }
    let issued = "mintmark_credentials_issued_total{";
    assert!(env.metrics().await?.contains(issued));
    controller.kill()?;
    registry.clear_records();
    let mark = env.mark()?;
    controller.resume()?;
    controller.wait_ready().await?;
    for name in ["spiffejwt", "serviceaccounttoken"] {
        until("a pass", || async { Ok(objects.passes(name).await? > 0) }).await?;
    }
    assert_eq!(registry.log(), Vec::<String>::new());
    let metrics = env.metrics().await?;
    assert!(!metrics.contains(issued), "{metrics}");
    let mut asked = env.requests(mark)?;
    asked.retain(|event| event.object_ref.as_ref().is_some_and(|it| it.namespace == tenant));
    assert!(asked.is_empty(), "{asked:#?}");
    Ok(())
}

#[tokio::test]
async fn without_its_storage_everything_is_scanned_and_nothing_is_news() -> Result<()> {
    let (scene, before) = scanned().await?;
    scene.controller.kill()?;
    fs::remove_dir_all(scene.controller.storage())?;
    scene.registry.clear_records();
    scene.controller.resume()?;
    scene.controller.wait_ready().await?;
    passed(&scene).await?;
    assert_eq!(scans(&scene.registry), 1);
    assert!(scene.folder().join("tags.txt").exists());
    let after = scene.objects().ready("app").await?;
    assert_eq!(shown(&after), shown(&before));
    assert_eq!(
        scene.env.told(&scene.tenant, "app", "Succeeded").await?,
        1,
        "the same tags are no news"
    );
    Ok(())
}

#[tokio::test]
async fn a_damaged_list_is_made_again() -> Result<()> {
    let (scene, before) = scanned().await?;
    scene.controller.kill()?;
    fs::write(scene.folder().join("tags.txt"), "9\n")?;
    scene.registry.clear_records();
    scene.controller.resume()?;
    scene.controller.wait_ready().await?;
    passed(&scene).await?;
    assert_eq!(scans(&scene.registry), 1);
    assert_eq!(fs::read_to_string(scene.folder().join("tags.txt"))?, "2\n1\n");
    assert_eq!(shown(&scene.objects().ready("app").await?), shown(&before));
    Ok(())
}

#[tokio::test]
async fn what_was_asked_or_edited_meanwhile_is_done() -> Result<()> {
    let (scene, _) = scanned().await?;
    let objects = scene.objects();
    scene.controller.kill()?;
    push(&scene.registry, &["3"]);
    let request = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "meanwhile"}}});
    objects.patch("app", request).await?;
    scene.controller.resume()?;
    let object = objects.wait("app", "the request is answered", |object| {
        let status = object.status.clone().unwrap_or_default();
        status.last_handled_reconcile_at.as_deref() == Some("meanwhile")
    });
    assert_eq!(result(&object.await?)?.tag_count, 3);

    scene.controller.kill()?;
    objects.edit("app", json!({"exclusionList": ["^1$"]})).await?;
    scene.controller.resume()?;
    let object = objects.ready("app").await?;
    assert_eq!(result(&object)?.revision, revision(&["2", "3"]));

    // A deleted object's tags go, and its successor's are its own.
    scene.controller.kill()?;
    let stale = scene.folder().join("tags.txt");
    objects.delete("app").await?;
    scene.controller.resume()?;
    scene.controller.wait_ready().await?;
    until("the tags of the deleted object are gone", || async {
        Ok(!stale.exists())
    })
    .await?;
    let spec = json!({"image": format!("{}/app", scene.registry.host()), "insecure": true});
    objects.create("app", spec.clone()).await?;
    objects.ready("app").await?;
    scene.controller.kill()?;
    objects.delete("app").await?;
    objects.create("app", spec).await?;
    scene.registry.clear_records();
    scene.controller.resume()?;
    objects.ready("app").await?;
    assert_eq!(
        scans(&scene.registry),
        1,
        "the former object's tags are not its successor's"
    );
    Ok(())
}

/// Status is no input: what somebody writes there decides nothing and is put right.
#[tokio::test]
async fn a_forged_status_is_put_right() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    let registry = FaultRegistry::start(None).await;
    push(&registry, &["1", "2"]);
    let objects = env.objects::<ImageRepository>(&tenant);
    let spec = json!({"image": format!("{}/app", registry.host()), "insecure": true});
    objects.create("app", spec).await?;
    let before = objects.ready("app").await?;
    let scanned = scans(&registry);
    let forged = json!({"status": {"canonicalImageName": "evil.example/app", "observedExclusionList": ["x"],
        "lastScanResult": {"revision": "sha256:0", "tagCount": 9, "latestTags": ["evil"],
            "scanTime": "2020-01-01T00:00:00Z"}}});
    let params = kube::api::PatchParams::default();
    let patch = kube::api::Patch::Merge(forged);
    objects.api().patch_status("app", &params, &patch).await?;
    // An edit that makes no scan due: only what is stored can put the status right.
    objects.edit("app", json!({"interval": "2h"})).await?;
    let after = objects.ready("app").await?;
    let shown_after = shown(&after);
    assert_eq!(
        shown_after.split_once('\n').map(|it| it.0),
        Some(
            &*shown(&before)
                .lines()
                .next()
                .unwrap()
                .replace("observed 1", "observed 2")
        )
    );
    assert_eq!(scans(&registry), scanned, "a status makes no scan due");
    Ok(())
}
