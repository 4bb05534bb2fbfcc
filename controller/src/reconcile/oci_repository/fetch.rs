//! The working part of a pass: have a credential, ask for the revision, and if it is not the stored one with the very same
//! binding, fetch the layer and store its archive. A pass that finds nothing new ends after one HEAD request.

use std::{
    io::{Cursor, Seek},
    sync::Arc,
};

use kube::ResourceExt;
use mintmark_api::{condition::reason, credential::CredentialStatus, digest::Digest, oci_repository::OciRepository};

use super::{
    Reference, ValidatedOciRepository,
    newest::{Undetermined, newest_tag},
    status,
    store::{self, Blob, Opened},
};
use crate::{
    artifact::{Binding, Draft, Record},
    content::select_layer,
    reconcile::{
        Context, StepError,
        access::{self, Door, registry_failure},
        context::generation,
        progress::Drift,
    },
    registry::{Descriptor, RegistryError, ResolvedManifest, Session},
    watch::ObjectKey,
};

/// A layer up to this size is held in memory while it is fetched.
const IN_MEMORY: u64 = 1024 * 1024;
/// Annotations beyond this in all would be refused with the whole status (etcd takes 1.5 MiB).
const METADATA_LIMIT: usize = 64 * 1024;

/// One pull in progress.
pub struct Pull<'a> {
    ctx: &'a Context<OciRepository>,
    key: &'a ObjectKey,
    object: &'a OciRepository,
    spec: &'a ValidatedOciRepository,
    opened: Opened,
    credential: Option<CredentialStatus>,
    outdated: Option<String>,
    drift: Arc<Drift>,
}

impl<'a> Pull<'a> {
    /// A pull for `object`, whose storage was opened.
    pub fn new(
        ctx: &'a Context<OciRepository>,
        key: &'a ObjectKey,
        object: &'a OciRepository,
        spec: &'a ValidatedOciRepository,
        opened: Opened,
    ) -> Self {
        let drift = Arc::new(Drift::default());
        let seen = object
            .status
            .as_ref()
            .and_then(|status| status.observed_generation)
            .unwrap_or(-1);
        if opened.lost {
            drift.known("building artifact: disappeared from storage".to_owned());
        } else if opened.record.is_none() {
            drift.known("building artifact".to_owned());
        } else if seen != generation(object) {
            drift.known(format!(
                "processing object: new generation {seen} -> {}",
                generation(object)
            ));
        }
        Self {
            ctx,
            key,
            object,
            spec,
            opened,
            credential: None,
            outdated: None,
            drift,
        }
    }

    /// What is known to be done.
    pub fn drift(&self) -> Arc<Drift> {
        self.drift.clone()
    }

    /// What is stored now.
    pub fn record(&self) -> Option<Arc<Record>> {
        self.opened.record.clone()
    }

    /// What was presented.
    pub fn credential(&self) -> Option<CredentialStatus> {
        self.credential.clone()
    }

    /// A revision that the registry has and the storage has not.
    pub fn outdated(&self) -> Option<String> {
        self.outdated.clone()
    }

    /// Pulls if there is something new.
    pub async fn run(&mut self) -> Result<(), StepError> {
        let mut door = Door::new(self.ctx, self.key, self.object, &self.spec.access);
        let opened = door.open(&self.drift, reason::OCI_ARTIFACT_PULL_FAILED).await;
        self.credential = door.credential();
        let (mut session, binding) = self.bound(opened?);
        let (revision, digest) = self.resolve(&mut session).await?;
        if self.is_stored(&revision, &binding) {
            return Ok(());
        }
        self.outdated = self.new_revision(&revision);
        let draft = Draft {
            binding,
            revision,
            ..Draft::default()
        };
        // Apart from the pass itself, which most often ends before it comes to this: a pass that waits is kept small.
        let record = Box::pin(self.fetch(&mut session, &digest, draft)).await?;
        self.opened.record = Some(record);
        self.outdated = None;
        Ok(())
    }

    fn is_stored(&self, revision: &str, binding: &Binding) -> bool {
        self.opened
            .record
            .as_ref()
            .is_some_and(|record| record.revision == revision && record.binding == *binding)
    }

    /// Tells what is built. Returns the revision if another one is stored; content may differ without that.
    fn new_revision(&self, revision: &str) -> Option<String> {
        let stored = self.opened.record.as_ref();
        if stored.is_some_and(|record| record.revision == revision) {
            self.drift.known("building artifact".to_owned());
            return None;
        }
        let tag = revision.rsplit_once('@').map_or(revision, |(tag, _)| tag);
        self.drift
            .known(format!("building artifact: new revision '{revision}' for '{tag}'"));
        stored.map(|_| revision.to_owned())
    }

