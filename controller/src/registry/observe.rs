//! What the registry client tells others: metrics per request, and the first time a credential meets an origin.
//!
//! The implementation lives with the metrics and the audit log; this module names events only and never blocks.

use super::url::Origin;
use crate::credential::CredentialGeneration;

/// How one request over the network ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// 2xx.
    Success,
    /// 3xx.
    Redirect,
    /// 401.
    Unauthorized,
    /// 403.
    Denied,
    /// 404.
    NotFound,
    /// 429.
    RateLimited,
    /// Other 4xx.
    ClientError,
    /// 5xx.
    ServerError,
    /// No connection, TLS included.
    ConnectFailed,
    /// Connected, but no complete response head.
    Interrupted,
    /// The pass's time ran out.
    TimedOut,
    /// Refused here, before anything was sent.
    Refused,
}

impl Outcome {
    /// The value of a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Redirect => "redirect",
            Self::Unauthorized => "unauthorized",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::RateLimited => "rate_limited",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::ConnectFailed => "connect_failed",
            Self::Interrupted => "interrupted",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
        }
    }

    pub(super) fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Success,
            300..=399 => Self::Redirect,
            401 => Self::Unauthorized,
            403 => Self::Denied,
            404 => Self::NotFound,
            429 => Self::RateLimited,
            400..=499 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

/// A credential met an origin for the first time. Everything here is public.
#[derive(Debug, Clone, Copy)]
pub struct Presentation<'a> {
    /// UID of the object whose credential it is.
    pub object_uid: &'a str,
    /// The object's namespace.
    pub namespace: &'a str,
    /// Which minting.
    pub generation: &'a CredentialGeneration,
    /// To whom.
    pub origin: &'a Origin,
    /// What came of it.
    pub outcome: Outcome,
}

/// Receives what happens. Called from request paths: implementations count or enqueue, they never block.
pub trait Observer: Send + Sync {
    /// One request to `host` (with port when it is not the scheme's default) ended.
    fn request(&self, host: &str, outcome: Outcome);

    /// A tag list had entries that are no tags.
    fn invalid_tags(&self, count: usize);

    /// The first presentation of a credential generation to an origin, for the audit log.
    fn presented(&self, presentation: Presentation<'_>);
}

/// Ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoObserver;

impl Observer for NoObserver {
    fn request(&self, _host: &str, _outcome: Outcome) {}

    fn invalid_tags(&self, _count: usize) {}

    fn presented(&self, _presentation: Presentation<'_>) {}
}
