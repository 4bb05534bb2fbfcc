//! mintmark: a Flux-style controller that mints a short-lived identity for each repository object and pulls with it.
//!
//! The map of this crate is in `docs/architecture.md`. Reading order: [`cli`] puts the process together, [`watch`] feeds the
//! work queue, [`reconcile`] is the pipeline, which uses [`credential`], [`registry`], [`content`] and [`artifact`];
//! [`issuing`] runs the key ring that [`publish`] shows to the world.

pub mod artifact;
pub mod cli;
pub mod content;
pub mod credential;
pub mod issuing;
pub mod notify;
pub mod policy;
pub mod publish;
pub mod reconcile;
pub mod registry;
pub mod runtime;
pub mod semver;
pub mod tags;
pub mod watch;

#[cfg(test)]
mod fuzzing;
