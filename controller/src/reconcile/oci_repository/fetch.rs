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
    dereference::{self, Referents},
    login::{self, Found, Login},
    newest::{Undetermined, newest_tag},
    status,
    store::{self, Blob, Opened},
};
use crate::{
    artifact::{Binding, CredentialBinding, Draft, Record},
    content::select_layer,
    credential::{Annotated, CredentialSource, NamedUser, ObjectCredential, PullSecretSource, Unavailable, Wanted},
    reconcile::{
        Context, StepError,
        context::{generation, identity},
        progress::Drift,
        referents::Reader,
    },
    registry::{Descriptor, RegistryError, ResolvedManifest, Session, SessionSpec},
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
        let mut reader = Reader::new(self.ctx, self.key);
        let (source, login) = self.source(&mut reader).await?;
        let uid = self.object.uid().unwrap_or_default();
        let referents = dereference::referents(&mut reader, self.key, &uid, self.spec).await?;
        drop(reader);
        let binding = self.binding(&referents, login.as_ref());
        let mut session = self.session(referents, source);
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

    /// Where what is presented comes from, and the login if it is one.
    async fn source(
        &mut self,
        reader: &mut Reader<'_, OciRepository>,
    ) -> Result<(Arc<dyn CredentialSource>, Option<Login>), StepError> {
        Ok(
            match login::find(self.ctx, reader, self.key, self.object, self.spec).await? {
                Found::Login(login) => (Arc::new(PullSecretSource::new(login.credential.clone())), Some(login)),
                Found::Spec => {
                    let source = self.credential_source(&self.spec.credential)?;
                    // A watched account is looked at for nothing, another one when a token is asked for.
                    if source.asks_for_token() || self.ctx.known_referents.is_watched() {
                        login::check_account(reader, &self.spec.credential).await?;
                    }
                    (self.minting(source).await?, None)
                }
                Found::Annotated(Annotated { wanted, username }) => {
                    let source = self.credential_source(&wanted)?;
                    (Arc::new(NamedUser::new(self.minting(source).await?, username)), None)
                }
            },
        )
    }

    /// The credential of the object's own, minted before the first request so that a failure is told as one of minting.
    async fn minting(&mut self, source: Arc<ObjectCredential>) -> Result<Arc<ObjectCredential>, StepError> {
        let minted = source.current().await;
        self.credential = source.status();
        minted.map_err(|error| {
            StepError::fetch(
                reason::AUTHENTICATION_FAILED,
                format!("failed to get credential: {error}"),
            )
        })?;
        Ok(source)
    }

    fn credential_source(&self, wanted: &Wanted) -> Result<Arc<ObjectCredential>, StepError> {
        let object = identity(self.object);
        let source = self.ctx.credentials.source(&object, wanted, &self.spec.origin);
        source.map(Arc::new).map_err(|unavailable| match unavailable {
            Unavailable::NotConfigured(why) => StepError::terminal(reason::CREDENTIAL_NOT_CONFIGURED, why),
            Unavailable::WrongKey(why) => StepError::waiting_for_another_key(why),
            Unavailable::Invalid(why) => StepError::terminal(reason::CREDENTIAL_INVALID, why),
            Unavailable::WaitingForIssuer(why) => StepError::waiting_for_issuer(why),
            Unavailable::Transient(why) => StepError::fetch(
                reason::AUTHENTICATION_FAILED,
                format!("failed to get credential: {why}"),
            ),
        })
    }

    fn binding(&self, referents: &Referents, login: Option<&Login>) -> Binding {
        let minted = self.credential.as_ref().map(|credential| CredentialBinding {
            kind: credential.kind.to_string(),
            subject: Some(credential.subject.clone()),
            audiences: credential.audiences.clone(),
        });
        let mut versions = referents.versions.clone();
        versions.extend(login.map(|login| login.referent.clone()));
        Binding {
            uid: self.object.uid().unwrap_or_default(),
            url: self.object.spec.url.clone(),
            credential: minted.or_else(|| login.map(|login| login.binding.clone())),
            referents: versions,
            ignore: self.object.spec.ignore.clone(),
            layer_selector: self.spec.layer_selector.as_ref().map(status::layer_binding),
            ..Binding::default()
        }
    }

    fn session(&self, referents: Referents, source: Arc<dyn CredentialSource>) -> Session {
        let drift = self.drift.clone();
        let spec = SessionSpec {
            url: self.spec.url.clone(),
            insecure: !self.spec.origin.is_https(),
            ca: referents.ca,
            client_certificate: referents.client_certificate,
            proxy: referents.proxy,
            object_uid: self.object.uid().unwrap_or_default().into(),
            namespace: self.key.namespace.clone(),
            timeout: self.spec.timeout,
            on_wait: Some(Arc::new(move |cause, _| {
                drift.waiting(pull_failure(cause, "waiting to try again"));
            })),
        };
        self.ctx.registry.session(spec, source)
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

/// The same with the reason for what is not about who we are.
fn registry_failure(error: &RegistryError, otherwise: &'static str, context: &str) -> StepError {
    let reason = if error.is_authentication() {
        reason::AUTHENTICATION_FAILED
    } else {
        otherwise
    };
    let message = format!("{context}: {}", error.message());
    if error.retryable() {
        StepError::fetch(reason, message)
    } else {
        StepError::terminal(reason::CREDENTIAL_INVALID, message)
    }
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
