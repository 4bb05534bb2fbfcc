//! From an event about a Secret or ServiceAccount to the queue: whoever refers to it looks again, the first at once and the
//! others one after the other, so that a referent of thousands makes no burst.

use std::{sync::Arc, time::Duration};

use kube::{Resource, core::PartialObjectMeta, runtime::watcher::Event};

use super::{ReferentIndex, ReferentKey, ReferentKind, Version};
use crate::watch::{ObjectKey, Queue, objects::version};

/// Between two of the passes that one change asks for: a hundred a second.
const SPREAD: Duration = Duration::from_millis(10);

/// Keeps the index up to date and queues who has to look again.
#[derive(Debug)]
pub struct ReferentFollower {
    /// Who refers to what.
    pub index: Arc<ReferentIndex>,
    /// Where they are queued.
    pub queue: Arc<Queue<ObjectKey>>,
}

impl ReferentFollower {
    /// Takes in an event about a referent of this kind.
    pub fn handle<K>(&self, kind: ReferentKind, event: &Event<PartialObjectMeta<K>>)
    where
        K: Resource<DynamicType = ()>,
    {
        match event {
            Event::Init => self.index.list_begins(kind),
            Event::InitApply(object) => self.tell(kind, object, ReferentIndex::listed),
            Event::InitDone => {
                for dependents in self.index.list_ends(kind) {
                    self.queue.push_spread(&dependents, SPREAD);
                }
            }
            Event::Apply(object) => self.tell(kind, object, ReferentIndex::changed),
            Event::Delete(object) => self.tell(kind, object, ReferentIndex::deleted),
        }
    }

    fn tell<K>(
        &self,
        kind: ReferentKind,
        object: &PartialObjectMeta<K>,
        take: fn(&ReferentIndex, &ReferentKey, Version) -> Vec<ObjectKey>,
    ) where
        K: Resource<DynamicType = ()>,
    {
        let key = ObjectKey::of(object);
        let dependents = take(&self.index, &ReferentKey { kind, key }, version(object));
        self.queue.push_spread(&dependents, SPREAD);
    }
}
