//! When the next scan is due. What was scanned before is told by the record beside the tags, never by the status; time is
//! an argument.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};

use crate::artifact::{Binding, Record, Standing};

/// A scan that is due in less than this is made at once.
const SOON: Duration = Duration::from_secs(1);

/// What a scan would be made for now.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Whose scan, of which image, as whom, without which tags.
    pub binding: &'a Binding,
    /// The value of the annotation that asks for a scan.
    pub requested_at: Option<&'a str>,
    /// Time between scans.
    pub interval: Duration,
}

/// Whether to scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// At once.
    Now(Reason),
    /// After this time, at most the interval.
    In(Duration),
}

/// Why a scan is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// None was made for this object.
    FirstScan,
    /// The annotation has a value that no scan has answered.
    Requested,
    /// Another image.
    NewImageName,
    /// Other patterns.
    NewExclusionList,
    /// Another credential, or another content of what the object refers to.
    NewIdentity,
    /// What was stored is gone or damaged.
    NoTags,
    /// It is time.
    Interval,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FirstScan => "first scan",
            Self::Requested => "reconcile requested",
            Self::NewImageName => "new image name",
            Self::NewExclusionList => "updated exclusion list",
            Self::NewIdentity => "updated credential or referents",
            Self::NoTags => "no tags in database",
            Self::Interval => "triggered by interval",
        })
    }
}

/// Whether a scan is due, by what is stored for the object.
pub fn due(wanted: &Wanted<'_>, stored: &Standing, now: Timestamp) -> Due {
    let (record, is_lost) = match stored {
        Standing::Absent => return Due::Now(Reason::FirstScan),
        Standing::Stored(record) => (record, false),
        Standing::Lost(record, _) => (record, true),
    };
    let Some(scan) = &record.scan else {
        return Due::Now(Reason::FirstScan);
    };
    let is_requested = wanted.requested_at.is_some() && wanted.requested_at != scan.requested_at.as_deref();
    let reasons = [
        (record.binding.uid != wanted.binding.uid, Reason::FirstScan),
        (is_requested, Reason::Requested),
        (record.binding.url != wanted.binding.url, Reason::NewImageName),
        (
            record.binding.exclusions != wanted.binding.exclusions,
            Reason::NewExclusionList,
        ),
        (record.binding != *wanted.binding, Reason::NewIdentity),
        (is_lost, Reason::NoTags),
    ];
    if let Some((_, reason)) = reasons.into_iter().find(|(holds, _)| *holds) {
        return Due::Now(reason);
    }
    let left = wanted.interval.saturating_sub(age(record, now));
    if left < SOON {
        Due::Now(Reason::Interval)
    } else {
        Due::In(left)
    }
}

/// Time since the scan; none for one that a clock which went back has put into the future.
fn age(record: &Record, now: Timestamp) -> Duration {
    let scanned = record.scan.as_ref().map_or(now, |scan| scan.time);
    now.duration_since(scanned).max(SignedDuration::ZERO).unsigned_abs()
}

