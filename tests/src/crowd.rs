//! Many objects: made by several clients at a time, and waited for as a whole.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use mintmark_api::artifact::Artifact;
use serde_json::Value;

use crate::{env::Env, fleet::Observer, http::until_within};

/// Requests to the API server at a time.
const CLIENTS: usize = 16;

/// Creates an OCIRepository per name and spec.
pub async fn create(env: &Env, namespace: &str, objects: impl IntoIterator<Item = (String, Value)>) -> Result<()> {
    each(objects, async |(name, spec)| {
        env.create(namespace, &name, spec).await.map(drop)
    })
    .await
}

/// Does something for every item, for several at a time.
pub async fn each<T>(items: impl IntoIterator<Item = T>, act: impl AsyncFn(T) -> Result<()>) -> Result<()> {
    stream::iter(items)
        .map(|item| act(item))
        .buffer_unordered(CLIENTS)
        .try_collect::<()>()
        .await
}

/// Waits until exactly these objects of the namespace are ready, each with its revision, and returns their artifacts.
pub async fn ready_with(
    observer: &Observer,
    limit: Duration,
    revisions: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Artifact>> {
    let what = format!("{} objects ready with their revisions", revisions.len());
    let waited = until_within(limit, &what, async || {
        let shown = observer.shown();
        Ok(revisions
            .iter()
            .all(|(name, wanted)| shown.ready.get(name) == Some(wanted)))
    })
    .await;
    let shown = observer.shown();
    waited.with_context(|| {
        let late = revisions
            .iter()
            .filter(|(name, wanted)| shown.ready.get(*name) != Some(wanted));
        let late: Vec<_> = late
            .map(|(name, wanted)| (name, wanted, shown.ready.get(name)))
            .collect();
        let some: Vec<_> = late.iter().take(10).collect();
        format!("{} are not, such as {some:#?}", late.len())
    })?;
    let artifacts = shown.artifacts.iter();
    Ok(artifacts
        .filter(|(name, _)| revisions.contains_key(*name))
        .map(|(name, artifact)| (name.clone(), artifact.clone()))
        .collect())
}
