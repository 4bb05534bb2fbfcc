//! The whole owned status of an ImagePolicy after a pass. Pure. The old status is read for what it alone knows: the reference
//! that was shown before.

use jiff::Timestamp;
use mintmark_api::{
    condition::{OWNED_BY_IMAGES, READY, reason},
    image_policy::{ImagePolicy, ImagePolicyStatus, ImageRef},
};

use crate::reconcile::{
    Outcome, OwnedStatus,
    conditions::{Finding, failure_of_images, merge, progress_of_images},
    context::generation,
    reconciled::observe,
};

impl OwnedStatus for ImagePolicyStatus {
    const OWNED_FIELDS: &'static [&'static str] = &[
        "observedGeneration",
        "conditions",
        "latestRef",
        "observedPreviousRef",
        "lastHandledReconcileAt",
    ];

    fn observed_generation(&self) -> Option<i64> {
        self.observed_generation
    }

    fn differs(&self, old: &Self) -> bool {
        self != old
    }

    fn keep_handled(&mut self, before: &Self) {
        self.observed_generation = before.observed_generation;
        self.last_handled_reconcile_at
            .clone_from(&before.last_handled_reconcile_at);
    }
}

/// The status after a pass that selected `found`, if it came so far. `Suspended` changes nothing but what was observed; a
/// failure keeps what was selected before.
pub(super) fn after(
    object: &ImagePolicy,
    outcome: &Outcome,
    found: Option<&ImageRef>,
    now: Timestamp,
) -> ImagePolicyStatus {
    let mut status = object.status.clone().unwrap_or_default();
    let current = generation(object);
    observe(
        object,
        outcome,
        &mut status.observed_generation,
        &mut status.last_handled_reconcile_at,
    );
    let findings = match (outcome, found) {
        (Outcome::Suspended, _) => return status,
        (Outcome::Failed { error, doing, .. }, _) => failure_of_images(error, doing.as_deref()),
        (Outcome::Ready, Some(found)) => {
            select(&mut status, found);
            vec![Finding::new(READY, reason::SUCCEEDED, success(&status))]
        }
        (Outcome::Ready, None) => Vec::new(),
    };
    status.conditions = merge(&findings, &status.conditions, &OWNED_BY_IMAGES, current, now);
    status
}

/// Shows `found`, and what was shown before it.
fn select(status: &mut ImagePolicyStatus, found: &ImageRef) {
    if status.latest_ref.as_ref() != Some(found) {
        status.observed_previous_ref = status.latest_ref.replace(found.clone());
    }
}

/// The message of a policy that selected something, which is Flux's.
pub(super) fn success(status: &ImagePolicyStatus) -> String {
    let latest = status.latest_ref.clone().unwrap_or_default();
    let digest = |prefix: &str, image: &ImageRef| match image.digest.as_str() {
        "" => String::new(),
        digest => format!("{prefix}{digest}"),
    };
    let previous = status.observed_previous_ref.as_ref().map(|previous| {
        let ImageRef { name, tag, .. } = previous;
        format!(" (previously {name}:{tag}{})", digest("@", previous))
    });
    let ImageRef { name, tag, .. } = &latest;
    let with = digest(" with digest ", &latest);
    format!(
        "Latest image tag for {name} resolved to {tag}{with}{}",
        previous.unwrap_or_default()
    )
}

/// The status while a pass is under way.
pub(super) fn progressing(object: &ImagePolicy, message: &str, now: Timestamp) -> ImagePolicyStatus {
    let mut status = object.status.clone().unwrap_or_default();
    status.conditions = progress_of_images(message, &status.conditions, generation(object), now);
    status
}
