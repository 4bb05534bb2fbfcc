//! The whole owned status of an ImageRepository after a pass, from the outcome and the record of the last scan. Pure. The
//! old status is read for courtesies only: transition times, other writers' conditions, the time of the last scan shown.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mintmark_api::{
    condition::{OWNED_BY_IMAGES, READY, reason},
    credential::CredentialStatus,
    image_repository::{ImageRepository, ImageRepositoryStatus, ScanResult},
};

use super::Found;
use crate::{
    artifact::Record,
    reconcile::{
        Outcome, OwnedStatus,
        conditions::{Finding, failure_of_images, merge, progress_of_images},
        context::generation,
        reconciled::observe,
    },
    tags::shown_scan_time,
};

impl OwnedStatus for ImageRepositoryStatus {
    const OWNED_FIELDS: &'static [&'static str] = &[
        "observedGeneration",
        "conditions",
        "canonicalImageName",
        "lastScanResult",
        "observedExclusionList",
        "lastHandledReconcileAt",
        "credential",
    ];

    fn observed_generation(&self) -> Option<i64> {
        self.observed_generation
    }

    fn differs(&self, old: &Self) -> bool {
        // Every field by name, so that a new one is not forgotten here.
        let Self {
            observed_generation,
            conditions,
            canonical_image_name,
            last_scan_result,
            observed_exclusion_list,
            last_handled_reconcile_at,
            credential: _,
        } = self;
        *observed_generation != old.observed_generation
            || *conditions != old.conditions
            || *canonical_image_name != old.canonical_image_name
            || *last_scan_result != old.last_scan_result
            || *observed_exclusion_list != old.observed_exclusion_list
            || *last_handled_reconcile_at != old.last_handled_reconcile_at
    }

    fn keep_handled(&mut self, before: &Self) {
        self.observed_generation = before.observed_generation;
        self.credential.clone_from(&before.credential);
        self.last_handled_reconcile_at
            .clone_from(&before.last_handled_reconcile_at);
    }
}

/// The status after a pass. `Suspended` changes nothing but what the pass has observed.
pub(super) fn after(
    object: &ImageRepository,
    outcome: &Outcome,
    found: &Found,
    credential: Option<CredentialStatus>,
    now: Timestamp,
) -> ImageRepositoryStatus {
    let mut status = object.status.clone().unwrap_or_default();
    let current = generation(object);
    observe(
        object,
        outcome,
        &mut status.observed_generation,
        &mut status.last_handled_reconcile_at,
    );
    if matches!(outcome, Outcome::Suspended) {
        return status;
    }
    set_result(&mut status, found);
    status.credential = credential;
    let findings = match (outcome, &found.record) {
        (Outcome::Failed { error, doing, .. }, _) => failure_of_images(error, doing.as_deref()),
        (_, Some(record)) => vec![Finding::new(READY, reason::SUCCEEDED, success(record))],
        (_, None) => Vec::new(),
    };
    status.conditions = merge(&findings, &status.conditions, &OWNED_BY_IMAGES, current, now);
    status
}

/// What the last scan found; nothing if there was none for this object.
fn set_result(status: &mut ImageRepositoryStatus, found: &Found) {
    let Some((record, scan)) = found
        .record
        .as_ref()
        .and_then(|record| Some((record, record.scan.as_ref()?)))
    else {
        status.canonical_image_name = None;
        status.last_scan_result = None;
        status.observed_exclusion_list = Vec::new();
        return;
    };
    let shown = status.last_scan_result.as_ref();
    let is_same = shown.is_some_and(|shown| shown.revision == record.revision);
    let shown = shown.and_then(|shown| shown.scan_time.as_ref()).map(|time| time.0);
    let scanned = Timestamp::from_second(scan.time.as_second()).unwrap_or(scan.time);
    let time = shown_scan_time(shown, scanned, found.interval, is_same);
    status.canonical_image_name = Some(record.binding.url.clone());
    status.last_scan_result = Some(ScanResult {
        revision: record.revision.clone(),
        tag_count: i64::try_from(scan.tag_count).unwrap_or(i64::MAX),
        scan_time: Some(Time(time)),
        latest_tags: scan.latest_tags.clone(),
    });
    status.observed_exclusion_list = record.binding.exclusions.iter().cloned().collect();
}

/// The message of a scan that succeeded, which is Flux's.
pub(super) fn success(record: &Record) -> String {
    let count = record.scan.as_ref().map_or(0, |scan| scan.tag_count);
    format!("successful scan: found {count} tags with checksum {}", record.revision)
}

/// The status while a scan is under way: Reconciling, and Ready Unknown.
pub(super) fn progressing(object: &ImageRepository, message: &str, now: Timestamp) -> ImageRepositoryStatus {
    let mut status = object.status.clone().unwrap_or_default();
    status.conditions = progress_of_images(message, &status.conditions, generation(object), now);
    status
}
