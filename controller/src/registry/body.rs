//! Response bodies with all their limits: the pass's deadline, a minimum rate, a maximum size.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::{config::RegistryConfig, error::Failure, pool::InFlight};

/// Most bytes read from a body whose content does not matter, so that its connection can be used again.
pub(super) const MAX_DRAINED: u64 = 64 * 1024;

/// A response whose body is still to be read.
pub(super) struct Answer {
    pub(super) response: reqwest::Response,
    /// Whether it came from the registry's own origin.
    pub(super) own: bool,
    pub(super) in_flight: InFlight,
}

/// Reads the body of an [`Answer`].
pub(super) struct Body {
    response: reqwest::Response,
    deadline: Instant,
    minimum_rate: u64,
    slow_after: Duration,
    received: u64,
    /// Time spent waiting for the network; time spent writing elsewhere is not the peer's fault.
    waited: Duration,
    _in_flight: InFlight,
}

impl Body {
    pub(super) fn new(answer: Answer, config: &RegistryConfig, deadline: Instant) -> Self {
        Self {
            response: answer.response,
            deadline,
            minimum_rate: config.minimum_rate.max(1),
            slow_after: config.slow_after,
            received: 0,
            waited: Duration::ZERO,
            _in_flight: answer.in_flight,
        }
    }

    /// The next piece, none at the end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let started = Instant::now();
        // With so much received, the average falls below the minimum once this much time was waited.
        let patience =
            Duration::from_millis(self.received.saturating_mul(1000) / self.minimum_rate).max(self.slow_after);
        let too_slow = started + patience.saturating_sub(self.waited);
        let chunk = timeout_at(self.deadline.min(too_slow), self.response.chunk()).await;
        self.waited += started.elapsed();
        match chunk {
            Ok(Ok(chunk)) => {
                self.received += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
                Ok(chunk)
            }
            Ok(Err(_)) => Err(Failure::ConnectionLost),
            Err(_) if self.deadline <= too_slow => Err(Failure::TimedOut),
            Err(_) => Err(Failure::TooSlow {
                minimum: self.minimum_rate,
            }),
        }
    }

    /// The whole body, at most `limit` bytes.
    pub(super) async fn read(mut self, what: &'static str, limit: u64) -> Result<Vec<u8>, Failure> {
        let too_large = Failure::TooLarge { what, limit };
        let declared = self.response.content_length();
        if declared.is_some_and(|length| length > limit) {
            return Err(too_large);
        }
        let mut content = Vec::with_capacity(usize::try_from(declared.unwrap_or(0)).unwrap_or(0));
        while let Some(chunk) = self.chunk().await? {
            if content.len() as u64 + chunk.len() as u64 > limit {
                return Err(too_large);
            }
            content.extend_from_slice(&chunk);
        }
        Ok(content)
    }

    /// Reads what is left if it is little, and returns it; the rest goes down with its connection.
    pub(super) async fn drain(self) -> Vec<u8> {
        self.read("body", MAX_DRAINED).await.unwrap_or_default()
    }
}
