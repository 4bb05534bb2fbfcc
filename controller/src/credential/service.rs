//! Turns what an object wants into a source of credentials, or says why it cannot be had. Holds one slot per object with
//! the credential in use, and all settings that decide identity. Minting is counted, timed and written to the audit log;
//! nothing here falls back to another identity.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use mintmark_issuer::{IssuerUrl, SpiffeId, TrustDomain};
use tokio::sync::SetOnce;

use super::{
    Audience, AudiencePolicy, AudienceRefusal, ObjectCredential, ObjectIdentity, ServiceAccountTokens, SigningReceiver,
    TokenKey, Wanted, object::Slot,
};
use crate::{issuing::is_read, registry::Origin, runtime::metrics::Metrics};

/// Flag values that decide identities.
#[derive(Debug, Clone)]
pub struct CredentialSettings {
    /// `--spiffe-trust-domain`.
    pub trust_domain: Option<TrustDomain>,
    /// `--spiffe-issuer`.
    pub issuer: Option<IssuerUrl>,
    /// `--spiffe-secret-name`.
    pub secret_name: Option<String>,
    /// `--spiffe-jwt-secret-name`.
    pub jwt_secret_name: Option<String>,
    /// `--spiffe-jwt-ttl`.
    pub jwt_ttl: Duration,
    /// `--spiffe-x509-ttl`.
    pub x509_ttl: Duration,
    /// `--allow-controller-identity`: namespace and name of the controller's own account.
    pub controller_account: Option<(Arc<str>, Arc<str>)>,
}

/// Why a credential cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// A flag is not given.
    #[error("{0}")]
    NotConfigured(String),
    /// The key or certificate in the signing Secret cannot do it: everything goes on when another one is there.
    #[error("{0}")]
    WrongKey(String),
    /// What the object asks for is refused.
    #[error("{0}")]
    Invalid(String),
    /// The signing Secret is absent or unusable, or its CA has ended: everything goes on the moment it is good.
    #[error("{0}")]
    WaitingForIssuer(String),
    /// May work the next time.
    #[error("{0}")]
    Transient(String),
}

/// The credentials of all objects.
pub struct Credentials {
    pub(super) settings: CredentialSettings,
    pub(super) signing: SigningReceiver,
    pub(super) tokens: ServiceAccountTokens,
    pub(super) metrics: Metrics,
    /// Empty until the API server's own audiences are known.
    policy: SetOnce<AudiencePolicy>,
    slots: Mutex<HashMap<Arc<str>, Arc<Slot>>>,
}

impl Credentials {
    /// Credentials by these settings, signed by whatever `signing` says.
    pub fn new(
        settings: CredentialSettings,
        signing: SigningReceiver,
        tokens: ServiceAccountTokens,
        metrics: Metrics,
    ) -> Self {
        Self {
            settings,
            signing,
            tokens,
            metrics,
            policy: SetOnce::new(),
            slots: Mutex::default(),
        }
    }

    /// Sets what ServiceAccount tokens may be requested for; until then none is.
    pub fn set_audience_policy(&self, policy: AudiencePolicy) {
        // Set once at start by the task that learns the API server's audiences.
        let _ = self.policy.set(policy);
    }

    /// Waits until the signing Secret was looked at, if there is to be one, and the audience policy is known: what was
    /// asked for before would be refused for want of a moment's patience.
    pub async fn started(&self) {
        self.policy.wait().await;
        if self.settings.secret_name.is_some() {
            // An error means that nobody reads it any more; then there is nothing to wait for.
            let _ = self.signing.clone().wait_for(|set| is_read(set)).await;
        }
    }

    /// The source of what `wanted` asks for, to be presented to `origin`.
    pub fn source(
        self: &Arc<Self>,
        object: &ObjectIdentity,
        wanted: &Wanted,
        origin: &Origin,
    ) -> Result<ObjectCredential, Unavailable> {
        let subject = match wanted {
            Wanted::Anonymous => return Ok(ObjectCredential::anonymous(self.clone(), object.clone())),
            Wanted::ServiceAccountToken {
                account,
                audiences,
                life,
            } => {
                let key = TokenKey {
                    life: *life,
                    ..self.token_key(object, account.as_ref(), audiences, origin)?
                };
                return Ok(ObjectCredential::service_account(
                    self.clone(),
                    object.clone(),
                    self.slot(object),
                    key,
                ));
            }
            Wanted::SpiffeJwt { .. } | Wanted::SpiffeCertificate => self.subject(object, wanted)?,
        };
        Ok(ObjectCredential::minted(
            self.clone(),
            object.clone(),
            self.slot(object),
            wanted,
            subject,
        ))
    }

