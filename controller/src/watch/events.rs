//! The events of a watch that goes on through everything an API server may do to it: errors are handed on and tried again
//! with growing delay. Needs list and watch on what is watched; never ends.

use std::{fmt::Debug, time::Duration};

use futures::{Stream, StreamExt, stream};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, utils::Backoff, watcher},
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
    events.backoff(Delays::default())
}

/// The longest wait before a watch that failed is tried again. The watcher's own goes to 30 s: that much later the end of an
/// outage would be known.
const LONGEST: Duration = Duration::from_secs(10);

/// The watcher's own delays as far as [`LONGEST`].
#[derive(Default)]
struct Delays(watcher::DefaultBackoff);

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|delay| delay.min(LONGEST))
    }
}

impl Backoff for Delays {
    fn reset(&mut self) {
        self.0.reset();
    }
}
