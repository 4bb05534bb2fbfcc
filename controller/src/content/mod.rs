//! From a layer's bytes to the archive that consumers fetch.
//!
//! [`select_layer`] picks the layer, [`extract`] reads its gzip'd tar into a [`Tree`] under the caps of [`Limits`], and
//! [`Tree::write_archive`] writes it again in one canonical form, without what [`Patterns`] exclude. Everything here is
//! synchronous and never creates a file under a name that the layer chose: call it from `spawn_blocking`, at most
//! [`MAX_CONCURRENT_EXTRACTIONS`] at a time.

mod archive;
mod error;
mod extract;
mod ignore;
mod layer;
mod limits;
mod meter;
mod path;
mod pax;
mod tree;
mod ustar;

pub use archive::ArchiveSummary;
pub use error::{Cap, ContentError};
pub use extract::extract;
pub(crate) use ignore::Glob;
pub use ignore::{Patterns, Verdict};
pub use layer::{LayerError, select_layer};
pub use limits::{Limits, MAX_CONCURRENT_EXTRACTIONS};
pub use tree::Tree;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod testing;
