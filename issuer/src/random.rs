//! Randomness as an argument: token ids and serial numbers come from here. Keys and signatures draw on the system
//! directly, as `ring` insists.

use ::ring::rand::{SecureRandom, SystemRandom};

/// A source of unpredictable bytes: [`SystemRandom`] in the product, a fixed one in a test.
pub trait Random: Send + Sync {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError>;
}

/// The system's random source failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random source failed")]
pub struct RandomError;

impl Random for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        SecureRandom::fill(self, buffer).map_err(|_| RandomError)
    }
}
