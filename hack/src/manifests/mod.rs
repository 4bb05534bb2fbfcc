//! The YAML of `config/`: read from kustomization folders, adapted to a test's own namespace, applied to a cluster.
//!
//! [`load`] reads files, [`Placement`] rewrites names, [`apply`] talks to the API server by server-side apply as field
//! manager `mintmark-hack`, and needs the right to create everything it is given.

mod apply;
mod load;
mod placement;

pub use apply::{api, apply, kind, sort};
pub use load::load;
pub use placement::Placement;
