//! Semantic versions as Flux users write them: tags read as versions, and the range syntax of the Go library
//! Masterminds/semver 3.5, of which no Rust crate has the same reading. Pure: no I/O, no clock; nothing here panics or
//! grows beyond its input.
//!
//! [`Version`] reads and orders, [`Constraint`] admits, [`TagFilter`] preselects, and [`Newest`] puts the three together
//! over a stream of tags.

mod comparator;
mod constraint;
mod filter;
mod hyphen;
mod newest;
#[cfg(test)]
mod oracle_tests;
mod scan;
mod version;

pub use self::{
    constraint::{Constraint, ConstraintError},
    filter::{FilterError, TagFilter, TagMatch},
    newest::{Newest, TagForm, TagRange},
    version::Version,
};
