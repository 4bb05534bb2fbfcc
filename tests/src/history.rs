//! Every status that an object had, as a watch brings them: conditions with their generation, reason and message, what was
//! observed and what was found. Times are left out, and so are two equal ones in a row.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use futures::StreamExt;
use kube::{Api, runtime::watcher};
use tokio_util::task::AbortOnDropHandle;

use crate::{http::until, objects::Kind};

/// The statuses of one object from the begin of the watch. It ends when this is dropped.
pub struct History {
    seen: Arc<Mutex<Vec<String>>>,
    taken: usize,
    _watch: AbortOnDropHandle<()>,
}

impl History {
    /// Watches the object `name`, which need not exist yet.
    pub fn of<K: Kind>(api: Api<K>, name: &str) -> Self {
        let seen = Arc::new(Mutex::new(Vec::<String>::new()));
        let (into, name) = (Arc::clone(&seen), name.to_owned());
        let watch = tokio::spawn(async move {
            let mut objects = std::pin::pin!(watcher::watch_object(api, &name));
            while let Some(object) = objects.next().await {
                let Ok(object) = object else { continue };
                let shown = object.as_ref().map_or_else(|| GONE.to_owned(), shown);
                let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
                let is_news = match seen.last() {
                    Some(last) => *last != shown,
                    None => shown != GONE,
                };
                if is_news && !is_progress(&shown) {
                    seen.push(shown);
                }
            }
        });
        Self {
            seen,
            taken: 0,
            _watch: AbortOnDropHandle::new(watch),
        }
    }

    /// Waits until `last` is the latest, and returns all since the last call. Statuses that only show progress are left
    /// out: whether a pass is slow enough for that depends on the machine.
    pub async fn up_to(&mut self, last: &str) -> Result<Vec<String>> {
        let what = format!("the status is {last}");
        let reached = until(&what, || async {
            Ok(self.all().last().is_some_and(|seen| seen == last))
        })
        .await;
        reached.with_context(|| format!("seen: {:#?}", self.since()))?;
        let since = self.since();
        self.taken += since.len();
        Ok(since)
    }

    fn all(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn since(&self) -> Vec<String> {
        self.all().split_off(self.taken)
    }
}

/// What stands for an object that does not exist.
pub const GONE: &str = "gone";

/// `observed <generation>, <what was found>`, then a line for each condition:
/// `<type>=<status> <reason> @<generation>: <message>`.
pub fn shown<K: Kind>(object: &K) -> String {
    let observed = object.observed_generation().unwrap_or_default();
    let conditions = object.conditions().iter().map(|it| {
        let generation = it.observed_generation.unwrap_or_default();
        format!(
            "\n{}={} {} @{generation}: {}",
            it.type_, it.status, it.reason, it.message
        )
    });
    format!(
        "observed {observed}, {}{}",
        object.found(),
        conditions.collect::<String>()
    )
}

fn is_progress(shown: &str) -> bool {
    shown.contains("\nReady=Unknown Progressing ")
}
