//! Decides whether an event becomes a new Kubernetes Event or another occurrence of one that is there.
//!
//! Pure: time comes with the event, writing is the caller's. The memory is bounded; forgetting only means that the next
//! occurrence becomes a new Event.

use std::collections::{HashMap, VecDeque};

use jiff::{SignedDuration, Timestamp};

use super::event::{EventType, NewEvent};

/// Occurrences further apart than this are separate Events: the API server keeps an Event for one hour by default.
const LIFETIME: SignedDuration = SignedDuration::from_mins(55);

/// Warnings of one object and reason with different texts that get Events of their own. A text with a changing part (a
/// port, a time) would otherwise make an Event in each pass.
const DISTINCT_MESSAGES: usize = 4;

/// Objects and reasons that are remembered.
const REMEMBERED: usize = 16_384;

/// Whose series: one object's events of one type and reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    kind: String,
    namespace: String,
    name: String,
    uid: String,
    event_type: EventType,
    reason: String,
}

#[derive(Debug, Clone)]
struct Series {
    /// Name of the Event.
    event: String,
    message: String,
    count: i32,
    last: Timestamp,
}

/// What to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Write {
    /// A new Event with this name.
    Create {
        /// `metadata.name`.
        event: String,
    },
    /// One more occurrence of an Event.
    Repeat {
        /// `metadata.name`.
        event: String,
        /// Occurrences so far, this one included.
        count: i32,
    },
}

/// The Events written lately.
#[derive(Debug, Default)]
pub(super) struct SeriesTable {
    series: HashMap<Key, VecDeque<Series>>,
}

impl SeriesTable {
    /// What `event` becomes. Assumes that it will be written; see [`SeriesTable::forget`].
    pub(super) fn plan(&mut self, event: &NewEvent) -> Write {
        self.make_room(event.timestamp);
        let series = self.series.entry(key(event)).or_default();
        series.retain(|known| is_alive(known, event.timestamp));
        let same = series.iter().position(|known| known.message == event.message);
        let place = same.or_else(|| {
            // The texts differ each time: one more occurrence of the Event that was silent longest.
            let full = event.event_type == EventType::Warning && series.len() >= DISTINCT_MESSAGES;
            full.then_some(0)
        });
        let Some(mut known) = place.and_then(|place| series.remove(place)) else {
            let name = event_name(event);
            while series.len() >= DISTINCT_MESSAGES {
                series.pop_front();
            }
            series.push_back(Series {
                event: name.clone(),
                message: event.message.clone(),
                count: 1,
                last: event.timestamp,
            });
            return Write::Create { event: name };
        };
        known.count = known.count.saturating_add(1);
        known.last = event.timestamp;
        known.message.clone_from(&event.message);
        let write = Write::Repeat {
            event: known.event.clone(),
            count: known.count,
        };
        series.push_back(known);
        write
    }

    /// The Event named `name` is not there: the next occurrence is a new one.
    pub(super) fn forget(&mut self, event: &NewEvent, name: &str) {
        if let Some(series) = self.series.get_mut(&key(event)) {
            series.retain(|known| known.event != name);
        }
    }

    fn make_room(&mut self, now: Timestamp) {
        if self.series.len() < REMEMBERED {
            return;
        }
        self.series
            .retain(|_, series| series.back().is_some_and(|last| is_alive(last, now)));
        if self.series.len() >= REMEMBERED {
            self.series.clear();
        }
    }
}

fn key(event: &NewEvent) -> Key {
    let object = &event.object;
    Key {
        kind: object.kind.clone().unwrap_or_default(),
        namespace: event.namespace().to_owned(),
        name: object.name.clone().unwrap_or_default(),
        uid: object.uid.clone().unwrap_or_default(),
        event_type: event.event_type,
        reason: event.reason.clone().into_owned(),
    }
}

fn is_alive(series: &Series, now: Timestamp) -> bool {
    now.duration_since(series.last) < LIFETIME
}

