//! Registry logins as Kubernetes keeps them in Secrets, and which of them a pull presents.
//!
//! Pure. The formats are those of `kubernetes.io/dockerconfigjson` and `kubernetes.io/dockercfg`, the matching is the
//! kubelet's: host globs label by label, the port, the path as a prefix. Errors never quote what a Secret holds but the
//! names of its registries.

use std::{collections::BTreeMap, fmt};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use k8s_openapi::api::core::v1::Secret;
use secrecy::SecretString;
use serde::Deserialize;
use zeroize::{Zeroize as _, Zeroizing};

use super::registry_pattern::{RegistryPattern, Target};

/// Type and key of today's form.
const CONFIG_JSON: (&str, &str) = ("kubernetes.io/dockerconfigjson", ".dockerconfigjson");
/// Type and key of the form before, which has no `auths` around the entries.
const CONFIG_OLD: (&str, &str) = ("kubernetes.io/dockercfg", ".dockercfg");

/// Why a Secret is no usable pull secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DockerConfigError {
    /// Another type of Secret.
    #[error("has type '{0}', not kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg")]
    Type(String),
    /// The key that its type calls for is absent.
    #[error("has no {0}")]
    Key(&'static str),
    /// Not the JSON it should be.
    #[error("has a {key} that is not JSON of its kind (line {line}, column {column})")]
    Json {
        /// Which key.
        key: &'static str,
        /// Line of the error.
        line: usize,
        /// Column of the error.
        column: usize,
    },
    /// `auth` of the entry for this registry.
    #[error("has an entry '{0}' whose auth is not the base64 of user:password")]
    Auth(String),
}

/// What a registry, or its token server, is told.
#[derive(Clone)]
pub struct Login {
    /// User name; may be empty beside a token.
    pub username: String,
    /// Password; may be empty beside a token.
    pub password: SecretString,
    /// A refresh token (RFC 6749 §1.5), to be exchanged at the token server.
    pub identity_token: Option<SecretString>,
    /// A bearer token for the registry itself.
    pub registry_token: Option<SecretString>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").finish_non_exhaustive()
    }
}

/// The logins of one Secret.
#[derive(Debug, Clone, Default)]
pub struct DockerConfig {
    entries: Vec<(RegistryPattern, Login)>,
}

impl DockerConfig {
    /// Reads a Secret of either type. An entry without any login is as good as none.
    pub fn from_secret(secret: &Secret) -> Result<Self, DockerConfigError> {
        let kind = secret.type_.as_deref().unwrap_or("Opaque");
        let form = [CONFIG_JSON, CONFIG_OLD].into_iter().find(|(name, _)| *name == kind);
        let (_, key) = form.ok_or_else(|| DockerConfigError::Type(kind.chars().take(253).collect()))?;
        let data = secret.data.as_ref().and_then(|data| data.get(key));
        let json = &data.ok_or(DockerConfigError::Key(key))?.0;
        let parsed = if key == CONFIG_JSON.1 {
            serde_json::from_slice(json).map(|file: File| file.auths.unwrap_or_default())
        } else {
            serde_json::from_slice(json)
        };
        // The parser's own text would quote what it stumbled over.
        let entries: BTreeMap<String, Entry> = parsed.map_err(|error| DockerConfigError::Json {
            key,
            line: error.line(),
            column: error.column(),
        })?;
        let mut config = Self::default();
        for (registry, entry) in entries {
            let login = entry.login().map_err(|Malformed| {
                DockerConfigError::Auth(registry.chars().filter(|c| !c.is_control()).take(255).collect())
            })?;
            if let (Some(pattern), Some(login)) = (RegistryPattern::parse(&registry), login) {
                config.entries.push((pattern, login));
            }
        }
        Ok(config)
    }

    /// The most specific entry for `target`.
    pub fn find(&self, target: &Target<'_>) -> Option<(&RegistryPattern, &Login)> {
        let matching = self.entries.iter().filter(|(pattern, _)| pattern.matches(target));
        let best = matching.max_by(|(one, _), (other, _)| one.specificity().cmp(&other.specificity()))?;
        Some((&best.0, &best.1))
    }
}

#[derive(Deserialize)]
struct File {
    auths: Option<BTreeMap<String, Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(alias = "identityToken")]
    identitytoken: Option<String>,
    #[serde(alias = "registryToken")]
    registrytoken: Option<String>,
}

/// What `auth` holds is not what it should be.
struct Malformed;

impl Entry {
    /// The login, if the entry holds one. `auth` goes before `username` and `password`.
    fn login(&self) -> Result<Option<Login>, Malformed> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (username, password) = match given(&self.auth) {
            Some(auth) => decode(&auth).ok_or(Malformed)?,
            None => (
                given(&self.username).unwrap_or_default(),
                given(&self.password).unwrap_or_default().into(),
            ),
        };
        let login = Login {
            username,
            password,
            identity_token: given(&self.identitytoken).map(SecretString::from),
            registry_token: given(&self.registrytoken).map(SecretString::from),
        };
        Ok((!login.is_empty()).then_some(login))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        for text in [
            &mut self.auth,
            &mut self.password,
            &mut self.identitytoken,
            &mut self.registrytoken,
        ] {
            text.zeroize();
        }
    }
}

impl Login {
    /// Whether there is a user name or a password.
    pub fn has_password(&self) -> bool {
        use secrecy::ExposeSecret as _;
        !self.username.is_empty() || !self.password.expose_secret().is_empty()
    }

    fn is_empty(&self) -> bool {
        !self.has_password() && self.identity_token.is_none() && self.registry_token.is_none()
    }
}

