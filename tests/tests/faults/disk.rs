//! The storage's volume is full, too full, or read-only. What is stored stays served, the status says what is wrong, nothing
//! half written stays, and everything goes on by itself once the volume is good again.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Result;
use mintmark_hack::controller::Controller;
use mintmark_tests::{
    crowd,
    env::{Env, condition},
    fault_registry::{Artifact, Entry, FaultRegistry, layer},
    fleet::Observer,
    http::until,
    served::{artifact, fetch},
    small_disk::SmallDisk,
    specs::{jwt, with},
    stored::{Records, check_whole, difference, expected_files, files},
};
use serde_json::json;

const OBJECTS: usize = 20;
const DISK: u64 = 4 * 1024 * 1024;
/// How soon all is well again: the longest delay after a failed pass, and time to pull.
const MENDED: Duration = Duration::from_secs(15);
const FLAGS: &[&str] = &["--max-retry-delay=3s", "--artifact-retention-ttl=2s"];

struct Scene {
    env: Env,
    tenant: String,
    registry: FaultRegistry,
    observer: Observer,
    disk: SmallDisk,
    _controller: Controller,
}

fn name(index: usize) -> String {
    format!("app-{index:02}")
}

/// Content of about 20 KiB that does not compress.
fn content() -> Artifact {
    let noise: Vec<u8> = (0..20_000).map(|_| rand::random()).collect();
    Artifact::with_layer(&layer(&[Entry::File("noise", &noise)]))
}

impl Scene {
    async fn new(flags: &[&str]) -> Result<Self> {
        let (env, disk) = (Env::new().await?, SmallDisk::new(DISK)?);
        let controller = env.start_on(&disk, &[FLAGS, flags].concat())?;
        controller.wait_ready().await?;
        let tenant = env.tenant("disk").await?;
        let scene = Self {
            observer: Observer::new(env.repositories(&tenant)),
            registry: FaultRegistry::start(None).await,
            env,
            tenant,
            disk,
            _controller: controller,
        };
        let revisions = scene.push();
        crowd::create(
            &scene.env,
            &scene.tenant,
            (0..OBJECTS).map(|it| scene.object(&name(it))),
        )
        .await?;
        scene.ready(&revisions).await?;
        Ok(scene)
    }

    fn object(&self, name: &str) -> (String, serde_json::Value) {
        (
            name.to_owned(),
            with(jwt(&self.registry.url(name)), json!({"interval": "1s"})),
        )
    }

    /// Pushes other content for every object and returns what each has to have.
    fn push(&self) -> BTreeMap<String, String> {
        let push = |name: String| {
            let content = content();
            self.registry.push(&name, "v1", &content);
            (name, format!("v1@{}", content.digest()))
        };
        (0..OBJECTS).map(name).map(push).collect()
    }

    /// Waits until all objects have this, and the storage nothing else.
    async fn ready(&self, revisions: &BTreeMap<String, String>) -> Result<()> {
        let artifacts = crowd::ready_with(&self.observer, MENDED, revisions).await?;
        for artifact in artifacts.values() {
            fetch(artifact).await?;
        }
        let (storage, expected) = (self.disk.storage()?, expected_files(artifacts.values()));
        let tidy = until("the storage holds what the objects name", || async {
            Ok(files(&storage).is_ok_and(|found| found == expected))
        });
        tidy.await.map_err(|error| {
            error.context(format!(
                "{:#?}",
                difference(&files(&storage).unwrap_or_default(), &expected)
            ))
        })?;
        let records = Records {
            whole: revisions.len(),
            ..Records::default()
        };
        assert_eq!(check_whole(&storage)?, records);
        Ok(())
    }

    /// Waits until every object says that storing failed, in these words; the artifact before is still named and served.
    async fn all_fail(&self, text: &str) -> Result<()> {
        for index in 0..OBJECTS {
            let object = self
                .env
                .failed(&self.tenant, &name(index), "ArchiveOperationFailed", text)
                .await?;
            let failed = condition(&object, "StorageOperationFailed").expect("the condition");
            assert_eq!(
                (failed.status.as_str(), failed.reason.as_str()),
                ("True", "ArchiveOperationFailed")
            );
            assert!(failed.message.contains(text), "{failed:?}");
            assert_eq!(
                condition(&object, "ArtifactInStorage").expect("the condition").status,
                "True"
            );
            fetch(&artifact(&object)?).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_keeps_what_is_stored_and_is_survived() -> Result<()> {
    let scene = Scene::new(&[]).await?;
    scene.disk.fill()?;
    let revisions = scene.push();
    scene.all_fail("No space left on device").await?;
    check_whole(&scene.disk.storage()?)?;
    scene.disk.clear()?;
    scene.ready(&revisions).await
}

#[tokio::test]
async fn a_disk_that_is_too_full_takes_nothing_new() -> Result<()> {
    let scene = Scene::new(&["--storage-min-free=20"]).await?;
    scene.disk.fill_up_to(19)?;
    let revisions = scene.push();
    scene.all_fail("storage volume has less than 20% free").await?;
    scene.disk.clear()?;
    scene.ready(&revisions).await
}

#[tokio::test]
async fn a_read_only_disk_keeps_what_is_stored_and_is_survived() -> Result<()> {
    let scene = Scene::new(&[]).await?;
    // Refused while anything is written.
    until("the disk is read-only", || async {
        Ok(scene.disk.set_read_only(true).is_ok())
    })
    .await?;
    let mut revisions = scene.push();
    scene.all_fail("Read-only file system").await?;
    // A new object has nothing to serve, and says why.
    let (new, spec) = scene.object("new");
    let first = content();
    scene.registry.push(&new, "v1", &first);
    revisions.insert(new.clone(), format!("v1@{}", first.digest()));
    scene.env.create(&scene.tenant, &new, spec).await?;
    scene
        .env
        .failed(&scene.tenant, &new, "ArchiveOperationFailed", "Read-only file system")
        .await?;
    scene.disk.set_read_only(false)?;
    scene.ready(&revisions).await
}
