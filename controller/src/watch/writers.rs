//! Who else writes the status of our objects. Read from `managedFields` before they are pruned: the newest entry of another
//! manager for the subresource `status` that is newer than our own. The API server's times, in whole seconds.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

/// The field manager of everything that this controller writes.
pub const FIELD_MANAGER: &str = "mintmark";

/// A write of the status by somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignWrite {
    /// The field manager, such as `source-controller`. Chosen by the writer.
    pub manager: String,
    /// When it last changed a field that it owns.
    pub time: Timestamp,
}

/// The newest status write of another manager, if it came after one of ours. An object that we never wrote is only about
/// to be taken over. What happened in the second of our own write counts as before it.
pub fn foreign_write(entries: &[ManagedFieldsEntry]) -> Option<ForeignWrite> {
    let writes = entries.iter().filter_map(|entry| {
        let is_status = entry.subresource.as_deref() == Some("status");
        let manager = entry.manager.as_deref().filter(|_| is_status)?;
        Some((manager, entry.time.as_ref()?.0))
    });
    let (ours, theirs): (Vec<_>, Vec<_>) = writes.partition(|(manager, _)| *manager == FIELD_MANAGER);
    let our_last = ours.iter().map(|(_, time)| *time).max()?;
    let (manager, time) = theirs.into_iter().max_by_key(|(_, time)| *time)?;
    (time > our_last).then(|| ForeignWrite {
        manager: manager.chars().take(128).collect(),
        time,
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::never_ours(&[("source-controller", "status", 9)], None)]
    #[case::taken_over(&[("source-controller", "status", 1), ("mintmark", "status", 2)], None)]
    #[case::same_second(&[("source-controller", "status", 2), ("mintmark", "status", 2)], None)]
    #[case::another_resource(&[("kubectl", "", 9), ("mintmark", "status", 2)], None)]
    #[case::fought_over(&[("mintmark", "status", 2), ("a", "status", 3), ("b", "status", 4)], Some(("b", 4)))]
    fn only_what_came_after_us_counts(#[case] entries: &[(&str, &str, i64)], #[case] expected: Option<(&str, i64)>) {
        let time = |second| Timestamp::from_second(second).unwrap();
        let entries = entries.iter().map(|(manager, subresource, second)| {
            let mut entry = json!({"manager": manager, "operation": "Update", "time": time(*second).to_string()});
            if !subresource.is_empty() {
                entry["subresource"] = (*subresource).into();
            }
            serde_json::from_value(entry).unwrap()
        });
        let found = foreign_write(&entries.collect::<Vec<_>>());
        let found = found.map(|write| (write.manager, write.time));
        assert_eq!(
            found,
            expected.map(|(manager, second)| (manager.to_owned(), time(second)))
        );
    }
}
