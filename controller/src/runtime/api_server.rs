//! Requests to the API server that end in good time, and what a failed one says about it: the client alone waits for minutes
//! for a server that accepts and never answers.

use std::{future::Future, time::Duration};

/// The longest wait for one answer.
pub const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct NoAnswer(Duration);

/// Runs `request` for at most [`TIMEOUT`]; beyond it, it fails like a connection that broke.
pub async fn timely<T>(request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    within(TIMEOUT, request).await
}

/// The same with another limit.
pub async fn within<T>(limit: Duration, request: impl Future<Output = kube::Result<T>>) -> kube::Result<T> {
    match tokio::time::timeout(limit, request).await {
        Ok(result) => result,
        Err(_) => Err(kube::Error::Service(Box::new(NoAnswer(limit)))),
    }
}

/// Whether the API server did not answer, or said that it cannot work now: the request may be good.
pub fn is_unreachable(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 408 | 429 | 500..=599),
        kube::Error::SerdeError(_) | kube::Error::BuildRequest(_) => false,
        _ => true,
    }
}

/// Whether it is of no use to ask it for anything now. Unlike a plain 500, which may concern one object alone.
pub fn is_down(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 408 | 429 | 502..=504),
        _ => is_unreachable(error),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(403, false, false)]
    #[case(409, false, false)]
    #[case(429, true, true)]
    #[case(500, true, false)]
    #[case(503, true, true)]
    fn codes_tell_whether_it_can_work(#[case] code: u16, #[case] unreachable: bool, #[case] down: bool) {
        let status = Status {
            code,
            ..Status::default()
        };
        let error = kube::Error::Api(Box::new(status));
        assert_eq!((is_unreachable(&error), is_down(&error)), (unreachable, down));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_ends() {
        let error = timely(std::future::pending::<kube::Result<()>>()).await.unwrap_err();
        assert!(is_unreachable(&error) && is_down(&error));
        assert!(error.to_string().contains("no answer within 10s"), "{error}");
    }
}
