//! How a step of a pass fails. A [`StepError`] carries its own policy, so that no caller decides again what a failure
//! means: whether it stalls the object, is retried with backoff, or waits for something to appear.

use mintmark_api::condition::{self, reason};

/// What happens after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `Stalled=True`: no retry until the object, a referent or the configuration changes.
    Terminal,
    /// Retried with the object's backoff.
    Transient,
    /// Requeued the moment the issuer can sign; retried with backoff besides.
    WaitingForIssuer,
    /// `Stalled=True` until the signing Secret holds another kind of key or certificate.
    WaitingForAnotherKey,
    /// Another object has to change, which is told; looked at again after `--requeue-dependency` besides.
    Dependency,
}

impl Policy {
    /// Whether time alone changes nothing: `Stalled=True`, no backoff.
    pub fn is_stalled(self) -> bool {
        matches!(self, Self::Terminal | Self::WaitingForAnotherKey)
    }
}

/// A failed step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// What happens next.
    pub policy: Policy,
    /// The abnormal condition that shows it, beside `Stalled` when terminal.
    pub condition: Option<&'static str>,
    /// CamelCase, from [`reason`].
    pub reason: &'static str,
    /// For people. No secrets, no remote text that was not sanitised.
    pub message: String,
}

impl StepError {
    /// A retryable failure of fetching: `FetchFailed`.
    pub fn fetch(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            policy: Policy::Transient,
            condition: Some(condition::FETCH_FAILED),
            reason,
            message: message.into(),
        }
    }

    /// A retryable failure of the local storage: `StorageOperationFailed`.
    pub fn storage(reason: &'static str, message: impl Into<String>) -> Self {
        let condition = Some(condition::STORAGE_OPERATION_FAILED);
        Self {
            policy: Policy::Transient,
            condition,
            reason,
            message: message.into(),
        }
    }

    /// Another object is missing, or does not let this one in.
    pub fn dependency(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            policy: Policy::Dependency,
            condition: None,
            reason,
            message: message.into(),
        }
    }

    /// A contradiction in the object or a missing flag: `Stalled` and `FetchFailed`.
    pub fn terminal(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            policy: Policy::Terminal,
            condition: Some(condition::FETCH_FAILED),
            reason,
            message: message.into(),
        }
    }

    /// A field of the object that this version does not act on: `Stalled` alone, nothing was tried.
    pub fn unsupported(field: &str) -> Self {
        let message = format!("spec.{field} is not supported yet");
        Self {
            policy: Policy::Terminal,
            condition: None,
            reason: reason::FIELD_NOT_SUPPORTED,
            message,
        }
    }

    /// The signing Secret is fine, but its key or certificate cannot do it.
    pub fn waiting_for_another_key(message: impl Into<String>) -> Self {
        Self {
            policy: Policy::WaitingForAnotherKey,
            ..Self::terminal(reason::CREDENTIAL_NOT_CONFIGURED, message)
        }
    }

    /// The signing Secret is absent or unusable.
    pub fn waiting_for_issuer(message: impl Into<String>) -> Self {
        Self {
            policy: Policy::WaitingForIssuer,
            condition: Some(condition::FETCH_FAILED),
            reason: reason::CREDENTIAL_NOT_CONFIGURED,
            message: message.into(),
        }
    }
}
