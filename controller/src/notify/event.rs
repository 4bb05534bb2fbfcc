//! An event as a pass reports it, before it takes the form of one of the sinks.

use std::{borrow::Cow, collections::BTreeMap};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

/// Longest message that is delivered, in characters: the limit of Flux's Event API.
///
/// Kubernetes has a limit of 1,024 bytes only for Events that carry `eventTime`; ours do not, as Flux's do not.
pub const MESSAGE_LIMIT: usize = 39_000;

/// The group in which Flux's sources write metadata keys.
pub const SOURCE_GROUP: &str = "source.toolkit.fluxcd.io";

/// Prefix of object annotations that go along with every event of the object.
const ANNOTATION_PREFIX: &str = "event.toolkit.fluxcd.io/";

/// What kind of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    /// As wished.
    Normal,
    /// A failure.
    Warning,
}

impl EventType {
    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }

    /// As the notification-controller calls it.
    pub const fn severity(self) -> &'static str {
        match self {
            Self::Normal => "info",
            Self::Warning => "error",
        }
    }
}

/// What the controller was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A pass over an object.
    Reconcile,
    /// Listing the tags of an image repository.
    Scan,
    /// Choosing an image by a policy.
    SelectImage,
}

impl Action {
    /// The text in the webhook's body.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reconcile => "Reconcile",
            Self::Scan => "Scan",
            Self::SelectImage => "SelectImage",
        }
    }
}

/// One event about one object.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    /// `apiVersion`, `kind`, `namespace`, `name`, `uid` and `resourceVersion` of the object.
    pub object: ObjectReference,
    /// Kind of news.
    pub event_type: EventType,
    /// A condition reason or `NewArtifact`.
    pub reason: Cow<'static, str>,
    /// For people; cut at [`MESSAGE_LIMIT`].
    pub message: String,
    /// What was done.
    pub action: Action,
    /// Annotations of the Event and `metadata` of the webhook's body; see [`metadata`].
    pub metadata: BTreeMap<String, String>,
    /// When it happened.
    pub timestamp: Timestamp,
}

impl NewEvent {
    /// Where the Event is written: the object's namespace, `default` for an object without one.
    pub fn namespace(&self) -> &str {
        self.object
            .namespace
            .as_deref()
            .filter(|namespace| !namespace.is_empty())
            .unwrap_or("default")
    }
}

/// The metadata of an event about an artifact: the object's annotations under `event.toolkit.fluxcd.io/`, and what is
/// known of `source.toolkit.fluxcd.io/{revision,digest,originRevision}`.
pub fn metadata<'a>(
    annotations: impl IntoIterator<Item = (&'a String, &'a String)>,
    revision: Option<&str>,
    digest: Option<&str>,
    origin_revision: Option<&str>,
) -> BTreeMap<String, String> {
    let annotations = annotations
        .into_iter()
        .filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX));
    let mut metadata: BTreeMap<_, _> = annotations.map(|(key, value)| (key.clone(), value.clone())).collect();
    for (key, value) in [
        ("revision", revision),
        ("digest", digest),
        ("originRevision", origin_revision),
    ] {
        if let Some(value) = value {
            metadata.insert(format!("{SOURCE_GROUP}/{key}"), value.to_owned());
        }
    }
    metadata
}

/// At most `limit` characters of `text`; what was cut ends with an ellipsis.
pub(super) fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit || text.chars().count() <= limit {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().take(limit.saturating_sub(1)).chain(['…']).collect())
}
