//! Many tags: every page is read, in whatever order, and what is stored is the whole list or what was stored before.

use std::{fs, io::Read};

use anyhow::Result;
use flate2::read::GzDecoder;
use mintmark_api::image_repository::ImageRepository;
use mintmark_tests::{
    env::Env,
    fault_registry::{Artifact, Fault, FaultRegistry, Route},
};
use serde_json::json;

use super::{message, result, revision, text};

/// More than twelve pages, and more than 64 KiB.
const TAGS: usize = 12_345;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("build-{number}")).collect()
}

#[tokio::test]
async fn all_pages_are_one_list() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    let registry = FaultRegistry::start(None).await;
    let artifact = Artifact::flux(&[("a.yaml", "a")]);
    let names = names(TAGS);
    for name in &names {
        registry.push("app", name, &artifact);
    }
    registry.push("app", "build-1.sig", &artifact);
    let tags: Vec<&str> = names.iter().map(String::as_str).collect();
    let objects = env.objects::<ImageRepository>(&tenant);
    let spec = json!({"image": format!("{}/app", registry.host()), "insecure": true});
    objects.create("app", spec).await?;
    let object = objects.ready("app").await?;
    let found = result(&object)?;
    assert_eq!((found.tag_count, found.revision), (12_345, revision(&tags)));
    let expected = text(&tags);
    let latest: Vec<_> = expected.lines().take(10).collect();
    assert_eq!(found.latest_tags, latest);
    assert_eq!(latest[0], "build-9999");
    let pages = registry.requests().len();
    assert_eq!(pages, 13, "{:#?}", registry.log());
    let folder = controller.storage().join("imagerepository").join(&tenant).join("app");
    let mut stored = String::new();
    GzDecoder::new(fs::File::open(folder.join("tags.txt.gz"))?).read_to_string(&mut stored)?;
    assert!(stored == expected, "other tags are stored");

    // A page in the middle fails: not the half of the list, but the one that was stored.
    registry.with_content(|content| content.untag("app", "build-9999"));
    registry.clear_records();
    registry.times(1, Route::Tags, Fault::Chunked);
    registry.always(Route::Tags, Fault::status(404));
    let object = objects.reconcile("app").await?;
    assert_eq!(registry.requests().len(), 2, "{:#?}", registry.log());
    assert_eq!(result(&object)?.revision, revision(&tags));
    objects.failed("app", "ReadOperationFailed", "404").await?;

    // Few tags again: the compressed list goes.
    registry.heal();
    for name in names.iter().skip(3) {
        registry.with_content(|content| content.untag("app", name));
    }
    let object = objects.reconcile("app").await?;
    let few: Vec<&str> = tags.iter().take(3).copied().collect();
    assert_eq!(result(&object)?.revision, revision(&few));
    let ready = objects.ready("app").await?;
    assert_eq!(ready.status.unwrap_or_default().conditions[0].message, message(&few));
    assert_eq!(fs::read_to_string(folder.join("tags.txt"))?, text(&few));
    Ok(())
}

#[tokio::test]
async fn a_list_that_is_too_long_is_refused_whole() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&["--tag-list-max-bytes=20000"]).await?;
    let tenant = env.tenant("a").await?;
    let registry = FaultRegistry::start(None).await;
    let artifact = Artifact::flux(&[("a.yaml", "a")]);
    for name in names(3_000) {
        registry.push("app", &name, &artifact);
    }
    let objects = env.objects::<ImageRepository>(&tenant);
    let spec = json!({"image": format!("{}/app", registry.host()), "insecure": true});
    objects.create("app", spec).await?;
    let object = objects.failed("app", "ReadOperationFailed", "20000").await?;
    assert!(result(&object).is_err());
    Ok(())
}
