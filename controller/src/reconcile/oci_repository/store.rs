//! What a pass does with the artifact storage: opens it, archives or copies a fetched layer, commits. Everything that may block runs on
//! a thread for that; failures come back as conditions.

use std::{
    io::{Cursor, Read},
    sync::Arc,
};

use jiff::Timestamp;
use kube::ResourceExt;
use mintmark_api::{
    condition::reason,
    oci_repository::{LayerOperation, OciRepository},
};

use super::events;
use crate::{
    artifact::{self, Draft, Record, Staged, Standing, Storage, StorageError},
    content::{ContentError, Limits, extract},
    reconcile::{Context, StepError},
    watch::ObjectKey,
};

/// What the storage holds when a pass begins.
pub struct Opened {
    /// The artifact, if it is whole.
    pub record: Option<Arc<Record>>,
    /// Where it is stored.
    pub key: artifact::ObjectKey,
    /// Whether there was one that is gone or damaged.
    pub lost: bool,
}

/// Says to the storage that the object of `key` has this UID now, and looks at what is stored for it.
pub async fn open(ctx: &Context<OciRepository>, key: &ObjectKey, object: &OciRepository) -> Result<Opened, StepError> {
    let storage_key = artifact::ObjectKey::new(&key.namespace, &key.name).map_err(|error| storage_error(&error))?;
    let uid = object.uid().unwrap_or_default();
    if let Some(record) = ctx.own.storage.at_rest(&storage_key, &uid, Timestamp::now()) {
        return Ok(Opened {
            record: Some(record),
            key: storage_key,
            lost: false,
        });
    }
    let standing = blocking(&ctx.own.storage, {
        let key = storage_key.clone();
        move |storage| {
            storage
                .begin_pass(&key, &uid, Timestamp::now())
                .map_err(|error| storage_error(&error))
        }
    })
    .await?;
    Ok(match standing {
        Standing::Absent => Opened {
            record: None,
            key: storage_key,
            lost: false,
        },
        Standing::Stored(record) => Opened {
            record: Some(record),
            key: storage_key,
            lost: false,
        },
        Standing::Lost(_, loss) => {
            events::lost(ctx, object, &loss.to_string());
            Opened {
                record: None,
                key: storage_key,
                lost: true,
            }
        }
    })
}

/// A fetched layer.
pub enum Blob {
    /// A small one.
    Memory(Cursor<Vec<u8>>),
    /// A large one, in an unlinked file.
    File(std::fs::File),
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Memory(bytes) => bytes.read(buffer),
            Self::File(file) => file.read(buffer),
        }
    }
}

/// Makes of the layer what `operation` says, and that the object's artifact. The draft's `ignore` counts where files are
/// archived.
pub async fn store(
    ctx: &Context<OciRepository>,
    key: &artifact::ObjectKey,
    operation: LayerOperation,
    blob: Blob,
    draft: Draft,
) -> Result<Arc<Record>, StepError> {
    let slot = ctx.own.extractions.acquire().await;
    let (key, limits, ignore) = (key.clone(), ctx.settings.extract_limits, draft.binding.ignore.clone());
    let staged = blocking(&ctx.own.storage, move |storage| match operation {
        LayerOperation::Copy => copy(storage, &key, blob),
        _ => archive(storage, &key, blob, &limits, ignore.as_deref()),
    })
    .await?;
    // What is left is waiting for the disk, which many may do at a time.
    drop(slot);
    blocking(&ctx.own.storage, move |_| {
        staged
            .commit(draft, Timestamp::now())
            .map_err(|error| storage_error(&error))
    })
    .await
}

/// Extracts the layer and writes its archive into a file that has no name yet. Blocks.
fn archive(
    storage: &Storage,
    key: &artifact::ObjectKey,
    blob: Blob,
    limits: &Limits,
    ignore: Option<&str>,
) -> Result<Staged, StepError> {
    let mut tree = extract(blob, limits, &storage.staging_path()).map_err(|error| content_error(&error))?;
    let patterns = tree.patterns(ignore).map_err(|error| content_error(&error))?;
    let mut staged = storage.stage(key).map_err(|error| storage_error(&error))?;
    tree.write_archive(&patterns, &mut staged)
        .map_err(|error| content_error(&error))?;
    Ok(staged)
}

/// Writes the layer's bytes as they are into a file that has no name yet. Blocks.
fn copy(storage: &Storage, key: &artifact::ObjectKey, mut blob: Blob) -> Result<Staged, StepError> {
    let mut staged = storage.stage(key).map_err(|error| storage_error(&error))?;
    std::io::copy(&mut blob, &mut staged).map_err(|error| {
        StepError::storage(
            reason::ARCHIVE_OPERATION_FAILED,
            format!("unable to copy artifact to storage: {error}"),
        )
    })?;
    Ok(staged)
}

fn content_error(error: &ContentError) -> StepError {
    if error.is_layer_fault() {
        let message = format!("failed to extract layer contents from artifact: {error}");
        StepError::fetch(reason::OCI_ARTIFACT_LAYER_OPERATION_FAILED, message)
    } else {
        StepError::storage(
            reason::ARCHIVE_OPERATION_FAILED,
            format!("unable to archive artifact to storage: {error}"),
        )
    }
}

fn storage_error(error: &StorageError) -> StepError {
    match error {
        StorageError::Directory { .. } => StepError::storage(reason::DIRECTORY_CREATION_FAILED, error.to_string()),
        StorageError::Stat { .. } => StepError::storage(reason::STAT_OPERATION_FAILED, error.to_string()),
        _ => StepError::storage(
            reason::ARCHIVE_OPERATION_FAILED,
            format!("unable to archive artifact to storage: {error}"),
        ),
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(
    storage: &Storage,
    work: impl FnOnce(&Storage) -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    let storage = storage.clone();
    match tokio::task::spawn_blocking(move || work(&storage)).await {
        Ok(result) => result,
        Err(_) => Err(StepError::storage(
            reason::ARCHIVE_OPERATION_FAILED,
            "storing was interrupted",
        )),
    }
}
