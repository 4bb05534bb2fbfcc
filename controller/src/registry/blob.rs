//! Streams one blob: declared size, length and hash checked, cut connections resumed with `Range` (RFC 9110 §14).
//!
//! Bytes already written are never asked for again unless the registry starts over; then they are read and dropped, since
//! the final hash covers what was written.

use http::{StatusCode, header::CONTENT_RANGE};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt as _},
    time::Instant,
};

use super::{
    body::Answer,
    error::{Failure, InvalidContent, RegistryError},
    hash::Hasher,
    manifest::Descriptor,
    session::{Call, Retries, Session, vary},
};

/// A resumption that brought fewer bytes than this brought nothing.
const PROGRESS: u64 = 4 * 1024;

struct Transfer<'a> {
    descriptor: &'a Descriptor,
    hasher: Hasher,
    written: u64,
}

/// Why a transfer stopped.
enum Stop {
    /// Before any byte of the body: an ordinary failed request.
    Request(Failure),
    /// The connection was cut within the body.
    Cut,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Request(failure)
    }
}

impl Session {
    /// Writes the blob to `dest`. Fails before the first request when the descriptor names more than `max_size` bytes (0: no
    /// limit). After an error `dest` holds an unusable beginning.
    pub async fn blob(
        &mut self,
        descriptor: &Descriptor,
        max_size: u64,
        dest: &mut (impl AsyncWrite + Unpin + Send),
    ) -> Result<(), RegistryError> {
        let mut call = Call::blob(&descriptor.digest);
        if max_size > 0 && descriptor.size > max_size {
            return Err(self.error(
                &call,
                Failure::TooLarge {
                    what: "blob",
                    limit: max_size,
                },
            ));
        }
        let mut transfer = Transfer {
            descriptor,
            hasher: Hasher::for_digest(&descriptor.digest),
            written: 0,
        };
        let (mut retries, mut stalled) = (Retries::default(), 0);
        loop {
            let before = transfer.written;
            call.from = before;
            self.enter().await;
            match self.transfer(&call, &mut transfer, dest).await {
                Ok(()) => break,
                Err(Stop::Request(failure)) => self.wait(&mut retries, &call, failure).await?,
                Err(Stop::Cut) => {
                    stalled = if transfer.written - before >= PROGRESS {
                        0
                    } else {
                        stalled + 1
                    };
                    self.resume(&call, stalled).await?;
                }
            }
        }
        if !transfer.hasher.matches(&descriptor.digest) {
            return Err(self.error(&call, InvalidContent::Digest { what: "blob" }.into()));
        }
        dest.flush()
            .await
            .map_err(|error| self.error(&call, Failure::Local(error.kind())))
    }

    /// Goes on at once after progress, after a wait without, and not at all after too many of those.
    async fn resume(&mut self, call: &Call, stalled: u32) -> Result<(), RegistryError> {
        let policy = &self.client.config.retry;
        if stalled == 0 {
            return Ok(());
        }
        let error = self.error(call, Failure::ConnectionLost);
        let index = usize::try_from(stalled - 1).unwrap_or(usize::MAX);
        let delay = policy
            .delays
            .get(index)
            .or(policy.delays.last())
            .copied()
            .unwrap_or_default();
        let delay = vary(delay, policy.jitter);
        if stalled > policy.stalled_resumptions || Instant::now() + delay >= self.deadline() {
            return Err(error);
        }
        self.pause_and_enter(error, delay).await
    }

    /// One request for what is still missing.
    async fn transfer(
        &mut self,
        call: &Call,
        transfer: &mut Transfer<'_>,
        dest: &mut (impl AsyncWrite + Unpin + Send),
    ) -> Result<(), Stop> {
        let answer = self.send(call).await.map_err(|failure| match failure {
            Failure::UnexpectedStatus { status: 416 } => InvalidContent::Range.into(),
            other => other,
        })?;
        let size = transfer.descriptor.size;
        let wrong_length = || {
            Failure::from(InvalidContent::Length {
                what: "blob",
                declared: size,
            })
        };
        let mut position = first_byte(&answer, call.from, size)?;
        let announced = answer.response.content_length();
        if announced.is_some_and(|length| position.saturating_add(length) != size) {
            return Err(wrong_length().into());
        }
        let mut body = self.body(answer);
        loop {
            let chunk = match body.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) if transfer.written == size => return Ok(()),
                Ok(None) => return Err(wrong_length().into()),
                Err(Failure::ConnectionLost) => return Err(Stop::Cut),
                Err(other) => return Err(other.into()),
            };
            let known = usize::try_from(transfer.written.saturating_sub(position))
                .unwrap_or(usize::MAX)
                .min(chunk.len());
            position += chunk.len() as u64;
            if position > size {
                return Err(wrong_length().into());
            }
            let new = chunk.get(known..).unwrap_or_default();
            transfer.hasher.update(new);
            dest.write_all(new)
                .await
                .map_err(|error| Failure::Local(error.kind()))?;
            transfer.written += new.len() as u64;
        }
    }
}

/// Where the answer begins: at what was asked with 206, at 0 with 200.
fn first_byte(answer: &Answer, asked: u64, size: u64) -> Result<u64, Failure> {
    match (answer.response.status(), asked) {
        (StatusCode::OK, _) => Ok(0),
        (StatusCode::PARTIAL_CONTENT, 1..) => {
            let range = answer
                .response
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|value| value.to_str().ok());
            if range.is_some_and(|range| continues(range, asked, size)) {
                Ok(asked)
            } else {
                Err(InvalidContent::Range.into())
            }
        }
        (status, _) => Err(Failure::UnexpectedStatus {
            status: status.as_u16(),
        }),
    }
}

/// Whether `Content-Range` is `bytes <asked>-<last>/<size or *>` with the blob's last byte.
fn continues(range: &str, asked: u64, size: u64) -> bool {
    let parts = range.strip_prefix("bytes ").and_then(|range| range.split_once('/'));
    let Some(((first, last), total)) = parts.and_then(|(range, total)| Some((range.split_once('-')?, total))) else {
        return false;
    };
    let number = |text: &str| text.parse::<u64>().ok();
    number(first) == Some(asked)
        && number(last).and_then(|last| last.checked_add(1)) == Some(size)
        && (total == "*" || number(total) == Some(size))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("bytes 4-9/10", true)]
    #[case("bytes 4-9/*", true)]
    #[case("bytes 0-9/10", false)]
    #[case("bytes 4-8/10", false)]
    #[case("bytes 4-9/11", false)]
    #[case("bytes */10", false)]
    #[case("items 4-9/10", false)]
    #[case("bytes 4-18446744073709551615/10", false)]
    fn content_range(#[case] range: &str, #[case] expected: bool) {
        assert_eq!(continues(range, 4, 10), expected);
    }
}
