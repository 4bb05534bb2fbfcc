//! From a spec to a session with its registry: what the spec refers to is read, the credential is had before the first
//! request, and nothing is presented but what the spec says. The same for every kind that asks a registry.

mod dereference;
mod login;
mod open;
mod validate;

pub use open::{Door, Identity, Opened, registry_failure};
pub use validate::{LoginFrom, ValidatedAccess, check_contradictions, check_provider};