    /// The session, and everything that decides what is pulled in it.
    fn bound(&self, opened: access::Opened) -> (Session, Binding) {
        let binding = Binding {
            uid: self.object.uid().unwrap_or_default(),
            url: self.object.spec.url.clone(),
            credential: opened.identity.credential,
            referents: opened.identity.referents,
            ignore: self.object.spec.ignore.clone(),
            layer_selector: self.spec.layer_selector.as_ref().map(status::layer_binding),
            ..Binding::default()
        };
        (opened.session, binding)
    }

    /// The revision and the manifest's digest. A digest reference costs no request.
    async fn resolve(&self, session: &mut Session) -> Result<(String, Digest), StepError> {
        let newest;
        let tag = match &self.spec.reference {
            Reference::Digest(digest) => return Ok((digest.to_string(), digest.clone())),
            Reference::Tag(tag) => tag.as_str(),
            Reference::Semver(range) => {
                newest = newest_tag(session, range)
                    .await
                    .map_err(|error| self.undetermined(&error))?;
                &newest
            }
        };
        let digest = session
            .resolve(tag)
            .await
            .map_err(|error| pull_failure(&error, "failed to determine artifact digest"))?;
        Ok((format!("{tag}@{digest}"), digest))
    }

    fn undetermined(&self, error: &Undetermined) -> StepError {
        let context = format!("failed to determine the artifact tag for '{}'", self.object.spec.url);
        match error {
            Undetermined::Registry(error) => registry_failure(error, reason::READ_OPERATION_FAILED, &context),
            error => StepError::fetch(reason::READ_OPERATION_FAILED, format!("{context}: {error}")),
        }
    }

    async fn fetch(&self, session: &mut Session, digest: &Digest, mut draft: Draft) -> Result<Arc<Record>, StepError> {
        let context = format!("failed to pull artifact from '{}'", self.spec.url);
        let manifest = session
            .manifest(digest)
            .await
            .map_err(|error| pull_failure(&error, &context))?;
        draft.metadata.clone_from(&manifest.annotations);
        check_metadata(&manifest)?;
        let layer = select_layer(&manifest.layers, self.spec.layer_media_type.as_deref(), |layer| {
            &layer.media_type
        })
        .map_err(|error| StepError::fetch(reason::OCI_ARTIFACT_LAYER_OPERATION_FAILED, error.to_string()))?;
        let blob = self.download(session, layer).await.map_err(|error| match error {
            Download::Registry(error) => pull_failure(&error, &context),
            Download::Local(error) => StepError::storage(
                reason::ARCHIVE_OPERATION_FAILED,
                format!("unable to archive artifact to storage: {error}"),
            ),
        })?;
        // The registry is done with; others may have its permit while this layer is extracted.
        session.leave();
        store::store(self.ctx, &self.opened.key, self.spec.layer_operation, blob, draft).await
    }

    async fn download(&self, session: &mut Session, layer: &Descriptor) -> Result<Blob, Download> {
        let limit = self.ctx.settings.artifact_max_size;
        if layer.size <= IN_MEMORY {
            let mut bytes = Vec::with_capacity(usize::try_from(layer.size).unwrap_or_default());
            session.blob(layer, limit, &mut bytes).await?;
            return Ok(Blob::Memory(Cursor::new(bytes)));
        }
        let file = tempfile::tempfile_in(self.ctx.own.storage.staging_path())?;
        let mut writer = tokio::fs::File::from_std(file);
        session.blob(layer, limit, &mut writer).await?;
        let mut file = writer.into_std().await;
        file.rewind()?;
        Ok(Blob::File(file))
    }
}

/// A registry failure as a condition; `context` says what was being done.
fn pull_failure(error: &RegistryError, context: &str) -> StepError {
    registry_failure(error, reason::OCI_ARTIFACT_PULL_FAILED, context)
}

enum Download {
    Registry(RegistryError),
    Local(std::io::Error),
}

impl From<RegistryError> for Download {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl From<std::io::Error> for Download {
    fn from(error: std::io::Error) -> Self {
        Self::Local(error)
    }
}

fn check_metadata(manifest: &ResolvedManifest) -> Result<(), StepError> {
    let size: usize = manifest
        .annotations
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    if size <= METADATA_LIMIT {
        return Ok(());
    }
    let message = format!("the manifest's annotations take {size} bytes, more than {METADATA_LIMIT}");
    Err(StepError::terminal(reason::METADATA_TOO_LARGE, message))
}
