//! The conditions of a repository object: which exist after a pass, and how Ready sums them up. Pure; the rules are those
//! of Flux's runtime `conditions` package, so that dashboards and kstatus read them alike.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use mintmark_api::condition::{
    MAX_MESSAGE_LEN, OWNED_BY_IMAGES, READY, RECONCILING, STALLED, SUMMARY_ORDER, is_negative, reason, status,
};

use super::StepError;

/// A condition without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The condition's type.
    pub kind: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: Status,
    /// CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// A condition's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known.
    Unknown,
}

impl Status {
    /// As it stands in the object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => status::TRUE,
            Self::False => status::FALSE,
            Self::Unknown => status::UNKNOWN,
        }
    }
}

impl Finding {
    /// A condition that is True.
    pub fn new(kind: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            status: Status::True,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// Whether the condition of this type is True.
pub fn is_true(kind: &str, conditions: &[Condition]) -> bool {
    let mut conditions = conditions.iter();
    conditions.any(|condition| condition.type_ == kind && condition.status == status::TRUE)
}

/// Adds Ready to `findings`: it takes reason and message from the first of the most telling group. `findings` must not
/// be empty.
#[must_use]
pub fn with_summary(mut findings: Vec<Finding>) -> Vec<Finding> {
    let telling = SUMMARY_ORDER
        .iter()
        .filter_map(|kind| findings.iter().find(|finding| finding.kind == *kind))
        .min_by_key(|finding| group(finding.status, is_negative(finding.kind)));
    let Some(finding) = telling else { return findings };
    let good = (finding.status == Status::True) != is_negative(finding.kind);
    let status = match finding.status {
        Status::Unknown => Status::Unknown,
        _ if good => Status::True,
        _ => Status::False,
    };
    let ready = Finding {
        kind: READY,
        status,
        reason: finding.reason.clone(),
        message: finding.message.clone(),
    };
    findings.push(ready);
    findings
}

/// Rank of a condition in the summary: bad news, missing good news, good news, absent bad news, unknown.
fn group(status: Status, negative: bool) -> u8 {
    match (status, negative) {
        (Status::True, true) => 0,
        (Status::False, false) => 1,
        (Status::True, false) => 2,
        (Status::False, true) => 3,
        (Status::Unknown, _) => 4,
    }
}

/// The findings of a failed pass over an image kind, whose Ready says for itself what is wrong; `doing` is what was being
/// done.
#[must_use]
pub fn failure_of_images(error: &StepError, doing: Option<&str>) -> Vec<Finding> {
    let ready = Finding {
        status: Status::False,
        ..Finding::new(READY, error.reason, &error.message)
    };
    let other = if error.policy.is_stalled() {
        Finding::new(STALLED, error.reason, &error.message)
    } else {
        Finding::new(
            RECONCILING,
            reason::PROGRESSING_WITH_RETRY,
            doing.unwrap_or("reconciliation in progress"),
        )
    };
    vec![other, ready]
}

/// The whole `status.conditions` while a pass over an image kind is under way: Reconciling, and Ready Unknown.
#[must_use]
pub fn progress_of_images(message: &str, existing: &[Condition], generation: i64, now: Timestamp) -> Vec<Condition> {
    let ready = Finding {
        status: Status::Unknown,
        ..Finding::new(READY, reason::PROGRESSING, message)
    };
    let findings = [Finding::new(RECONCILING, reason::PROGRESSING, message), ready];
    merge(&findings, existing, &OWNED_BY_IMAGES, generation, now)
}

/// The whole `status.conditions`: Stalled, Reconciling, Ready, the rest of ours, then other writers' as they were; `owned` are the
/// types that are ours. A
/// condition that says the same as before keeps its transition time.
pub fn merge(
    findings: &[Finding],
    existing: &[Condition],
    owned: &[&str],
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    let mut ours: Vec<_> = findings
        .iter()
        .map(|finding| dated(finding, existing, generation, now))
        .collect();
    ours.sort_by_key(|condition| match condition.type_.as_str() {
        STALLED => 0,
        RECONCILING => 1,
        READY => 2,
        _ => 3,
    });
    ours.extend(
        existing
            .iter()
            .filter(|condition| !owned.contains(&condition.type_.as_str()))
            .cloned(),
    );
    ours
}

fn dated(finding: &Finding, existing: &[Condition], generation: i64, now: Timestamp) -> Condition {
    let message = cut(&finding.message);
    let unchanged = existing.iter().find(|old| {
        old.type_ == finding.kind
            && old.status == finding.status.as_str()
            && old.reason == finding.reason
            && old.message == message
    });
    // The API keeps whole seconds; a finer time would differ from what is read back.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    Condition {
        type_: finding.kind.to_owned(),
        status: finding.status.as_str().to_owned(),
        reason: finding.reason.clone(),
        message: message.to_owned(),
        observed_generation: Some(generation),
        last_transition_time: unchanged.map_or(Time(now), |old| old.last_transition_time.clone()),
    }
}

fn cut(message: &str) -> &str {
    let mut end = message.len().min(MAX_MESSAGE_LEN);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use mintmark_api::condition::{
        ARTIFACT_IN_STORAGE, FETCH_FAILED, OWNED, SOURCE_VERIFIED, STORAGE_OPERATION_FAILED,
    };

    use super::*;

    fn ready(findings: Vec<Finding>) -> (Status, String) {
        let all = with_summary(findings);
        let ready = all.last().unwrap();
        assert_eq!(ready.kind, READY);
        (ready.status, ready.reason.clone())
    }

    #[test]
    fn ready_takes_the_most_telling_condition() {
        let stored = Finding::new(ARTIFACT_IN_STORAGE, "Succeeded", "stored");
        assert_eq!(ready(vec![stored.clone()]), (Status::True, "Succeeded".into()));
        let failed = Finding::new(FETCH_FAILED, "OCIArtifactPullFailed", "no");
        let retry = Finding::new(RECONCILING, "ProgressingWithRetry", "again");
        assert_eq!(
            ready(vec![retry.clone(), stored.clone(), failed.clone()]),
            (Status::False, "OCIArtifactPullFailed".into())
        );
        let storage = Finding::new(STORAGE_OPERATION_FAILED, "StatOperationFailed", "disk");
        assert_eq!(
            ready(vec![failed, storage]),
            (Status::False, "StatOperationFailed".into())
        );
        let unverified = Finding {
            status: Status::False,
            ..Finding::new(SOURCE_VERIFIED, "VerificationError", "")
        };
        assert_eq!(
            ready(vec![stored, unverified]),
            (Status::False, "VerificationError".into())
        );
    }

    #[test]
    fn transition_time_moves_only_with_content_and_foreign_conditions_stay() {
        let (t0, t1) = (
            Timestamp::from_second(100).unwrap(),
            Timestamp::from_second(200).unwrap(),
        );
        let findings = with_summary(vec![Finding::new(ARTIFACT_IN_STORAGE, "Succeeded", "stored")]);
        let mut before = merge(&findings, &[], &OWNED, 1, t0);
        let mut foreign = before[0].clone();
        foreign.type_ = "example.com/Scanned".into();
        before.push(foreign.clone());
        let after = merge(&findings, &before, &OWNED, 2, t1);
        assert_eq!(
            after.iter().map(|c| c.last_transition_time.0).collect::<Vec<_>>(),
            vec![t0; 3]
        );
        assert_eq!(after[0].observed_generation, Some(2));
        assert_eq!(after.last(), Some(&foreign));
        let failed = with_summary(vec![Finding::new(FETCH_FAILED, "x", "y")]);
        assert_eq!(merge(&failed, &before, &OWNED, 2, t1)[0].last_transition_time.0, t1);
    }

    #[test]
    fn stalled_and_reconciling_come_first_and_messages_are_cut() {
        let findings = with_summary(vec![
            Finding::new(FETCH_FAILED, "URLInvalid", "é".repeat(MAX_MESSAGE_LEN)),
            Finding::new(STALLED, "URLInvalid", "bad"),
        ]);
        let merged = merge(&findings, &[], &OWNED, 1, Timestamp::UNIX_EPOCH);
        assert_eq!(
            merged.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(),
            [STALLED, READY, FETCH_FAILED]
        );
        assert_eq!(merged[2].message.len(), MAX_MESSAGE_LEN);
    }
}
