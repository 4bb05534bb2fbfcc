//! The controller ends at a bad moment, or finds its storage damaged. A restart rebuilds everything, and leaves nothing
//! half written behind.

use std::{
    fs::{self, FileTimes, OpenOptions},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use mintmark_api::artifact::Artifact as Stored;
use mintmark_hack::controller::Controller;
use mintmark_tests::{
    env::{AUDIENCE, DEADLINE, Env, condition},
    fault_registry::{Artifact, Fault, FaultRegistry, Recorded, Route},
    http::{until, until_status},
    served::{artifact, fetch},
    stored::{expected_files, files},
};
use serde_json::json;

const NAMES: [&str; 3] = ["one", "two", "three"];
/// How long the controller may take to end when it has no documents to serve on: the grace of its tasks.
const STOP: Duration = Duration::from_secs(10);

/// Three objects, each with a repository of its own.
struct Scene {
    env: Env,
    tenant: String,
    registry: FaultRegistry,
    controller: Arc<Controller>,
}

impl Scene {
    async fn new(flags: &[&str]) -> Result<Self> {
        let env = Env::new().await?;
        let controller = Arc::new(env.controller(flags).await?);
        let tenant = env.tenant("a").await?;
        let registry = FaultRegistry::start(None).await;
        for name in NAMES {
            registry.push(name, "v1", &Artifact::flux(&[("a.yaml", name)]));
        }
        Ok(Self {
            env,
            tenant,
            registry,
            controller,
        })
    }

    async fn create(&self) -> Result<()> {
        for name in NAMES {
            let url = format!("oci://{}/{name}", self.registry.host());
            let spec = json!({"url": url, "insecure": true, "ref": {"tag": "v1"}, "credential": "SpiffeJWT",
                "audiences": [AUDIENCE]});
            self.env.create(&self.tenant, name, spec).await?;
        }
        Ok(())
    }

    /// Waits until all objects are ready and served with the digest in their status.
    async fn ready(&self) -> Result<Vec<Stored>> {
        let mut all = Vec::new();
        for name in NAMES {
            let stored = artifact(&self.env.ready(&self.tenant, name).await?)?;
            until_status(&stored.url, 200).await?;
            fetch(&stored).await?;
            all.push(stored);
        }
        Ok(all)
    }

    /// After a restart: waits for a pass of every object, then as [`Scene::ready`].
    async fn ready_again(&self) -> Result<Vec<Stored>> {
        for name in NAMES {
            self.env.reconcile(&self.tenant, name).await?;
        }
        self.ready().await
    }

    /// Waits until every object was announced once, so that later announcements can be counted.
    async fn announced(&self) -> Result<()> {
        for name in NAMES {
            self.env.event(&self.tenant, name, "NewArtifact").await?;
        }
        Ok(())
    }

    async fn announcements(&self) -> Result<i32> {
        let mut count = 0;
        for name in NAMES {
            count += self.env.told(&self.tenant, name, "NewArtifact").await?;
        }
        Ok(count)
    }

    async fn restart(&self) -> Result<()> {
        self.controller.resume()?;
        self.controller.wait_ready().await
    }

    fn file(&self, stored: &Stored) -> PathBuf {
        self.controller.storage().join(&stored.path)
    }
}

fn blob_requests(requests: &[Recorded]) -> usize {
    requests
        .iter()
        .filter(|request| request.path().contains("/blobs/"))
        .count()
}

/// What an unfinished write of an earlier process leaves.
fn leave_rubbish(scene: &Scene, stored: &Stored) -> Result<()> {
    let folder = scene.controller.storage();
    fs::write(folder.join(".staging").join("upload-1"), "half an archi")?;
    fs::write(scene.file(stored).with_extension("gz.tmp"), "half an archi")?;
    fs::write(scene.file(stored).with_file_name("sha256:0123.tar.gz"), "of no record")?;
    Ok(())
}

#[tokio::test]
async fn killed_right_after_objects_were_created() -> Result<()> {
    let scene = Scene::new(&[]).await?;
    scene.create().await?;
    scene.controller.kill()?;
    scene.restart().await?;
    let stored = scene.ready().await?;
    until("nothing else is stored", || async {
        Ok(files(&scene.controller.storage())? == expected_files(&stored))
    })
    .await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn killed_during_a_slow_pull() -> Result<()> {
    let scene = Scene::new(&[]).await?;
    scene.registry.always(Route::Blob, Fault::Stall(10));
    scene.create().await?;
    until("all are pulling", || async {
        Ok(blob_requests(&scene.registry.requests()) >= NAMES.len())
    })
    .await?;
    // By then it says that something is going on.
    scene
        .env
        .wait(&scene.tenant, "one", "progress is shown", |object| {
            condition(object, "Reconciling").is_some_and(|it| it.status == "True")
        })
        .await?;
    scene.controller.kill()?;
    assert!(
        !files(&scene.controller.storage())?
            .iter()
            .any(|file| file.ends_with(".tar.gz"))
    );
    scene.registry.heal();
    scene.restart().await?;
    let stored = scene.ready().await?;
    until("nothing else is stored", || async {
        Ok(files(&scene.controller.storage())? == expected_files(&stored))
    })
    .await?;
    for name in NAMES {
        let object = scene.env.repositories(&scene.tenant).get(name).await?;
        assert!(condition(&object, "Reconciling").is_none(), "{name}");
    }
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn killed_when_all_was_ready_with_the_storage_kept() -> Result<()> {
    let scene = Scene::new(&[]).await?;
    scene.create().await?;
    let before = scene.ready().await?;
    scene.announced().await?;
    scene.controller.kill()?;
    leave_rubbish(&scene, &before[0])?;
    scene.registry.clear_records();
    scene.restart().await?;
    // Served again without anybody asking for a pass.
    for stored in &before {
        until_status(&stored.url, 200).await?;
    }
    assert_eq!(scene.ready_again().await?, before);
    assert_eq!(blob_requests(&scene.registry.requests()), 0, "nothing is pulled again");
    assert_eq!(scene.announcements().await?, 3, "nothing is new");
    assert_eq!(
        scene.env.events(&scene.tenant).await?.len(),
        3,
        "and nothing failed meanwhile"
    );
    until("what was half written is gone", || async {
        Ok(files(&scene.controller.storage())? == expected_files(&before))
    })
    .await?;
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn killed_when_all_was_ready_with_the_storage_lost() -> Result<()> {
    let scene = Scene::new(&[]).await?;
    scene.create().await?;
    let before = scene.ready().await?;
    scene.announced().await?;
    scene.controller.kill()?;
    fs::remove_dir_all(scene.controller.storage())?;
    scene.restart().await?;
    for stored in &before {
        until_status(&stored.url, 200).await?;
    }
    let after = scene.ready_again().await?;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(
            (&before.revision, &before.digest, &before.url),
            (&after.revision, &after.digest, &after.url)
        );
    }
    assert_eq!(scene.announcements().await?, 3, "the same content is nothing new");
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn a_damaged_file_is_not_served_and_built_again() -> Result<()> {
    let scene = Scene::new(&[]).await?;
    scene.create().await?;
    let stored = scene.ready().await?;
    let (file, size) = (
        scene.file(&stored[0]),
        usize::try_from(stored[0].size.context("a size")?)?,
    );
    fs::write(&file, vec![b'x'; size])?;
    assert_eq!(reqwest::get(&stored[0].url).await?.status(), 404);
    scene.env.reconcile(&scene.tenant, "one").await?;
    let event = scene
        .env
        .event(&scene.tenant, "one", "ArtifactVerificationFailed")
        .await?;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let healed = scene.ready().await?;
    assert_eq!((&healed[0].digest, &healed[0].url), (&stored[0].digest, &stored[0].url));

    fs::remove_file(scene.file(&stored[1]))?;
    assert_eq!(reqwest::get(&stored[1].url).await?.status(), 404);
    scene.env.reconcile(&scene.tenant, "two").await?;
    let event = scene
        .env
        .event(&scene.tenant, "two", "ArtifactVerificationFailed")
        .await?;
    assert!(
        event
            .message
            .is_some_and(|message| message.contains("disappeared from storage"))
    );
    scene.ready().await?;
    assert_eq!(
        scene
            .env
            .told(&scene.tenant, "three", "ArtifactVerificationFailed")
            .await?,
        0
    );
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn silent_damage_while_it_was_down_is_found_at_the_start() -> Result<()> {
    let scene = Scene::new(&[]).await?;
    scene.create().await?;
    let stored = scene.ready().await?;
    scene.controller.kill()?;
    // Same size, same time: only a hash can tell.
    let path = scene.file(&stored[0]);
    let (mut bytes, modified) = (fs::read(&path)?, path.metadata()?.modified()?);
    *bytes.last_mut().context("an archive")? ^= 1;
    fs::write(&path, bytes)?;
    OpenOptions::new()
        .write(true)
        .open(&path)?
        .set_times(FileTimes::new().set_modified(modified))?;
    // While the registry cannot give it again, nothing is served in its place.
    scene.registry.always(Route::Any, Fault::status(404));
    scene.restart().await?;
    scene
        .env
        .event(&scene.tenant, "one", "ArtifactVerificationFailed")
        .await?;
    assert_eq!(reqwest::get(&stored[0].url).await?.status(), 404);
    until_status(&stored[1].url, 200).await?;
    scene.registry.heal();
    assert_eq!(scene.ready_again().await?[0].digest, stored[0].digest);
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn another_advertised_address_is_written_into_every_url() -> Result<()> {
    let scene = Scene::new(&[]).await?;
    scene.create().await?;
    let before = scene.ready().await?;
    scene.announced().await?;
    scene.controller.kill()?;
    let address = scene
        .controller
        .ports()
        .storage_url()
        .replace("http://127.0.0.1", "localhost");
    scene
        .controller
        .resume_with(&[&format!("--storage-adv-addr={address}")])?;
    scene.controller.wait_ready().await?;
    for (name, before) in NAMES.iter().zip(&before) {
        let object = scene
            .env
            .wait(&scene.tenant, name, "the new address", |object| {
                artifact(object).is_ok_and(|stored| stored.url == format!("http://{address}/{}", before.path))
            })
            .await?;
        let stored = artifact(&object)?;
        fetch(&stored).await?;
        assert_eq!(
            Stored {
                url: before.url.clone(),
                ..stored
            },
            *before,
            "nothing else changes"
        );
        let latest = object.status.and_then(|status| status.url).unwrap_or_default();
        assert!(latest.starts_with(&format!("http://{address}/")), "{latest}");
    }
    assert_eq!(scene.announcements().await?, 3, "nothing is new");
    scene.controller.kill()?;
    Ok(())
}

#[tokio::test]
async fn sigterm_ends_it_in_time_although_a_pull_is_stuck() -> Result<()> {
    let scene = Scene::new(&["--issuer-addr="]).await?;
    scene.registry.always(Route::Blob, Fault::Stall(10));
    scene.create().await?;
    until("a pull is stuck", || async {
        Ok(blob_requests(&scene.registry.requests()) > 0)
    })
    .await?;
    let (controller, start) = (scene.controller.clone(), Instant::now());
    let status = tokio::task::spawn_blocking(move || controller.stop()).await??;
    assert!(status.success(), "{status}: {}", scene.controller.log()?);
    assert!(start.elapsed() < STOP + Duration::from_secs(3), "{:?}", start.elapsed());
    Ok(())
}

#[tokio::test]
async fn documents_outlive_everything_else_after_sigterm() -> Result<()> {
    let scene = Scene::new(&[]).await?;
    scene.create().await?;
    scene.ready().await?;
    let ports = scene.controller.ports();
    let keys = format!("{}/keys", ports.issuer_url());
    let before = reqwest::get(&keys).await?.error_for_status()?.text().await?;
    assert!(before.contains("\"kid\""), "{before}");
    // Its end, 15 s later, is not waited for: it ends with this process.
    let controller = scene.controller.clone();
    std::thread::spawn(move || controller.stop());
    let start = Instant::now();
    until("the artifact port is closed", || async {
        Ok(reqwest::get(ports.storage_url())
            .await
            .is_err_and(|error| error.is_connect()))
    })
    .await?;
    // A registry that verifies a token on the pull path now still finds the keys.
    let after = reqwest::get(&keys).await?.error_for_status()?.text().await?;
    assert_eq!(after, before);
    assert!(start.elapsed() < DEADLINE);
    Ok(())
}
