//! The key ring: which keys are published, which one signs, and what is written where before it does. It is a pure state
//! machine: events and two clocks go in, actions come out, and the caller performs them in order. So that no verifier ever
//! meets a signature whose key it could not have seen, a key is stored and published before it signs.
//!
//! `Published` → `Signing` → `Retired` → gone, JWT keys and X.509 authorities apart. One process at a time leads: it plans
//! and writes. The others publish and sign what they find stored, and all of them go on from memory when they find nothing.

mod candidates;
mod check;
mod disk;
mod event;
mod held;
mod machine;
mod notice;
mod phases;
mod plan;
mod state;
mod stored;
#[cfg(test)]
mod tests;
mod timer;

pub use event::{Action, Clocks, Event, Found, KeyUses, NoSigner, SigningSet, StoreWrite};
pub use machine::KeyRing;
pub use notice::{KeyUse, Notice};
pub use state::{Entry, JwtMaterial, KeyState, MAX_KEYS_PER_USE, RingPolicy, RingState, X509Material};
pub use stored::{Refused, StateError, StoredKeys, StoredState, is_authority_id, is_id};
