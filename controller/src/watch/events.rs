//! The events of a watch that goes on through everything an API server may do to it: errors are handed on and tried again
//! with growing delay. Needs list and watch on what is watched; never ends.

use std::fmt::Debug;

use futures::{Stream, StreamExt, stream};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;

/// Lists and watches. Also an API server that answers a watch with 410 in place of sending it as an event is listed again:
/// the watcher alone would ask for the same version for ever.
pub fn watch_events<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let begin = move || watcher(api.clone(), config.clone()).boxed();
    let first = begin();
    let events = stream::unfold((first, begin), |(mut events, begin)| async move {
        let event = events.next().await?;
        if matches!(&event, Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) if status.code == 410) {
            events = begin();
        }
        Some((event, (events, begin)))
    });
    events.default_backoff()
}
