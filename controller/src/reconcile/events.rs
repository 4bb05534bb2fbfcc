//! The events that objects of every kind have: of another controller's writes and of an interval that is too short. What a
//! pass came to is told by the kind, through [`record`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt;
use mintmark_api::condition::reason;

use super::{Context, OwnedStatus, Reconciled, context::generation};
use crate::{
    notify::{EventType, NewEvent, metadata},
    watch::ObjectKey,
};

/// Tells `message` of the object, while this process may write.
pub fn record<K: Reconciled>(
    ctx: &Context<K>,
    object: &K,
    metadata: BTreeMap<String, String>,
    event_type: EventType,
    reason: &'static str,
    message: String,
) {
    if !ctx.may_write() {
        // What stays true is told when the status is.
        return;
    }
    ctx.events.record(NewEvent {
        object: reference(object),
        event_type,
        reason: reason.into(),
        message,
        action: K::ACTION,
        metadata,
        timestamp: Timestamp::now(),
    });
}

/// The metadata of an event that is not about what was found: what the object's annotations say.
pub fn annotated<K: Reconciled>(object: &K) -> BTreeMap<String, String> {
    metadata(object.annotations(), None, None, None)
}

fn reference<K: Reconciled>(object: &K) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: object.namespace(),
        name: object.meta().name.clone(),
        uid: object.uid(),
        resource_version: object.resource_version(),
        field_path: None,
    }
}

/// The object asks for passes more often than `--min-interval` allows. Said once per generation, when it is first acted on.
pub fn interval_clamped<K: Reconciled>(ctx: &Context<K>, object: &K) {
    let least = ctx.settings.min_interval;
    let is_clamped = object.interval().is_some_and(|interval| interval < least);
    let seen = object.status().and_then(OwnedStatus::observed_generation);
    if !is_clamped || seen == Some(generation(object)) {
        return;
    }
    let message = format!("spec.interval is shorter than --min-interval: passes are {least:?} apart");
    tracing::info!(
        controllerKind = K::KIND,
        namespace = object.namespace(),
        name = object.name_any(),
        "{message}"
    );
    let (metadata, reason) = (annotated(object), reason::INTERVAL_CLAMPED);
    record(ctx, object, metadata, EventType::Normal, reason, message);
}

/// Tells, once per write, that somebody else wrote the object's status after us. Does nothing while this process may not
/// write: the leader tells.
pub fn tell_of_foreign_write<K: Reconciled>(ctx: &Context<K>, key: &ObjectKey, object: &K) {
    let Some(write) = ctx.store.foreign_write(key) else {
        return;
    };
    if !ctx.may_write() || !ctx.neighbours.overwritten(key, &write) {
        return;
    }
    ctx.metrics.foreign_status_write(K::KIND);
    let message = format!(
        "'{}' wrote the status after this controller, at {}: two controllers work on this object",
        write.manager, write.time
    );
    tracing::error!(
        controllerKind = K::KIND,
        namespace = &*key.namespace,
        name = &*key.name,
        "{message}"
    );
    let (metadata, reason) = (annotated(object), reason::STATUS_OVERWRITTEN);
    record(ctx, object, metadata, EventType::Warning, reason, message);
}