/// User name and password in `auth`, with padding or without. The password ends before the NULs that old tools left.
fn decode(auth: &str) -> Option<(String, SecretString)> {
    let auth = auth.trim();
    let decoder = if auth.ends_with('=') {
        BASE64_STANDARD
    } else {
        BASE64_STANDARD_NO_PAD
    };
    let plain = Zeroizing::new(decoder.decode(auth).ok()?);
    let (username, password) = std::str::from_utf8(&plain).ok()?.split_once(':')?;
    Some((username.to_owned(), password.trim_end_matches('\0').into()))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use rstest::rstest;
    use secrecy::ExposeSecret as _;
    use serde_json::{Value, json};

    use super::*;

    fn secret(kind: &str, key: &str, value: &str) -> Secret {
        Secret {
            type_: Some(kind.to_owned()),
            data: Some([(key.to_owned(), ByteString(value.as_bytes().to_vec()))].into()),
            ..Secret::default()
        }
    }

    fn config(auths: &Value) -> Result<DockerConfig, DockerConfigError> {
        let json = json!({"auths": auths}).to_string();
        DockerConfig::from_secret(&secret(CONFIG_JSON.0, CONFIG_JSON.1, &json))
    }

    const TARGET: Target<'_> = Target {
        host: "r.example",
        port: 443,
        default_port: 443,
        repository: "team/app",
    };

    fn found(auths: &Value) -> Option<(String, String)> {
        let config = config(auths).unwrap();
        let (_, login) = config.find(&TARGET)?;
        Some((login.username.clone(), login.password.expose_secret().to_owned()))
    }

    #[rstest]
    #[case::fields(json!({"username": "u", "password": "p"}), ("u", "p"))]
    #[case::auth(json!({"auth": "dTpw"}), ("u", "p"))]
    #[case::auth_goes_first(json!({"username": "x", "password": "y", "auth": "dTpw"}), ("u", "p"))]
    #[case::padded(json!({"auth": "dXNlcjpw"}), ("user", "p"))]
    #[case::padding(json!({"auth": "dTpwcA=="}), ("u", "pp"))]
    #[case::padding_left_out(json!({"auth": "dTpwcA"}), ("u", "pp"))]
    #[case::colon_in_the_password(json!({"auth": "dTpwOnE="}), ("u", "p:q"))]
    #[case::other_fields(json!({"auth": "dTpw", "email": "e@example", "more": [1]}), ("u", "p"))]
    fn a_login_has_several_forms(#[case] entry: Value, #[case] expected: (&str, &str)) {
        let expected = (expected.0.to_owned(), expected.1.to_owned());
        assert_eq!(found(&json!({"r.example": entry})), Some(expected));
    }

    #[test]
    fn tokens_are_read() {
        let config = config(&json!({"r.example": {"identitytoken": "id", "registrytoken": "reg"}})).unwrap();
        let (_, login) = config.find(&TARGET).unwrap();
        let text = |token: &Option<SecretString>| token.as_ref().map(|token| token.expose_secret().to_owned());
        assert_eq!(text(&login.identity_token).as_deref(), Some("id"));
        assert_eq!(text(&login.registry_token).as_deref(), Some("reg"));
        assert!(!login.has_password());
    }

    #[test]
    fn an_entry_without_a_login_is_none() {
        assert_eq!(found(&json!({"r.example": {}})), None);
        assert_eq!(found(&json!({"r.example": {"username": "", "auth": ""}})), None);
        assert_eq!(found(&json!({})), None);
        assert_eq!(found(&Value::Null), None);
    }

    #[test]
    fn the_old_form_has_no_auths_around() {
        let json = json!({"r.example": {"auth": "dTpw"}}).to_string();
        let config = DockerConfig::from_secret(&secret(CONFIG_OLD.0, CONFIG_OLD.1, &json)).unwrap();
        assert!(config.find(&TARGET).is_some());
    }

    #[test]
    fn the_most_specific_entry_is_taken() {
        let login = |name: &str| json!({"username": name, "password": "p"});
        let auths = json!({
            "*.example": login("glob"),
            "r.example": login("host"),
            "r.example/team": login("path"),
            "*.example/team/app": login("longer path"),
            "r.example/team/application": login("other path"),
        });
        assert_eq!(found(&auths).unwrap().0, "longer path");
    }

    #[rstest]
    #[case(
        secret("Opaque", ".dockerconfigjson", "{}"),
        "has type 'Opaque', not kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg"
    )]
    #[case(secret(CONFIG_JSON.0, ".dockercfg", "{}"), "has no .dockerconfigjson")]
    #[case(secret(CONFIG_JSON.0, CONFIG_JSON.1, r#"{"auths":{"r":"hunter2"}}"#),
        "has a .dockerconfigjson that is not JSON of its kind (line 1, column 23)")]
    #[case(secret(CONFIG_JSON.0, CONFIG_JSON.1, r#"{"auths":{"r":{"auth":"hunter2"}}}"#),
        "has an entry 'r' whose auth is not the base64 of user:password")]
    #[case(secret(CONFIG_OLD.0, CONFIG_OLD.1, r#"{"r":{"auth":"aHVudGVyMg=="}}"#),
        "has an entry 'r' whose auth is not the base64 of user:password")]
    fn errors_say_where_and_never_what(#[case] secret: Secret, #[case] message: &str) {
        let error = DockerConfig::from_secret(&secret).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn debug_shows_no_login() {
        let config = config(&json!({"r.example": {"username": "planted-user", "password": "planted"}})).unwrap();
        assert!(!format!("{config:?}").contains("planted"));
    }
}
