//! The login of an object without a credential: from the Secret of `secretRef`, or from the imagePullSecrets of its
//! ServiceAccount. Reads both live, once per pass; needs get on Secrets and ServiceAccounts. A `secretRef` without a login
//! for the registry fails, it is never an anonymous pull.

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, ResourceExt};
use mintmark_api::{condition::reason, oci_repository::OciRepository};

use super::{ValidatedOciRepository, dereference, validate::LoginFrom};
use crate::{
    artifact::CredentialBinding,
    credential::{LoginCredential, PullSecret, Target},
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

/// The login of `object`, none for an anonymous pull.
pub async fn login(
    ctx: &Context<OciRepository>,
    key: &ObjectKey,
    object: &OciRepository,
    spec: &ValidatedOciRepository,
) -> Result<Option<Login>, StepError> {
    let host = spec.origin.host();
    let target = Target {
        host: &host,
        port: spec.origin.port(),
        default_port: spec.origin.default_port(),
        repository: spec.url.repository(),
    };
    let uid = object.uid().unwrap_or_default();
    let (kind, secrets) = match &spec.login {
        LoginFrom::Nobody => return Ok(None),
        LoginFrom::SecretRef(name) => ("secretRef", vec![pull_secret(ctx, key, name, "spec.secretRef").await?]),
        LoginFrom::Account(name) => ("imagePullSecrets", account_secrets(ctx, key, name).await?),
    };
    let Some((secret, credential)) = PullSecret::choose(&secrets, &target, &uid) else {
        return match &spec.login {
            LoginFrom::SecretRef(name) => Err(failed(format!(
                "Secret '{name}' of spec.secretRef has no login for '{}/{}'",
                spec.origin.host_port(),
                spec.url.repository()
            ))),
            _ => Ok(None),
        };
    };
    Ok(Some(Login {
        credential,
        binding: CredentialBinding {
            kind: kind.to_owned(),
            subject: Some(secret.name.clone()),
            audiences: Vec::new(),
        },
        referent: (format!("Secret/{}", secret.name), secret.version.clone()),
    }))
}

async fn account_secrets(
    ctx: &Context<OciRepository>,
    key: &ObjectKey,
    name: &str,
) -> Result<Vec<PullSecret>, StepError> {
    let account = account(ctx, key, name).await?;
    let references = account.image_pull_secrets.unwrap_or_default();
    if references.len() > MAX_PULL_SECRETS {
        return Err(failed(format!(
            "service account '{name}' has more than {MAX_PULL_SECRETS} imagePullSecrets"
        )));
    }
    let field = format!("imagePullSecrets of service account '{name}'");
    let mut secrets = Vec::with_capacity(references.len());
    for reference in references {
        if ctx.settings.is_issuer_secret(&key.namespace, &reference.name) {
            let message = format!("{field} names a Secret of the issuer");
            return Err(StepError::terminal(reason::CREDENTIAL_INVALID, message));
        }
        secrets.push(pull_secret(ctx, key, &reference.name, &field).await?);
    }
    Ok(secrets)
}

async fn account(ctx: &Context<OciRepository>, key: &ObjectKey, name: &str) -> Result<ServiceAccount, StepError> {
    let api: Api<ServiceAccount> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let why = match api.get_opt(name).await {
        Ok(Some(account)) => return Ok(account),
        Ok(None) => "not found".to_owned(),
        Err(kube::Error::Api(status)) => status.message.clone(),
        Err(_) => "the API server cannot be reached".to_owned(),
    };
    Err(StepError::fetch(
        reason::AUTHENTICATION_FAILED,
        format!("failed to get service account '{}/{name}': {why}", key.namespace),
    ))
}

async fn pull_secret(
    ctx: &Context<OciRepository>,
    key: &ObjectKey,
    name: &str,
    field: &str,
) -> Result<PullSecret, StepError> {
    let secret = dereference::secret(&ctx.client, key, name).await.map_err(failed)?;
    PullSecret::read(&secret).map_err(|error| failed(format!("Secret '{name}' of {field} {error}")))
}

fn failed(what: impl std::fmt::Display) -> StepError {
    StepError::fetch(
        reason::AUTHENTICATION_FAILED,
        format!("failed to get credential: {what}"),
    )
}
