//! Opens a session for an object. The credential is minted here, so that a failure is told as one of minting; who would
//! enter can be asked without that.

use std::{collections::BTreeMap, sync::Arc};

use kube::ResourceExt;
use mintmark_api::{condition::reason, credential::CredentialStatus};

use super::{
    ValidatedAccess,
    dereference::{self, Referents},
    login::{self, Found, Login},
};
use crate::{
    artifact::CredentialBinding,
    credential::{Annotated, CredentialSource, NamedUser, ObjectCredential, PullSecretSource, Unavailable, Wanted},
    reconcile::{
        Context, Reconciled, StepError,
        context::identity,
        progress::Drift,
        referents::{Look, Reader},
    },
    registry::{RegistryError, Session, SessionSpec},
    watch::ObjectKey,
};

/// An object at its registry's door.
pub struct Door<'a, K: Reconciled> {
    ctx: &'a Context<K>,
    key: &'a ObjectKey,
    object: &'a K,
    access: &'a ValidatedAccess,
    credential: Option<CredentialStatus>,
}

/// The way in, and who has entered.
pub struct Opened {
    /// A session of one pass.
    pub session: Session,
    /// As whom, and what was read for it.
    pub identity: Identity,
}

/// What decides, besides the address, what a registry shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// As whom; none is anonymous.
    pub credential: Option<CredentialBinding>,
    /// Name of each Secret that was read to its version.
    pub referents: BTreeMap<String, String>,
}

/// Everything that a session needs, before anything is minted.
struct Ready {
    source: Arc<dyn CredentialSource>,
    /// The same source, if it mints.
    minting: Option<Arc<ObjectCredential>>,
    referents: Referents,
    identity: Identity,
}

/// Where what is presented comes from.
struct Source {
    presented: Arc<dyn CredentialSource>,
    minting: Option<Arc<ObjectCredential>>,
    login: Option<Login>,
}

impl<'a, K: Reconciled> Door<'a, K> {
    /// For one pass.
    pub fn new(ctx: &'a Context<K>, key: &'a ObjectKey, object: &'a K, access: &'a ValidatedAccess) -> Self {
        Self {
            ctx,
            key,
            object,
            access,
            credential: None,
        }
    }

    /// What is presented, as the status tells it; also where it could not be had.
    pub fn credential(&self) -> Option<CredentialStatus> {
        self.credential.clone()
    }

    /// Who would enter now. Nothing is minted and no token requested; what the object refers to is read only if it is not
    /// known, or known to have changed.
    pub async fn identity(&mut self) -> Result<Identity, StepError> {
        Ok(self.look(Look::Known).await?.identity)
    }

    /// Reads what the object refers to, and has a credential. `drift` is told when a request is to be tried again.
    pub async fn open(&mut self, drift: &Arc<Drift>, reason: &'static str) -> Result<Opened, StepError> {
        let ready = self.look(Look::Newest).await?;
        if let Some(source) = &ready.minting {
            self.mint(source).await?;
        }
        Ok(Opened {
            session: self.session(ready.referents, ready.source, drift, reason),
            identity: ready.identity,
        })
    }

    async fn look(&mut self, look: Look) -> Result<Ready, StepError> {
        let mut reader = Reader::new(self.ctx, self.key, look);
        let uid = self.object.uid().unwrap_or_default();
        let Source {
            presented,
            minting,
            login,
        } = self.source(&mut reader, &uid, look).await?;
        let referents = dereference::referents(&mut reader, self.key, &uid, self.access).await?;
        let minted = self.credential.as_ref().map(|credential| CredentialBinding {
            kind: credential.kind.to_string(),
            subject: Some(credential.subject.clone()),
            audiences: credential.audiences.clone(),
        });
        let mut versions = referents.versions.clone();
        versions.extend(login.as_ref().map(|login| login.referent.clone()));
        let identity = Identity {
            credential: minted.or_else(|| login.map(|login| login.binding)),
            referents: versions,
        };
        Ok(Ready {
            source: presented,
            minting,
            referents,
            identity,
        })
    }

    async fn source(&mut self, reader: &mut Reader<'_, K>, uid: &str, look: Look) -> Result<Source, StepError> {
        let (minting, username) = match login::find(self.ctx, reader, self.key, uid, self.access).await? {
            Found::Login(login) => {
                return Ok(Source {
                    presented: Arc::new(PullSecretSource::new(login.credential.clone())),
                    minting: None,
                    login: Some(login),
                });
            }
            Found::Spec => {
                let source = self.credential_source(&self.access.credential)?;
                // A watched account is looked at for nothing, another one when a token is asked for.
                let asks = look == Look::Newest && source.asks_for_token();
                if asks || self.ctx.known_referents.is_watched() {
                    login::check_account(reader, &self.access.credential).await?;
                }
                (source, None)
            }
            Found::Annotated(Annotated { wanted, username }) => (self.credential_source(&wanted)?, username),
        };
        self.credential = minting.status();
        let presented: Arc<dyn CredentialSource> = match username {
            None => minting.clone(),
            username => Arc::new(NamedUser::new(minting.clone(), username)),
        };
        Ok(Source {
            presented,
            minting: Some(minting),
            login: None,
        })
    }

    /// The credential of the object's own, minted before the first request so that a failure is told as one of minting.
    async fn mint(&mut self, source: &ObjectCredential) -> Result<(), StepError> {
        let minted = source.current().await;
        self.credential = source.status();
        minted.map(drop).map_err(|error| {
            StepError::fetch(
                reason::AUTHENTICATION_FAILED,
                format!("failed to get credential: {error}"),
            )
        })
    }

    fn credential_source(&self, wanted: &Wanted) -> Result<Arc<ObjectCredential>, StepError> {
        let object = identity(self.object);
        let source = self.ctx.credentials.source(&object, wanted, &self.access.origin);
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

    fn session(
        &self,
        referents: Referents,
        source: Arc<dyn CredentialSource>,
        drift: &Arc<Drift>,
        reason: &'static str,
    ) -> Session {
        let drift = drift.clone();
        let spec = SessionSpec {
            url: self.access.url.clone(),
            insecure: !self.access.origin.is_https(),
            ca: referents.ca,
            client_certificate: referents.client_certificate,
            proxy: referents.proxy,
            object_uid: self.object.uid().unwrap_or_default().into(),
            namespace: self.key.namespace.clone(),
            timeout: self.access.timeout,
            on_wait: Some(Arc::new(move |cause, _| {
                drift.waiting(registry_failure(cause, reason, "waiting to try again"));
            })),
        };
        self.ctx.registry.session(spec, source)
    }
}

/// A registry failure as a condition. `otherwise` is the reason for what is not about who we are, `context` says what was
/// being done.
pub fn registry_failure(error: &RegistryError, otherwise: &'static str, context: &str) -> StepError {
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
