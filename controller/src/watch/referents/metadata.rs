//! The watch on the metadata of Secrets and service accounts, where the opt-in rights to it are granted (`config/referents`).
//! Without them, passes read for themselves; the rights are asked for again now and then. Of what it is sent, only name and
//! resourceVersion are looked at, nothing is kept.

use std::time::Duration;

use futures::{Stream, StreamExt, stream::select};
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Secret, ServiceAccount},
};
use kube::{
    Api, Client, Resource,
    core::PartialObjectMeta,
    runtime::watcher::{self, watcher},
};
use tokio::time::sleep;

use super::{ReferentFollower, ReferentKind};
use crate::runtime::{backoff::BackoffPolicy, metrics::Metrics, supervise::chain};

/// Pauses before the rights are asked for again: to ask costs one refused request.
const REFUSED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_mins(5));
/// Pauses before an interrupted watch is begun again.
const INTERRUPTED: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Watches for all followers.
#[derive(Debug)]
pub struct ReferentWatch {
    /// The one namespace that is looked at; `None`: all.
    pub namespace: Option<String>,
    /// Who is told, one for each kind of objects.
    pub followers: Vec<ReferentFollower>,
    /// Where it is shown whether there is a watch.
    pub metrics: Metrics,
}

/// How a watch ended.
struct Ended {
    error: watcher::Error,
    /// It had told everything until then.
    was_complete: bool,
}

impl ReferentWatch {
    /// Watches for ever, or asks for the rights for ever. Needs `list` and `watch` on Secrets and service accounts.
    pub async fn run(self, client: Client) {
        let mut is_refusal_told = false;
        let mut failures = 0;
        loop {
            let Ended { error, was_complete } = self.watch(&client).await;
            self.followers.iter().for_each(|follower| follower.index.lost());
            self.metrics.set_referents_watched(false);
            if was_complete {
                (failures, is_refusal_told) = (0, false);
            }
            failures += 1;
            let is_refused = is_refused(&error);
            if !is_refused {
                tracing::error!(error = chain(&error), "watch of referents interrupted; retrying");
            } else if !std::mem::replace(&mut is_refusal_told, true) {
                tracing::info!(
                    "no rights to watch Secrets and ServiceAccounts (config/referents): a change of one takes effect with \
                     the next pass of each object"
                );
            }
            let (min, max) = if is_refused { REFUSED } else { INTERRUPTED };
            let pauses = BackoffPolicy::new(min, max).unwrap_or_default();
            sleep(pauses.delay(failures)).await;
        }
    }

    /// Watches until something fails. Then it is begun anew, with a list: so nothing that happened meanwhile is missed.
    async fn watch(&self, client: &Client) -> Ended {
        let secrets = self.events::<Secret>(client, ReferentKind::Secret);
        let accounts = self.events::<ServiceAccount>(client, ReferentKind::ServiceAccount);
        let mut events = std::pin::pin!(select(secrets, accounts));
        let mut was_complete = false;
        while let Some(event) = events.next().await {
            if let Err(error) = event {
                return Ended { error, was_complete };
            }
            if !was_complete && self.followers.iter().all(|follower| follower.index.is_watched()) {
                was_complete = true;
                self.metrics.set_referents_watched(true);
                tracing::info!("Secrets and ServiceAccounts are watched");
            }
        }
        let error = watcher::Error::NoResourceVersion;
        Ended { error, was_complete }
    }

    /// Takes in the events of one kind, as they are asked for.
    fn events<K>(&self, client: &Client, kind: ReferentKind) -> impl Stream<Item = watcher::Result<()>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + Send + 'static,
    {
        let api: Api<PartialObjectMeta<K>> = match &self.namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let events = watcher(api, watcher::Config::default());
        events.map(move |event| {
            let event = event?;
            for follower in &self.followers {
                follower.handle(kind, &event);
            }
            Ok(())
        })
    }
}

/// Whether the rights are missing.
fn is_refused(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status.code == 403,
        _ => false,
    }
}
