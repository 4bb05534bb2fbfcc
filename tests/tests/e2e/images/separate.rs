//! The tags of an object are its own, whoever else looks at the same image: what one may see, another may not.

use std::fs;

use anyhow::Result;
use mintmark_api::image_repository::ImageRepository;
use mintmark_hack::registry::Artifact;
use mintmark_tests::{env::Env, http::until, specs};
use serde_json::json;

use super::{result, text};

#[tokio::test]
async fn tags_are_not_shared_between_objects_of_one_image() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let (a, b) = (env.tenant("a").await?, env.tenant("b").await?);
    let registry = env.jwt_registry()?;
    for tag in ["1", "2", "dev"] {
        let artifact = Artifact::from_files(&[("a.yaml", tag.as_bytes())])?;
        registry.push("team/app", tag, &artifact).await?;
    }
    let (of_a, of_b) = (env.objects::<ImageRepository>(&a), env.objects::<ImageRepository>(&b));
    registry.set_readers("team/app", &[&of_a.spiffe_id("all"), &of_a.spiffe_id("some")])?;
    let spec = specs::image(specs::jwt(&registry.url("team/app")));
    of_a.create("all", spec.clone()).await?;
    of_a.create("some", specs::with(spec.clone(), json!({"exclusionList": ["dev"]})))
        .await?;
    assert_eq!(result(&of_a.ready("all").await?)?.tag_count, 3);
    assert_eq!(result(&of_a.ready("some").await?)?.tag_count, 2);

    // Whoever may not read the image gets nothing of what others have read, now or later.
    of_b.create("all", spec).await?;
    let refused = of_b.failed("all", "AuthenticationFailed", "403").await?;
    assert!(result(&refused).is_err());
    let folder = |namespace: &str, name: &str| {
        let folder = controller.storage().join("imagerepository");
        folder.join(namespace).join(name).join("tags.txt")
    };
    assert!(!folder(&b, "all").exists());
    of_b.reconcile("all").await?;
    assert!(!folder(&b, "all").exists());
    assert!(result(&of_b.get("all").await?).is_err());
    assert_eq!(fs::read_to_string(folder(&a, "all"))?, text(&["1", "2", "dev"]));
    assert_eq!(fs::read_to_string(folder(&a, "some"))?, text(&["1", "2"]));

    // The tags go with their object, and with no other.
    of_a.delete("all").await?;
    until("its tags are gone", || async { Ok(!folder(&a, "all").exists()) }).await?;
    assert_eq!(fs::read_to_string(folder(&a, "some"))?, text(&["1", "2"]));
    of_a.reconcile("some").await?;
    assert_eq!(result(&of_a.ready("some").await?)?.tag_count, 2);
    Ok(())
}

/// What is stored is not handed to whoever serves artifacts: tags have no address.
#[tokio::test]
async fn tags_are_not_served() -> Result<()> {
    let env = Env::new().await?;
    let controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    let registry = env.jwt_registry()?;
    let artifact = Artifact::from_files(&[("a.yaml", b"a: 1")])?;
    registry.push("team/app", "1", &artifact).await?;
    registry.allow_anonymous("team/app")?;
    let objects = env.objects::<ImageRepository>(&tenant);
    let spec = json!({"image": specs::image_name(&registry.url("team/app")), "insecure": true});
    objects.create("app", spec).await?;
    objects.ready("app").await?;
    let path = format!("imagerepository/{tenant}/app/tags.txt");
    assert!(controller.storage().join(&path).exists());
    let url = format!("{}/{path}", env.ports.storage_url());
    assert_eq!(reqwest::get(&url).await?.status(), 404);
    Ok(())
}
