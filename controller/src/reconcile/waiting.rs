//! Objects whose pass ended because nothing can sign yet. They are requeued together the moment something can.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    credential::SigningReceiver,
    issuing::can_sign,
    watch::{ObjectKey, Queue},
};

/// The keys of the objects that wait for the issuer.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashSet<ObjectKey>>);

impl Waiting {
    /// `key` waits until the issuer can sign.
    pub fn add(&self, key: ObjectKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
    }

    /// `key` no longer waits.
    pub fn remove(&self, key: &ObjectKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn take(&self) -> HashSet<ObjectKey> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Requeues all waiting objects whenever the signing state changes to one that can sign. Ends with the channel.
    pub async fn requeue(self: Arc<Self>, queue: Arc<Queue<ObjectKey>>, mut signing: SigningReceiver) {
        while signing.changed().await.is_ok() {
            if can_sign(&signing.borrow_and_update()) {
                for key in self.take() {
                    queue.push(&key);
                }
            }
        }
    }
}
