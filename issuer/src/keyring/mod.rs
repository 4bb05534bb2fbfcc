//! The key ring: which keys are published, which one signs, and what is written where before it does. It is a pure state
//! machine: events and two clocks go in, actions come out, and the caller performs them in order. So that no verifier ever
//! meets a signature whose key it could not have seen, a key is stored and published before it signs.
//!
//! Today a ring has one signing key per use: a new key is stored and then signs at once, and the old one stays published,
//! `Retired`, until nothing that it signed can still be valid.

mod event;
mod held;
mod machine;
mod notice;
mod plan;
mod state;
mod stored;
#[cfg(test)]
mod tests;

pub use event::{Action, Clocks, Event, Found, KeyUses, NoSigner, SigningSet, StoreWrite};
pub use machine::KeyRing;
pub use notice::{KeyUse, Notice};
pub use state::{Entry, JwtMaterial, KeyState, MAX_KEYS_PER_USE, RingPolicy, RingState, X509Material};
pub use stored::{Refused, StateError, StoredKeys, StoredState};
