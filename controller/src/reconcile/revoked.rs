//! What a revocation does to objects: a credential of a revoked key is dropped at once with everything obtained with it,
//! and its object has a pass soon, which presents a credential of the successor or tells that there is none.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Member, Shared};
use crate::issuing::RevokedReceiver;

/// Passes after a revocation are spread over this time: everything is minted anew within 30 s.
const SPREAD: Duration = Duration::from_secs(15);
/// When a second look is taken: for what was being minted at the moment of the revocation.
const SECOND_LOOK: Duration = Duration::from_secs(10);

/// Over what time the passes after it are spread.
const LATE_SPREAD: Duration = Duration::from_secs(5);

/// Follows `revoked` until its sender is gone. Credentials are dropped once, whatever kinds their objects are of; then each
/// kind plans passes.
pub async fn drop_revoked(shared: Arc<Shared>, kinds: Vec<Arc<dyn Member>>, mut revoked: RevokedReceiver) {
    while revoked.changed().await.is_ok() {
        let ids = revoked.borrow_and_update().clone();
        drop_now(&shared, &kinds, &ids, SPREAD);
        tokio::time::sleep(SECOND_LOOK).await;
        drop_now(&shared, &kinds, &ids, LATE_SPREAD);
    }
}

fn drop_now(shared: &Shared, kinds: &[Arc<dyn Member>], ids: &BTreeSet<String>, spread: Duration) {
    let uids = shared.credentials.drop_revoked(ids);
    if uids.is_empty() {
        return;
    }
    for uid in &uids {
        shared.registry.forget(uid);
    }
    tracing::info!(objects = uids.len(), "credentials of a revoked key dropped");
    let now = Instant::now();
    for kind in kinds {
        kind.plan(&uids, now, spread);
    }
}
