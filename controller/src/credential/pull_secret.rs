//! The login of a pull secret as the credential of one object. It is read once per pass; nothing is minted and nothing can
//! be renewed, so a refused login fails the pass.

use std::sync::Arc;

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;

use super::{
    CredentialError, CredentialGeneration, CredentialSource, DockerConfig, DockerConfigError, LoginCredential,
    Presented, registry_pattern::Target,
};

/// A Secret with logins.
#[derive(Debug, Clone)]
pub struct PullSecret {
    /// Its name.
    pub name: String,
    /// UID and resource version: another version is another generation of every login in it.
    pub version: String,
    config: DockerConfig,
}

impl PullSecret {
    /// Reads a Secret of type `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg`.
    pub fn read(secret: &Secret) -> Result<Self, DockerConfigError> {
        let uid = secret.uid().unwrap_or_default();
        let version = secret.resource_version().unwrap_or_default();
        Ok(Self {
            name: secret.name_any(),
            version: format!("{uid}/{version}"),
            config: DockerConfig::from_secret(secret)?,
        })
    }

    /// The most specific login of all `secrets` for `target`, and where it stands. Among equals the first Secret counts.
    pub fn choose<'a>(
        secrets: &'a [Arc<Self>],
        target: &Target<'_>,
        object_uid: &str,
    ) -> Option<(&'a Self, LoginCredential)> {
        let found = secrets
            .iter()
            .rev()
            .filter_map(|secret| secret.config.find(target).map(|found| (secret, found)));
        let (secret, (_, login)) =
            found.max_by(|(_, (one, _)), (_, (other, _))| one.specificity().cmp(&other.specificity()))?;
        let generation = format!("{object_uid}/PullSecret/{}/{}", secret.name, secret.version);
        let credential = LoginCredential {
            login: login.clone().into(),
            generation: CredentialGeneration(generation.into()),
        };
        Some((secret, credential))
    }
}

/// Yields one login.
#[derive(Debug, Clone)]
pub struct PullSecretSource(Presented);

impl PullSecretSource {
    /// Presents `login`.
    pub fn new(login: LoginCredential) -> Self {
        Self(Presented::Login(login))
    }
}

impl CredentialSource for PullSecretSource {
    fn current(&self) -> BoxFuture<'_, Result<Presented, CredentialError>> {
        Box::pin(async { Ok(self.0.clone()) })
    }

    fn renew<'a>(&'a self, _refused: &'a Presented) -> BoxFuture<'a, Result<Presented, CredentialError>> {
        self.current()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(name: &str, registry: &str, user: &str) -> Arc<PullSecret> {
        let config = json!({"auths": {registry: {"username": user, "password": "p"}}}).to_string();
        let mut secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": name, "uid": "u", "resourceVersion": "7"},
            "type": "kubernetes.io/dockerconfigjson",
        }))
        .unwrap();
        let data = k8s_openapi::ByteString(config.into_bytes());
        secret.data = Some([(".dockerconfigjson".to_owned(), data)].into());
        Arc::new(PullSecret::read(&secret).unwrap())
    }

    const TARGET: Target<'_> = Target {
        host: "r.example",
        port: 443,
        default_port: 443,
        repository: "team/app",
    };

    fn chosen(secrets: &[Arc<PullSecret>]) -> Option<(String, String)> {
        let (secret, credential) = PullSecret::choose(secrets, &TARGET, "object")?;
        assert_eq!(
            *credential.generation.0,
            format!("object/PullSecret/{}/u/7", secret.name)
        );
        Some((secret.name.clone(), credential.login.username.clone()))
    }

    #[test]
    fn the_most_specific_login_of_all_secrets() {
        let secrets = [
            secret("a", "*.example", "glob"),
            secret("b", "r.example/team", "path"),
            secret("c", "r.example", "host"),
        ];
        assert_eq!(chosen(&secrets), Some(("b".to_owned(), "path".to_owned())));
    }

    #[test]
    fn the_first_secret_among_equals() {
        let secrets = [
            secret("a", "r.example", "one"),
            secret("b", "https://r.example/v1/", "two"),
        ];
        assert_eq!(chosen(&secrets), Some(("a".to_owned(), "one".to_owned())));
        assert_eq!(chosen(&[secret("a", "other.example", "one")]), None);
        assert_eq!(chosen(&[]), None);
    }
}
