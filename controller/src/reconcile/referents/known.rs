//! What referents held when they were last read, one reading for all objects that refer to the same. While a watch tells of
//! every change, a reading serves until then, and those who need a new one at the same time share one GET. What nobody
//! refers to any more is dropped.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use kube::{Api, Client};

use super::{Account, ProxySecret, Referent, TlsSecret, Unread};
use crate::{
    credential::PullSecret,
    runtime::api_server::timely,
    watch::{ObjectKey, ReferentIndex, ReferentKey, Version, version},
};

/// A GET is repeated so often for a change that was told while it was under way. The next pass brings what is newer still.
const ATTEMPTS: usize = 3;

/// The referents of the objects of one kind.
#[derive(Debug, Default)]
pub struct KnownReferents {
    index: Arc<ReferentIndex>,
    pub(super) tls: Readings<TlsSecret>,
    pub(super) proxies: Readings<ProxySecret>,
    pub(super) pull_secrets: Readings<PullSecret>,
    pub(super) accounts: Readings<Account>,
}

impl KnownReferents {
    /// Nothing known yet; `index` is told by a watch, if there is one.
    pub fn new(index: &Arc<ReferentIndex>) -> Self {
        Self {
            index: index.clone(),
            tls: Readings::new(index),
            proxies: Readings::new(index),
            pull_secrets: Readings::new(index),
            accounts: Readings::new(index),
        }
    }

    /// The object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.keep_only(key, &HashSet::new());
    }

    /// The object refers to nothing else.
    pub(super) fn keep_only(&self, key: &ObjectKey, referents: &HashSet<ReferentKey>) {
        for orphan in self.index.keep_only(key, referents) {
            self.tls.drop_orphan(&orphan);
            self.proxies.drop_orphan(&orphan);
            self.pull_secrets.drop_orphan(&orphan);
            self.accounts.drop_orphan(&orphan);
        }
    }

    /// Whether every change is told.
    pub fn is_watched(&self) -> bool {
        self.index.is_watched()
    }

    /// Whether the object refers to something that may change without its being told.
    pub fn has_unwatched(&self, key: &ObjectKey) -> bool {
        self.index.has_referents(key) && !self.is_watched()
    }
}

/// What one GET came to.
struct Reading<R> {
    version: Version,
    outcome: Result<Arc<R>, Unread>,
}

impl<R> Clone for Reading<R> {
    fn clone(&self) -> Self {
        Self {
            version: self.version,
            outcome: self.outcome.clone(),
        }
    }
}

type Flight<R> = BoxFuture<'static, Result<Reading<R>, Arc<kube::Error>>>;

/// The newest reading of one referent, and the GET for the next.
struct Slot<R> {
    reading: Option<Reading<R>>,
    flight: Option<Shared<Flight<R>>>,
}

/// The readings of one sort.
pub struct Readings<R> {
    index: Arc<ReferentIndex>,
    slots: Mutex<HashMap<ReferentKey, Slot<R>>>,
}

impl<R: Referent> Readings<R> {
    fn new(index: &Arc<ReferentIndex>) -> Self {
        Self {
            index: index.clone(),
            slots: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ReferentKey, Slot<R>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was read last, however long ago.
    pub(super) fn kept(&self, object: &ObjectKey, referent: &ReferentKey) -> Option<Result<Arc<R>, Unread>> {
        let slots = self.lock();
        self.index.depend(object, referent);
        Some(slots.get(referent)?.reading.as_ref()?.outcome.clone())
    }

    /// What `referent` holds now; an error says that the API server did not tell.
    pub(super) async fn get(
        &self,
        client: &Client,
        object: &ObjectKey,
        referent: &ReferentKey,
    ) -> Result<Result<Arc<R>, Unread>, Arc<kube::Error>> {
        let mut attempt = 1;
        loop {
            let reading = match self.next(client, object, referent) {
                Next::Newest(outcome) => return Ok(outcome),
                Next::Shared(flight) => flight.await?,
                Next::Own(flight) => flight.await?,
            };
            self.keep(referent, &reading);
            if attempt == ATTEMPTS || !self.index.is_outdated(referent, reading.version) {
                return Ok(reading.outcome);
            }
            attempt += 1;
        }
    }

    /// How `object` comes to a reading. A GET is shared only while changes are told: without that, one that began earlier
    /// may answer with what was there before somebody asked for this pass.
    fn next(&self, client: &Client, object: &ObjectKey, referent: &ReferentKey) -> Next<R> {
        let mut slots = self.lock();
        let known = self.index.depend(object, referent);
        let get = || get::<R>(client.clone(), referent.key.clone(), known).boxed();
        if !self.index.is_watched() {
            return Next::Own(get());
        }
        let slot = slots.entry(referent.clone()).or_default();
        if let Some(reading) = &slot.reading
            && self.index.is_newest(referent, reading.version)
        {
            return Next::Newest(reading.outcome.clone());
        }
        // A flight that has ended brought what is outdated already, or an error.
        let flight = slot.flight.take().filter(|flight| flight.peek().is_none());
        let flight = flight.unwrap_or_else(|| get().shared());
        slot.flight = Some(flight.clone());
        Next::Shared(flight)
    }

    fn keep(&self, referent: &ReferentKey, reading: &Reading<R>) {
        let mut slots = self.lock();
        let exists = !matches!(reading.outcome, Err(Unread::NotFound));
        self.index.has_read(referent, reading.version, exists);
        if !self.index.is_referred_to(referent) {
            return;
        }
        let slot = slots.entry(referent.clone()).or_default();
        slot.flight = slot.flight.take().filter(|flight| flight.peek().is_none());
        if slot.reading.as_ref().is_none_or(|held| held.version <= reading.version) {
            slot.reading = Some(reading.clone());
        }
    }

    /// Drops what the API server no longer lets us read.
    pub(super) fn drop_one(&self, referent: &ReferentKey) {
        self.lock().remove(referent);
    }

    /// Drops what nobody refers to, unless somebody has begun to.
    fn drop_orphan(&self, referent: &ReferentKey) {
        let mut slots = self.lock();
        if !self.index.is_referred_to(referent) {
            slots.remove(referent);
        }
    }
}

/// How one comes to a reading.
enum Next<R> {
    Newest(Result<Arc<R>, Unread>),
    Shared(Shared<Flight<R>>),
    Own(Flight<R>),
}

/// One GET. `known` is the newest version known when it began: the version of finding nothing.
async fn get<R: Referent>(client: Client, key: ObjectKey, known: Version) -> Result<Reading<R>, Arc<kube::Error>> {
    let api: Api<R::Source> = Api::namespaced(client, &key.namespace);
    let Some(mut source) = timely(api.get_opt(&key.name)).await.map_err(Arc::new)? else {
        let outcome = Err(Unread::NotFound);
        return Ok(Reading {
            version: known,
            outcome,
        });
    };
    let outcome = R::parse(&source).map(Arc::new).map_err(Unread::Invalid);
    R::wipe(&mut source);
    Ok(Reading {
        version: version(&source),
        outcome,
    })
}

impl<R> Default for Slot<R> {
    fn default() -> Self {
        Self {
            reading: None,
            flight: None,
        }
    }
}

impl<R: Referent> Default for Readings<R> {
    fn default() -> Self {
        Self::new(&Arc::default())
    }
}

impl<R> fmt::Debug for Readings<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readings").finish_non_exhaustive()
    }
}
