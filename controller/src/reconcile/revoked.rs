//! What a revocation does to objects: a credential of a revoked key is dropped at once with everything obtained with it,
//! and its object has a pass soon, which presents a credential of the successor or tells that there is none.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kube::ResourceExt;
use tokio::time::Instant;

use super::{Context, Reconciled};
use crate::{issuing::RevokedReceiver, watch::ObjectKey};

/// Passes after a revocation are spread over this time: everything is minted anew within 30 s.
const SPREAD: Duration = Duration::from_secs(15);
/// When a second look is taken: for what was being minted at the moment of the revocation.
const SECOND_LOOK: Duration = Duration::from_secs(10);

/// Over what time the passes after it are spread.
const LATE_SPREAD: Duration = Duration::from_secs(5);

/// Follows `revoked` until its sender is gone.
pub async fn drop_revoked<K: Reconciled>(ctx: Arc<Context<K>>, mut revoked: RevokedReceiver) {
    while revoked.changed().await.is_ok() {
        let ids = revoked.borrow_and_update().clone();
        drop_now(&ctx, &ids, SPREAD);
        tokio::time::sleep(SECOND_LOOK).await;
        drop_now(&ctx, &ids, LATE_SPREAD);
    }
}

fn drop_now<K: Reconciled>(ctx: &Context<K>, ids: &BTreeSet<String>, spread: Duration) {
    let uids = ctx.credentials.drop_revoked(ids);
    if uids.is_empty() {
        return;
    }
    for uid in &uids {
        ctx.registry.forget(uid);
    }
    tracing::info!(objects = uids.len(), "credentials of a revoked key dropped");
    let now = Instant::now();
    for object in ctx.store.objects() {
        if object.uid().is_some_and(|uid| uids.contains(uid.as_str())) {
            let at = now + spread.mul_f64(rand::random_range(0.0..1.0));
            ctx.queue.push_at(&ObjectKey::of(object.as_ref()), at);
        }
    }
}
