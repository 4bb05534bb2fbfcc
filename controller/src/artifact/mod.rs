//! Where artifacts are kept and how consumers fetch them.
//!
//! [`Storage`] keeps one current archive per object, with a [`Record`] beside it that binds the archive to the object's
//! UID, its credential and everything else it was made from. [`ArtifactServer`] serves exactly the files that such a
//! record of a live object names. A storage of its own keeps the tags of images in the same way, which nobody is served. File names, status and anything else a tenant can write decide nothing here.

mod address;
mod body;
mod commit;
mod conditional;
mod directory;
mod disk;
mod error;
mod key;
mod pass;
mod range;
mod record;
mod server;
mod slots;
mod staged;
mod storage;
mod sweep;

pub use address::{AddressError, AdvertisedAddress, host_name};
pub use error::StorageError;
pub use key::ObjectKey;
pub use record::{Binding, CredentialBinding, Draft, LayerBinding, Record, Scan, StoredFile};
pub use server::ArtifactServer;
pub use staged::Staged;
pub use storage::{Contents, Loss, ServedFile, Standing, Storage, StorageConfig, SweepReport, Usage};
