//! Which events a selection makes: another reference than the one shown, a recovery, a failure. The old status is read for
//! this courtesy only.

use mintmark_api::{
    condition::{READY, reason},
    image_policy::ImagePolicy,
};

use super::status;
use crate::{
    notify::EventType,
    reconcile::{Context, Outcome, Pass, Policy, StepError, events},
    watch::Kind as _,
};

/// Metadata keys, in the group of Flux's image kinds.
const KEYS: [&str; 3] = [
    "image.toolkit.fluxcd.io/image",
    "image.toolkit.fluxcd.io/tag",
    "image.toolkit.fluxcd.io/digest",
];

/// Whether the object already waits for that. It looks again at short intervals, for as long as another object stays as it is.
fn is_known(object: &ImagePolicy, error: &StepError) -> bool {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.filter(|condition| condition.type_ == READY);
    error.policy == Policy::Dependency
        && ready.any(|ready| ready.status == "False" && ready.reason == error.reason && ready.message == error.message)
}

/// Tells what `pass` came to.
pub(super) fn tell(ctx: &Context<ImagePolicy>, object: &ImagePolicy, pass: &Pass<ImagePolicy>) {
    let shown = object.status.as_ref().and_then(|status| status.latest_ref.as_ref());
    let (event_type, reason, message) = match (&pass.outcome, &pass.found) {
        (Outcome::Failed { error, .. }, _) if is_known(object, error) => return,
        (Outcome::Failed { error, .. }, _) => (EventType::Warning, error.reason, error.message.clone()),
        (Outcome::Ready, Some(found)) if shown != Some(found) || object.is_ready() != Some(true) => {
            let status = status::after(object, &pass.outcome, Some(found), jiff::Timestamp::now());
            (EventType::Normal, reason::SUCCEEDED, status::success(&status))
        }
        _ => return,
    };
    let mut metadata = events::annotated(object);
    if let Some(found) = &pass.found {
        let values = [&found.name, &found.tag, &found.digest];
        let told = KEYS.iter().zip(values).filter(|(_, value)| !value.is_empty());
        metadata.extend(told.map(|(key, value)| ((*key).to_owned(), value.clone())));
    }
    events::record(ctx, object, metadata, event_type, reason, message);
}
