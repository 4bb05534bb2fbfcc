//! What an object without a credential presents: the login in the Secret of `secretRef`, or what its ServiceAccount says: a
//! token by annotations, or a login in one of its imagePullSecrets. A `secretRef` without a login for the registry fails, it is never an anonymous pull.

use std::sync::Arc;

use mintmark_api::condition::reason;

use super::{LoginFrom, ValidatedAccess};
use crate::{
    artifact::CredentialBinding,
    credential::{Annotated, LoginCredential, PullSecret, Target, Wanted},
    reconcile::{
        Context, Reconciled, StepError,
        referents::{Account, Reader, Unread},
    },
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

/// What the object of `key` with this UID presents.
pub async fn find<K: Reconciled>(
    ctx: &Context<K>,
    reader: &mut Reader<'_, K>,
    key: &ObjectKey,
    uid: &str,
    spec: &ValidatedAccess,
) -> Result<Found, StepError> {
    match &spec.login {
        LoginFrom::Nobody => Ok(Found::Spec),
        LoginFrom::SecretRef(name) => {
            let secrets = [pull_secret(reader, key, name, "spec.secretRef").await?];
            let login = choose("secretRef", &secrets, spec, uid).ok_or_else(|| {
                let (registry, repository) = (spec.origin.host_port(), spec.url.repository());
                failed(format!(
                    "Secret '{name}' of spec.secretRef has no login for '{registry}/{repository}'"
                ))
            })?;
            Ok(Found::Login(login))
        }
        LoginFrom::Account(name) => {
            let account = account(reader, key, name).await?;
            if let Some(annotated) = annotated(&account, name, spec)? {
                return Ok(Found::Annotated(annotated));
            }
            let secrets = account_secrets(ctx, reader, key, name, &account).await?;
            Ok(choose("imagePullSecrets", &secrets, spec, uid).map_or(Found::Spec, Found::Login))
        }
    }
}

fn choose(kind: &str, secrets: &[Arc<PullSecret>], spec: &ValidatedAccess, uid: &str) -> Option<Login> {
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

fn annotated(account: &Account, name: &str, spec: &ValidatedAccess) -> Result<Option<Annotated>, StepError> {
    account.annotated(name, &spec.origin.host_port()).map_err(|why| {
        let message = format!("failed to validate configuration: service account '{name}': {why}");
        StepError::fetch(reason::AUTHENTICATION_FAILED, message)
    })
}

/// Fails if the account whose token `wanted` is asks for something else by its annotations. That it cannot be read is told
/// by whoever requests the token.
pub async fn check_account<K: Reconciled>(reader: &mut Reader<'_, K>, wanted: &Wanted) -> Result<(), StepError> {
    let Wanted::ServiceAccountToken {
        account: Some(name), ..
    } = wanted
    else {
        return Ok(());
    };
    let Ok(account) = reader.read::<Account>(name).await else {
        return Ok(());
    };
    match Annotated::contradiction(&account.annotations, name, wanted) {
        None => Ok(()),
        Some(annotation) => Err(StepError::terminal(
            reason::CREDENTIAL_INVALID,
            format!("annotation {annotation} of service account '{name}' contradicts spec.credential"),
        )),
    }
}

async fn account_secrets<K: Reconciled>(
    ctx: &Context<K>,
    reader: &mut Reader<'_, K>,
    key: &ObjectKey,
    name: &str,
    account: &Account,
) -> Result<Vec<Arc<PullSecret>>, StepError> {
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
        secrets.push(pull_secret(reader, key, secret, &field).await?);
    }
    Ok(secrets)
}

async fn account<K: Reconciled>(
    reader: &mut Reader<'_, K>,
    key: &ObjectKey,
    name: &str,
) -> Result<Arc<Account>, StepError> {
    reader.read(name).await.map_err(|unread| {
        let why = match unread {
            Unread::NotFound => "not found".to_owned(),
            Unread::Invalid(why) | Unread::Refused(why) => why,
            Unread::Unreachable => "the API server cannot be reached".to_owned(),
        };
        let message = format!("failed to get service account '{}/{name}': {why}", key.namespace);
        StepError::fetch(reason::AUTHENTICATION_FAILED, message)
    })
}

async fn pull_secret<K: Reconciled>(
    reader: &mut Reader<'_, K>,
    key: &ObjectKey,
    name: &str,
    field: &str,
) -> Result<Arc<PullSecret>, StepError> {
    reader.read(name).await.map_err(|unread| match unread {
        Unread::Invalid(why) => failed(format!("Secret '{name}' of {field} {why}")),
        unread => failed(unread.secret(key, name)),
    })
}

fn failed(what: impl std::fmt::Display) -> StepError {
    StepError::fetch(
        reason::AUTHENTICATION_FAILED,
        format!("failed to get credential: {what}"),
    )
}
