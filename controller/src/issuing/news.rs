//! What the owner of a signing Secret is told: one log line and one Event each.

use mintmark_issuer::{KeyUse, KeyUses, Notice};

use super::{Annotations, StoreError};

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Which signing Secret it is about; the one for JWTs need not be another one.
    pub about: KeyUses,
    /// The Event's reason.
    pub reason: &'static str,
    /// Whether somebody has to look at it.
    pub is_warning: bool,
    /// The Event's message.
    pub message: String,
}

/// Told all news.
pub type OnNews = Box<dyn Fn(&News) + Send>;

impl News {
    /// What the ring says; `reading` is the Secret that it has just been given, if it was one.
    pub fn of_ring(notice: &Notice, reading: Option<KeyUses>) -> Self {
        let about = match notice {
            Notice::Published { kind, .. }
            | Notice::Signs { kind, .. }
            | Notice::Retired { kind, .. }
            | Notice::Superseded { kind, .. }
            | Notice::Gone { kind, .. }
            | Notice::Revoked { kind, .. }
            | Notice::Full { kind, .. } => match kind {
                KeyUse::Jwt => KeyUses::Jwt,
                KeyUse::X509 => KeyUses::X509,
            },
            Notice::Activated(_) | Notice::NotYetValid { .. } => KeyUses::X509,
            _ => reading.unwrap_or(KeyUses::Both),
        };
        Self {
            about,
            reason: notice.reason(),
            is_warning: notice.is_warning(),
            message: notice.to_string(),
        }
    }

    /// The ring cannot be stored or read: no step of a key's life is made meanwhile.
    pub fn not_stored(error: &StoreError) -> Self {
        Self {
            about: KeyUses::Both,
            reason: "KeyStoreFailed",
            is_warning: true,
            message: format!("the key ring cannot be stored, which delays every step of a key: {error}"),
        }
    }

    /// What stands in the annotations of the Secret `about` and is no id.
    pub fn malformed(annotations: &Annotations, about: KeyUses) -> impl Iterator<Item = Self> {
        annotations.malformed.iter().map(move |(annotation, value)| Self {
            about,
            reason: "AnnotationInvalid",
            is_warning: true,
            message: format!("annotation {annotation}: {value:?} is not the id of a key that it can name"),
        })
    }

    /// Writes the log line.
    pub fn log(&self) {
        if self.is_warning {
            tracing::error!(error = self.message, reason = self.reason, "signing Secret");
        } else {
            tracing::info!(reason = self.reason, "{}", self.message);
        }
    }
}
