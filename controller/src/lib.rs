//! mintmark: a Flux-style controller that mints a short-lived identity for each repository object and pulls with it.
//!
//! The map of this crate is in `docs/architecture.md`. Reading order: [`credential`] (what a pull presents),
//! then the modules that consume it.

pub mod artifact;
pub mod content;
pub mod credential;

pub mod registry;
pub mod runtime;
