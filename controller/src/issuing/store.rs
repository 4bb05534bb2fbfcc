//! Keeps the key ring in its two Secrets. A write adds the private keys first, then writes the state that names them, then
//! removes the keys that nobody needs any more: whatever crashes in between, the stored state never names a signing key
//! that is stored nowhere. Every replacement names the version that was read; nothing is ever created.

use std::sync::Arc;

use jiff::Timestamp;
use mintmark_issuer::{Found, StateError, StoreWrite, StoredKeys, StoredState};
use zeroize::Zeroizing;

use super::{Held, IoError, SecretData, SecretIo, Which};

/// Rounds of reading until the state stands still while the keys are read.
const ROUNDS: usize = 5;

/// Whether this process may write now; asked right before every write.
pub type MayWrite = Arc<dyn Fn() -> bool + Send + Sync>;

/// The two Secrets as this process knows them.
pub struct RingStore<I> {
    io: I,
    may_write: MayWrite,
    state: Option<Held>,
    ring: Option<Held>,
}

/// Why the ring was not read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The API server.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Another process may write by now.
    #[error("this process does not lead any more")]
    NotLeading,
    /// The state has no stored form; a bug.
    #[error("the state cannot be written: {0}")]
    Form(#[from] StateError),
}

impl StoreError {
    /// The label of the counter of failures.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Io(error) => error.label(),
            Self::NotLeading => "not_leading",
            Self::Form(_) => "form",
        }
    }

    /// Whether the Secrets have to be read again before the next write: they hold something else, or nobody knows.
    pub const fn needs_reading(&self) -> bool {
        !matches!(self, Self::Io(IoError::Refused { .. }) | Self::Form(_))
    }

    /// Whether the Secrets may hold a part of what was to be written, or what somebody else wrote. What is missing holds
    /// nothing new.
    pub const fn is_partial(&self) -> bool {
        self.needs_reading() && !matches!(self, Self::Io(IoError::Missing(_)))
    }
}

/// What reading came to.
#[derive(Debug)]
pub struct Reading {
    /// What the Secrets hold.
    pub found: Box<Found>,
    /// Whether it is not what this process read or wrote last.
    pub is_news: bool,
    /// Whether a Secret was missing before.
    pub was_missing: bool,
}

impl<I: SecretIo> RingStore<I> {
    /// Knows nothing yet.
    pub fn new(io: I, may_write: MayWrite) -> Self {
        Self {
            io,
            may_write,
            state: None,
            ring: None,
        }
    }

    /// The version that was read or written last; `None` when there was no such Secret.
    pub fn version(&self, which: Which) -> Option<&str> {
        self.slot(which)?.version()
    }

    /// Asks for the state only, to see the API server's clock.
    pub async fn ask(&self) -> Result<(), StoreError> {
        match self.io.get(Which::State).await {
            Ok(_) | Err(IoError::Missing(_) | IoError::Refused { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads both Secrets at `now` (wall time). A missing one holds nothing.
    pub async fn read(&mut self, now: Timestamp) -> Result<Reading, StoreError> {
        let mut state = self.get(Which::State).await?;
        let mut ring = None;
        // A state is read before and after the keys: so the keys are never older than the state that names them, nor from
        // after the next one dropped some.
        for _ in 0..ROUNDS {
            ring = self.get(Which::Ring).await?;
            let again = self.get(Which::State).await?;
            let is_stable = version(again.as_ref()) == version(state.as_ref());
            state = again;
            if is_stable {
                break;
            }
        }
        let is_news = version(state.as_ref()) != self.version(Which::State)
            || version(ring.as_ref()) != self.version(Which::Ring);
        let was_missing = self.state.is_none() || self.ring.is_none();
        self.state = state;
        self.ring = ring;
        Ok(Reading {
            found: Box::new(self.found(now)),
            is_news,
            was_missing,
        })
    }

    /// Makes both Secrets hold what `write` says.
    pub async fn write(&mut self, write: &StoreWrite) -> Result<(), StoreError> {
        let state = write.state.to_data()?;
        let state: SecretData = state
            .into_iter()
            .map(|(name, value)| (name, Zeroizing::new(value)))
            .collect();
        let wanted = write.keys.to_data();
        if self.state.is_none() {
            return Err(IoError::Missing(Which::State.name()).into());
        }
        let held = self.ring.as_ref().ok_or(IoError::Missing(Which::Ring.name()))?;
        let mut all = held.data.clone();
        all.extend(wanted.clone());
        self.put(Which::Ring, all).await?;
        self.put(Which::State, state).await?;
        self.put(Which::Ring, wanted).await
    }

    /// Replaces the data of one Secret, unless it is that already.
    async fn put(&mut self, which: Which, data: SecretData) -> Result<(), StoreError> {
        let held = self.slot(which).ok_or(IoError::Missing(which.name()))?;
        if held.data == data {
            return Ok(());
        }
        if !(self.may_write)() {
            return Err(StoreError::NotLeading);
        }
        let frame = held.frame.clone();
        match self.io.put(which, frame, data).await {
            Ok(held) => {
                match which {
                    Which::State => self.state = Some(held),
                    Which::Ring => self.ring = Some(held),
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn get(&self, which: Which) -> Result<Option<Held>, StoreError> {
        match self.io.get(which).await {
            Ok(held) => Ok(Some(held)),
            Err(IoError::Missing(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn slot(&self, which: Which) -> Option<&Held> {
        match which {
            Which::State => self.state.as_ref(),
            Which::Ring => self.ring.as_ref(),
        }
    }

    fn found(&self, now: Timestamp) -> Found {
        let state = self
            .state
            .as_ref()
            .map_or(Ok(None), |held| StoredState::read(fields(&held.data), now));
        let keys = self
            .ring
            .as_ref()
            .map(|held| readable_keys(&held.data))
            .unwrap_or_default();
        Found { state, keys }
    }
}

fn version(held: Option<&Held>) -> Option<&str> {
    held?.version()
}

fn fields(data: &SecretData) -> impl Iterator<Item = (&str, &[u8])> + Clone {
    data.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
}

/// The keys that can be read: one that was damaged takes no other with it.
fn readable_keys(data: &SecretData) -> StoredKeys {
    let (keys, damaged) = StoredKeys::from_data(fields(data));
    for error in damaged {
        tracing::error!(secret = Which::Ring.name(), %error, "a stored private key is not readable");
    }
    keys
}
