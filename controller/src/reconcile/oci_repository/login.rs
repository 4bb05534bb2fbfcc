//! What an object without a credential presents: the login in the Secret of `secretRef`, or what its ServiceAccount says: a
//! token by annotations, or a login in one of its imagePullSecrets. Reads all live, once per pass; needs get on Secrets and
//! service accounts. A `secretRef` without a login for the registry fails, it is never an anonymous pull.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::ResourceExt;
use mintmark_api::{condition::reason, oci_repository::OciRepository};

use super::{ValidatedOciRepository, known, validate::LoginFrom};
use crate::{
    artifact::CredentialBinding,
    credential::{Annotated, LoginCredential, PullSecret, Target},
    reconcile::{Context, StepError},
    watch::ObjectKey,
};

/// Most imagePullSecrets of one account that are read.
const MAX_PULL_SECRETS: usize = 32;

/// A login, and what the record beside the artifact says about it.
#[derive(Debug, Clone)]
pub struct Login {
    /// What is presented.
    pub credential: LoginCredential,
    /// Where it comes from.
    pub binding: CredentialBinding,
    /// Name and version of the Secret.
    pub referent: (String, String),
}

/// What is of use in a ServiceAccount.
#[derive(Debug, Clone, Default)]
pub struct Account {
    annotations: BTreeMap<String, String>,
    pull_secrets: Vec<String>,
}

impl Account {
    fn read(account: &ServiceAccount) -> Self {
        let pull_secrets = account.image_pull_secrets.iter().flatten();
        Self {
            annotations: account.annotations().clone(),
            pull_secrets: pull_secrets.map(|reference| reference.name.clone()).collect(),
        }
    }
}

/// What is presented.
#[derive(Debug, Clone)]
pub enum Found {
    /// What the spec says: its credential, or nothing.
    Spec,
    /// A login.
    Login(Login),
    /// A token that the account's annotations ask for.
    Annotated(Annotated),
}

/// What `object` presents.
pub async fn find(
    ctx: &Context<OciRepository>,
    key: &ObjectKey,
    object: &OciRepository,
    spec: &ValidatedOciRepository,
) -> Result<Found, StepError> {
    let uid = object.uid().unwrap_or_default();
    match &spec.login {
        LoginFrom::Nobody => Ok(Found::Spec),
        LoginFrom::SecretRef(name) => {
            let secrets = [pull_secret(ctx, key, name, "spec.secretRef").await?];
            let login = choose("secretRef", &secrets, spec, &uid).ok_or_else(|| {
                let (registry, repository) = (spec.origin.host_port(), spec.url.repository());
                failed(format!(
                    "Secret '{name}' of spec.secretRef has no login for '{registry}/{repository}'"
                ))
            })?;
            Ok(Found::Login(login))
        }
        LoginFrom::Account(name) => {
            let account = account(ctx, key, name).await?;
            if let Some(annotated) = annotated(&account, name, spec)? {
                return Ok(Found::Annotated(annotated));
            }
            let secrets = account_secrets(ctx, key, name, &account).await?;
            Ok(choose("imagePullSecrets", &secrets, spec, &uid).map_or(Found::Spec, Found::Login))
        }
    }
}

fn choose(kind: &str, secrets: &[PullSecret], spec: &ValidatedOciRepository, uid: &str) -> Option<Login> {
    let host = spec.origin.host();
    let target = Target {
        host: &host,
        port: spec.origin.port(),
        default_port: spec.origin.default_port(),
        repository: spec.url.repository(),
    };
    let (secret, credential) = PullSecret::choose(secrets, &target, uid)?;
    Some(Login {
        credential,
        binding: CredentialBinding {
            kind: kind.to_owned(),
            subject: Some(secret.name.clone()),
            audiences: Vec::new(),
        },
        referent: (format!("Secret/{}", secret.name), secret.version.clone()),
    })
}

fn annotated(account: &Account, name: &str, spec: &ValidatedOciRepository) -> Result<Option<Annotated>, StepError> {
    let invalid = |why: &dyn std::fmt::Display| {
        StepError::fetch(
            reason::AUTHENTICATION_FAILED,
            format!("failed to validate configuration: service account '{name}': {why}"),
        )
    };
    let annotated = Annotated::read(&account.annotations, name, &spec.origin.host_port());
    let annotated = annotated.map_err(|error| invalid(&error))?;
    if annotated.is_some() && !account.pull_secrets.is_empty() {
        return Err(invalid(
            &"credential annotations and imagePullSecrets exclude each other",
        ));
    }
    Ok(annotated)
}

async fn account_secrets(
    ctx: &Context<OciRepository>,
    key: &ObjectKey,
    name: &str,
    account: &Account,
) -> Result<Vec<PullSecret>, StepError> {
    let names = &account.pull_secrets;
    if names.len() > MAX_PULL_SECRETS {
        return Err(failed(format!(
            "service account '{name}' has more than {MAX_PULL_SECRETS} imagePullSecrets"
        )));
    }
    let field = format!("imagePullSecrets of service account '{name}'");
    let mut secrets = Vec::with_capacity(names.len());
    for secret in names {
        if ctx.settings.is_issuer_secret(&key.namespace, secret) {
            let message = format!("{field} names a Secret of the issuer");
            return Err(StepError::terminal(reason::CREDENTIAL_INVALID, message));
        }
        secrets.push(pull_secret(ctx, key, secret, &field).await?);
    }
    Ok(secrets)
}

async fn account(ctx: &Context<OciRepository>, key: &ObjectKey, name: &str) -> Result<Account, StepError> {
    let unread = |why: known::Unread| {
        let why = match why {
            known::Unread::NotFound => "not found".to_owned(),
            known::Unread::Refused(why) => why,
            known::Unread::Unreachable => "the API server cannot be reached".to_owned(),
        };
        let message = format!("failed to get service account '{}/{name}': {why}", key.namespace);
        StepError::fetch(reason::AUTHENTICATION_FAILED, message)
    };
    known::read(ctx, key, name, unread, |account| Ok(Account::read(account))).await
}

async fn pull_secret(
    ctx: &Context<OciRepository>,
    key: &ObjectKey,
    name: &str,
    field: &str,
) -> Result<PullSecret, StepError> {
    let unread = |why: known::Unread| failed(why.secret(key, name));
    known::read(ctx, key, name, unread, |secret| {
        PullSecret::read(secret).map_err(|error| failed(format!("Secret '{name}' of {field} {error}")))
    })
    .await
}

fn failed(what: impl std::fmt::Display) -> StepError {
    StepError::fetch(
        reason::AUTHENTICATION_FAILED,
        format!("failed to get credential: {what}"),
    )
}