/// Object name, dot, hexadecimal nanoseconds, as client-go names Events. An object's name has at most 253 characters, an
/// Event's too.
fn event_name(event: &NewEvent) -> String {
    let suffix = format!(".{:x}", event.timestamp.as_nanosecond());
    let name = event.object.name.as_deref().unwrap_or_default();
    let kept: String = name.chars().take(253_usize.saturating_sub(suffix.len())).collect();
    format!("{}{suffix}", kept.trim_end_matches(['.', '-']))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use k8s_openapi::api::core::v1::ObjectReference;

    use super::*;
    use crate::notify::event::Action;

    fn event(name: &str, event_type: EventType, message: &str, at: i64) -> NewEvent {
        NewEvent {
            object: ObjectReference {
                kind: Some("OCIRepository".into()),
                namespace: Some("team".into()),
                name: Some(name.into()),
                uid: Some("1".into()),
                ..ObjectReference::default()
            },
            event_type,
            reason: Cow::Borrowed("OCIArtifactPullFailed"),
            message: message.into(),
            action: Action::Reconcile,
            metadata: std::collections::BTreeMap::new(),
            timestamp: Timestamp::from_second(at).unwrap(),
        }
    }

    fn warning(message: &str, at: i64) -> NewEvent {
        event("app", EventType::Warning, message, at)
    }

    fn created(write: Write) -> String {
        match write {
            Write::Create { event } => event,
            Write::Repeat { .. } => panic!("{write:?}"),
        }
    }

    #[test]
    fn the_same_failure_is_counted_on_one_event() {
        let mut table = SeriesTable::default();
        let name = created(table.plan(&warning("refused", 100)));
        assert_eq!(name, format!("app.{:x}", 100_000_000_000_i64));
        assert_eq!(
            table.plan(&warning("refused", 200)),
            Write::Repeat {
                event: name.clone(),
                count: 2
            }
        );
        assert_eq!(
            table.plan(&warning("refused", 3_000)),
            Write::Repeat { event: name, count: 3 }
        );
    }

    #[test]
    fn objects_types_and_incarnations_are_apart() {
        let mut table = SeriesTable::default();
        created(table.plan(&warning("refused", 1)));
        created(table.plan(&event("other", EventType::Warning, "refused", 2)));
        created(table.plan(&event("app", EventType::Normal, "refused", 3)));
        let mut recreated = warning("refused", 4);
        recreated.object.uid = Some("2".into());
        created(table.plan(&recreated));
    }

    #[test]
    fn an_hour_later_it_is_a_new_event() {
        let mut table = SeriesTable::default();
        created(table.plan(&warning("refused", 0)));
        created(table.plan(&warning("refused", 3_600)));
    }

    #[test]
    fn failures_with_ever_new_texts_do_not_make_ever_new_events() {
        let mut table = SeriesTable::default();
        let first = created(table.plan(&warning("port 0", 0)));
        for port in 1..4 {
            created(table.plan(&warning(&format!("port {port}"), port)));
        }
        assert_eq!(
            table.plan(&warning("port 4", 4)),
            Write::Repeat { event: first, count: 2 }
        );
        assert!(matches!(
            table.plan(&warning("port 5", 5)),
            Write::Repeat { count: 2, .. }
        ));
    }

    #[test]
    fn good_news_are_never_merged() {
        let mut table = SeriesTable::default();
        for revision in 0..50 {
            created(table.plan(&event(
                "app",
                EventType::Normal,
                &format!("revision {revision}"),
                revision,
            )));
        }
    }

    #[test]
    fn a_lost_event_is_made_anew() {
        let mut table = SeriesTable::default();
        let name = created(table.plan(&warning("refused", 1)));
        table.forget(&warning("refused", 1), &name);
        assert_ne!(created(table.plan(&warning("refused", 2))), name);
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut table = SeriesTable::default();
        for number in 0..3 * i64::try_from(REMEMBERED).unwrap() {
            table.plan(&event(&format!("app{number}"), EventType::Warning, "refused", 1));
            assert!(table.series.len() <= REMEMBERED);
        }
    }

    #[test]
    fn long_names_make_valid_event_names() {
        let name = "a".repeat(230) + &".".repeat(23);
        let made = event_name(&event(&name, EventType::Normal, "", 1_800_000_000));
        assert!(made.len() <= 253, "{}", made.len());
        assert!(!made.contains(".."), "{made}");
    }
}