    /// Forgets an object: its credential is dropped.
    pub fn forget(&self, uid: &str) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Drops every credential that rests on one of these keys; answers the UIDs of the objects that held one.
    pub fn drop_revoked(&self, revoked: &BTreeSet<String>) -> HashSet<Arc<str>> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots
            .iter()
            .filter(|(_, slot)| slot.drop_revoked(revoked))
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    /// Drops shared tokens that nobody renews any more.
    pub fn sweep(&self) {
        self.tokens.sweep();
    }

    /// How many objects hold a slot.
    pub fn len(&self) -> usize {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no object holds a slot.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn slot(&self, object: &ObjectIdentity) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(object.uid.clone()).or_default().clone()
    }

    /// The object's SPIFFE ID, once everything that is needed to mint is there.
    fn subject(&self, object: &ObjectIdentity, wanted: &Wanted) -> Result<SpiffeId, Unavailable> {
        let missing = |flag: &str| {
            let kind = wanted
                .kind()
                .map_or("", mintmark_api::credential::CredentialKind::as_str);
            Unavailable::NotConfigured(format!(
                "credential {kind} needs {flag}, which this controller runs without"
            ))
        };
        let domain = self
            .settings
            .trust_domain
            .as_ref()
            .ok_or_else(|| missing("--spiffe-trust-domain"))?;
        let secret = self
            .settings
            .secret_name
            .as_ref()
            .ok_or_else(|| missing("--spiffe-secret-name"))?;
        let is_jwt = matches!(wanted, Wanted::SpiffeJwt { .. });
        let secret = self
            .settings
            .jwt_secret_name
            .as_ref()
            .filter(|_| is_jwt)
            .unwrap_or(secret);
        if is_jwt && self.settings.issuer.is_none() {
            return Err(missing("--spiffe-issuer"));
        }
        let refusal = self.refusal(is_jwt, Timestamp::now());
        if let Some((why, is_permanent)) = refusal {
            return Err(if is_permanent {
                Unavailable::WrongKey(why)
            } else {
                Unavailable::WaitingForIssuer(format!("signing Secret '{secret}': {why}"))
            });
        }
        SpiffeId::for_object(domain, object.plural, &object.namespace, &object.name)
            .map_err(|error| Unavailable::Invalid(error.to_string()))
    }

    /// Why nothing can be minted now, if so, and whether only another kind of key or certificate helps.
    fn refusal(&self, is_jwt: bool, now: Timestamp) -> Option<(String, bool)> {
        let set = self.signing.borrow().clone();
        let time = if is_jwt {
            set.jwt
                .as_ref()
                .map(|jwt| jwt.check_time(now).map_err(|error| error.to_string()))
        } else {
            set.x509
                .as_ref()
                .map(|x509| x509.check_time(now).map_err(|error| error.to_string()))
        };
        match time {
            Ok(time) => time.err().map(|why| (why, false)),
            Err(why) => Some((why.to_string(), why.is_permanent())),
        }
    }

    /// Whose token is requested, and whether it may be.
    fn token_key(
        &self,
        object: &ObjectIdentity,
        account: Option<&Arc<str>>,
        audiences: &Arc<[Audience]>,
        origin: &Origin,
    ) -> Result<TokenKey, Unavailable> {
        let policy = self.policy.get().ok_or_else(|| {
            Unavailable::Transient("the audiences that the API server itself accepts are not known yet".to_owned())
        })?;
        policy
            .check(audiences, origin)
            .map_err(|refusal: AudienceRefusal| Unavailable::Invalid(refusal.to_string()))?;
        let (namespace, account) = match account {
            Some(account) => (object.namespace.clone(), account.clone()),
            None => self.controller_account(audiences, origin)?,
        };
        Ok(TokenKey {
            namespace,
            account,
            audiences: audiences.clone(),
            life: None,
        })
    }

    /// The controller's own account, for audiences that name the registry and nothing else.
    fn controller_account(&self, audiences: &[Audience], origin: &Origin) -> Result<(Arc<str>, Arc<str>), Unavailable> {
        let account = self.settings.controller_account.clone().ok_or_else(|| {
            Unavailable::NotConfigured(
                "no ServiceAccount: spec.serviceAccountName is empty, and neither --default-service-account nor \
                 --allow-controller-identity is set"
                    .to_owned(),
            )
        })?;
        match audiences.iter().find(|audience| !origin.is_named_by(audience)) {
            Some(audience) => Err(Unavailable::Invalid(format!(
                "audience '{audience}' does not name the registry '{}': only then is the controller's own account used",
                origin.host_port()
            ))),
            None => Ok(account),
        }
    }
}
