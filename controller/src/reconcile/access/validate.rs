//! From the part of a spec that says how a registry is reached to a value that cannot hold a bad one. Pure: what it refers
//! to is read afterwards.

use std::{sync::Arc, time::Duration};

use mintmark_api::{
    condition::reason,
    credential::CredentialKind,
    credential_contradictions,
    registry_access::{Provider, RegistryAccess},
};

use crate::{
    credential::{Audience, Wanted},
    reconcile::{Settings, StepError},
    registry::{Origin, RepositoryUrl},
};

/// Which repository is reached, as whom and how.
#[derive(Debug, Clone)]
pub struct ValidatedAccess {
    /// The repository.
    pub url: RepositoryUrl,
    /// The registry.
    pub origin: Origin,
    /// What to present.
    pub credential: Wanted,
    /// Where a login comes from when there is no credential.
    pub login: LoginFrom,
    /// Secret with the registry's CA and a client certificate, or either.
    pub cert_secret: Option<String>,
    /// Secret with the proxy.
    pub proxy_secret: Option<String>,
    /// Bound of all registry I/O of a pass.
    pub timeout: Duration,
}

/// Who says which login is presented, in an object without a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginFrom {
    /// Nobody: the pull is anonymous, or the credential is another one.
    Nobody,
    /// The Secret of `secretRef`, which has to have one.
    SecretRef(String),
    /// The imagePullSecrets of this account, if one of them has one.
    Account(String),
}

impl ValidatedAccess {
    /// Checks what [`check_provider`] and [`check_contradictions`] have not. Every error is terminal: nothing but an edit
    /// of the object or of the flags mends it.
    pub fn new(
        spec: &RegistryAccess,
        url: RepositoryUrl,
        namespace: &str,
        timeout: Duration,
        settings: &Settings,
    ) -> Result<Self, StepError> {
        let credential = wanted(spec, settings)?;
        check_issuer_secret(spec, namespace, settings)?;
        Ok(Self {
            origin: url.origin(spec.insecure),
            url,
            credential,
            login: login_from(spec, settings),
            cert_secret: spec.cert_secret_ref.as_ref().map(|reference| reference.name.clone()),
            proxy_secret: spec.proxy_secret_ref.as_ref().map(|reference| reference.name.clone()),
            timeout: timeout.min(settings.max_timeout),
        })
    }
}

/// Cloud providers are refused by name, never ignored.
pub fn check_provider(spec: &RegistryAccess) -> Result<(), StepError> {
    if spec.provider() == Provider::Generic {
        return Ok(());
    }
    let message = "spec.provider: only generic is supported";
    Err(StepError {
        condition: None,
        ..StepError::terminal(reason::PROVIDER_NOT_SUPPORTED, message)
    })
}

/// The rules about `credential` that the definition has too.
pub fn check_contradictions(spec: &RegistryAccess) -> Result<(), StepError> {
    credential_contradictions(spec).map_err(|rule| StepError::terminal(reason::CREDENTIAL_INVALID, rule.to_string()))
}

fn wanted(spec: &RegistryAccess, settings: &Settings) -> Result<Wanted, StepError> {
    let audiences = || -> Result<Arc<[Audience]>, StepError> {
        let mut audiences = spec
            .audiences
            .iter()
            .flatten()
            .map(|audience| {
                Audience::new(audience.as_str()).map_err(|error| {
                    StepError::terminal(reason::CREDENTIAL_INVALID, format!("spec.audiences: {error}"))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        audiences.sort();
        Ok(audiences.into())
    };
    match spec.credential {
        None => Ok(Wanted::Anonymous),
        Some(CredentialKind::SpiffeCertificate) => Ok(Wanted::SpiffeCertificate),
        Some(CredentialKind::SpiffeJwt) => Ok(Wanted::SpiffeJwt {
            audiences: audiences()?,
            life: None,
        }),
        Some(CredentialKind::ServiceAccountToken) => {
            let account = spec
                .service_account_name()
                .or(settings.default_service_account.as_deref());
            Ok(Wanted::ServiceAccountToken {
                account: account.map(Into::into),
                audiences: audiences()?,
                life: None,
            })
        }
        // Refused by `check_contradictions` before.
        Some(CredentialKind::Unknown) => Err(StepError::terminal(
            reason::CREDENTIAL_INVALID,
            "spec.credential is unknown",
        )),
    }
}

/// `secretRef` alone decides where there is one: a login is not replaced by another. With a credential there is none.
fn login_from(spec: &RegistryAccess, settings: &Settings) -> LoginFrom {
    if spec.credential.is_some() {
        return LoginFrom::Nobody;
    }
    let account = spec
        .service_account_name()
        .or(settings.default_service_account.as_deref());
    match (&spec.secret_ref, account) {
        (Some(secret), _) => LoginFrom::SecretRef(secret.name.clone()),
        (None, Some(account)) => LoginFrom::Account(account.to_owned()),
        (None, None) => LoginFrom::Nobody,
    }
}

/// The issuer's own Secrets hold private keys: no object may point at them.
fn check_issuer_secret(spec: &RegistryAccess, namespace: &str, settings: &Settings) -> Result<(), StepError> {
    let references = [
        ("certSecretRef", &spec.cert_secret_ref),
        ("proxySecretRef", &spec.proxy_secret_ref),
        ("secretRef", &spec.secret_ref),
    ];
    for (field, reference) in references {
        if let Some(reference) = reference
            && settings.is_issuer_secret(namespace, &reference.name)
        {
            let message = format!("spec.{field} names a Secret of the issuer");
            return Err(StepError::terminal(reason::CREDENTIAL_INVALID, message));
        }
    }
    Ok(())
}