/// The time of the last scan as the status tells it: a scan that found the same tags moves it at most once per interval, so
/// that many of them do not become as many writes.
pub fn shown_scan_time(shown: Option<Timestamp>, scanned: Timestamp, interval: Duration, is_same: bool) -> Timestamp {
    let Some(shown) = shown.filter(|shown| is_same && *shown <= scanned) else {
        return scanned;
    };
    let since = scanned.duration_since(shown).unsigned_abs();
    if since.saturating_add(SOON) < interval {
        shown
    } else {
        scanned
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::artifact::{CredentialBinding, Loss};

    const INTERVAL: Duration = Duration::from_mins(5);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn binding() -> Binding {
        Binding {
            uid: "u".to_owned(),
            url: "r.example/app".to_owned(),
            exclusions: [r"\.sig$".to_owned()].into(),
            ..Binding::default()
        }
    }

    /// Scanned at second 0, for the request `1`.
    fn record() -> Arc<Record> {
        let record = serde_json::json!({"format": 1, "binding": binding(), "revision": "sha256:0", "path": "p",
            "scan": {"time": at(0), "tag_count": 1, "bytes": 2, "latest_tags": ["a"], "requested_at": "1"},
            "file": {"name": "tags.txt", "digest": "sha256:0", "size": 2, "mtime": at(0)}, "last_update_time": at(0)});
        Arc::new(serde_json::from_value(record).unwrap())
    }

    fn judge(binding: &Binding, requested_at: Option<&str>, stored: &Standing, second: i64) -> Due {
        let wanted = Wanted {
            binding,
            requested_at,
            interval: INTERVAL,
        };
        due(&wanted, stored, at(second))
    }

    #[rstest]
    #[case::just_scanned(0, Due::In(INTERVAL))]
    #[case::later(100, Due::In(Duration::from_secs(200)))]
    #[case::a_second_left(299, Due::In(Duration::from_secs(1)))]
    #[case::less_than_a_second(300, Due::Now(Reason::Interval))]
    #[case::long_ago(100_000, Due::Now(Reason::Interval))]
    #[case::the_clock_went_back(-100_000, Due::In(INTERVAL))]
    fn time(#[case] second: i64, #[case] expected: Due) {
        let stored = Standing::Stored(record());
        for requested_at in [None, Some("1")] {
            assert_eq!(judge(&binding(), requested_at, &stored, second), expected);
        }
    }

    #[rstest]
    #[case::another_object(|binding: &mut Binding| binding.uid = "v".to_owned(), Reason::FirstScan)]
    #[case::image(|binding: &mut Binding| binding.url = "r.example/other".to_owned(), Reason::NewImageName)]
    #[case::exclusions(|binding: &mut Binding| binding.exclusions.clear(), Reason::NewExclusionList)]
    #[case::credential(|binding: &mut Binding| binding.credential = Some(CredentialBinding::default()), Reason::NewIdentity)]
    #[case::referent(|binding: &mut Binding| { binding.referents.insert("Secret/ca".into(), "2".into()); },
        Reason::NewIdentity)]
    #[case::image_before_exclusions(|binding: &mut Binding| { binding.url.clear(); binding.exclusions.clear(); },
        Reason::NewImageName)]
    fn edits(#[case] edit: fn(&mut Binding), #[case] reason: Reason) {
        let mut edited = binding();
        edit(&mut edited);
        assert_eq!(judge(&edited, None, &Standing::Stored(record()), 1), Due::Now(reason));
    }

    #[test]
    fn a_request_is_answered_once_and_its_removal_asks_for_nothing() {
        let stored = Standing::Stored(record());
        assert_eq!(judge(&binding(), Some("2"), &stored, 1), Due::Now(Reason::Requested));
        assert!(matches!(judge(&binding(), Some("1"), &stored, 1), Due::In(_)));
        assert!(matches!(judge(&binding(), None, &stored, 1), Due::In(_)));
    }

    #[test]
    fn what_is_not_there_is_scanned() {
        assert_eq!(
            judge(&binding(), None, &Standing::Absent, 1),
            Due::Now(Reason::FirstScan)
        );
        let lost = Standing::Lost(record(), Loss::Missing);
        assert_eq!(judge(&binding(), None, &lost, 1), Due::Now(Reason::NoTags));
    }

    #[rstest]
    #[case::first(None, 0, true, 0)]
    #[case::other_tags(Some(0), 10, false, 10)]
    #[case::quiet(Some(0), 10, true, 0)]
    #[case::quiet_for_an_interval(Some(0), 300, true, 300)]
    #[case::nearly(Some(0), 299, true, 299)]
    #[case::from_the_future(Some(1_000), 10, true, 10)]
    fn quiet_scans_move_the_shown_time_once_per_interval(
        #[case] shown: Option<i64>,
        #[case] scanned: i64,
        #[case] is_same: bool,
        #[case] expected: i64,
    ) {
        assert_eq!(
            shown_scan_time(shown.map(at), at(scanned), INTERVAL, is_same),
            at(expected)
        );
    }

    proptest! {
        #[test]
        fn the_wait_is_neither_too_short_nor_longer_than_the_interval(second in -1_000_000..1_000_000_i64) {
            match judge(&binding(), None, &Standing::Stored(record()), second) {
                Due::In(wait) => prop_assert!(wait >= SOON && wait <= INTERVAL),
                Due::Now(reason) => prop_assert!(reason == Reason::Interval && second > 299),
            }
        }
    }
}
