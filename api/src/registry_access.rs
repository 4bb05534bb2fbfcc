//! The part of a spec that says how a registry is reached: as whom, with which Secrets, over what. It is the same in every
//! kind that asks a registry, and stands flat in its spec.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::credential::CredentialKind;

/// As whom and how a registry is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegistryAccess {
    /// Where ambient credentials come from: `generic` means none, the others name a cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::provider")]
    pub provider: Option<Provider>,
    /// Kind of the credential that is minted for this object and presented to the registry. Absent means a pull secret,
    /// or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::credential_kind")]
    pub credential: Option<CredentialKind>,
    /// Whom the minted token is for, as the registry knows itself. Required with a credential that is a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::audiences")]
    pub audiences: Option<Vec<String>>,
    /// Secret of type `kubernetes.io/dockerconfigjson` with the registry's login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalObjectReference>,
    /// ServiceAccount in the object's namespace: its token is presented with `credential: ServiceAccountToken`, its
    /// image pull secrets are used without a credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// Secret with the registry's CA certificate (`ca.crt`), and optionally a client certificate and key (`tls.crt`,
    /// `tls.key`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_secret_ref: Option<LocalObjectReference>,
    /// Secret with the proxy's `address` and optionally `username` and `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_secret_ref: Option<LocalObjectReference>,
    /// Use plain HTTP.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

/// Name of an object in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct LocalObjectReference {
    /// Name of the object.
    pub name: String,
}

/// Where ambient credentials come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// From nowhere: only what the object names.
    #[default]
    Generic,
    /// Amazon Web Services.
    Aws,
    /// Microsoft Azure.
    Azure,
    /// Google Cloud.
    Gcp,
    /// A word of another version.
    #[serde(other)]
    Unknown,
}

impl RegistryAccess {
    /// The provider, `generic` when the object names none.
    pub fn provider(&self) -> Provider {
        self.provider.unwrap_or_default()
    }

    /// The account's name; an empty one counts as absent.
    pub fn service_account_name(&self) -> Option<&str> {
        self.service_account_name.as_deref().filter(|name| !name.is_empty())
    }
}
