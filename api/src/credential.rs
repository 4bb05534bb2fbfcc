//! The kinds of credential an object can name, and what status tells about the one that was used.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a pull presents to the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CredentialKind {
    /// A token of a ServiceAccount in the object's namespace, sent as bearer token.
    ServiceAccountToken,
    /// A JWT-SVID of the object, sent as bearer token.
    #[serde(rename = "SpiffeJWT")]
    SpiffeJwt,
    /// An X.509-SVID of the object, presented as TLS client certificate.
    SpiffeCertificate,
    /// A word that this version does not know. The API server admits none; a definition of another version may. It is
    /// refused by [`crate::credential_contradictions`] and never taken for an absent credential.
    #[serde(other)]
    Unknown,
}

impl CredentialKind {
    /// The kinds that can be asked for.
    pub const ALL: [Self; 3] = [Self::ServiceAccountToken, Self::SpiffeJwt, Self::SpiffeCertificate];

    /// The word in `spec.credential`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServiceAccountToken => "ServiceAccountToken",
            Self::SpiffeJwt => "SpiffeJWT",
            Self::SpiffeCertificate => "SpiffeCertificate",
            Self::Unknown => "Unknown",
        }
    }

    /// True when the identity is the object itself and not an account.
    pub const fn is_spiffe(self) -> bool {
        matches!(self, Self::SpiffeJwt | Self::SpiffeCertificate)
    }
}

impl fmt::Display for CredentialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The credential of the last pass that wrote status. It is information: nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// Kind of the credential.
    #[serde(rename = "type")]
    #[schemars(schema_with = "crate::schema::credential_kind")]
    pub kind: CredentialKind,
    /// Who the registry sees: a SPIFFE ID, or `system:serviceaccount:<namespace>:<name>`.
    pub subject: String,
    /// Audiences of the token; empty for a certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// Key that signed the token, or authority that issued the certificate.
    #[serde(default, rename = "keyID", skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_schema() {
        for kind in CredentialKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
            assert_eq!(
                serde_json::from_value::<CredentialKind>(kind.as_str().into()).unwrap(),
                kind
            );
        }
    }

    #[test]
    fn a_word_of_another_version_decodes() {
        assert_eq!(
            serde_json::from_value::<CredentialKind>("OidcFederation".into()).unwrap(),
            CredentialKind::Unknown
        );
    }

    #[test]
    fn status_names_are_exact() {
        let status = CredentialStatus {
            kind: CredentialKind::SpiffeJwt,
            subject: "spiffe://example.org/ocirepositories/apps/podinfo".to_owned(),
            audiences: vec!["registry.example.org".to_owned()],
            key_id: Some("k1".to_owned()),
        };
        let json = serde_json::json!({
            "type": "SpiffeJWT",
            "subject": "spiffe://example.org/ocirepositories/apps/podinfo",
            "audiences": ["registry.example.org"],
            "keyID": "k1",
        });
        assert_eq!(serde_json::to_value(&status).unwrap(), json);
        assert_eq!(serde_json::from_value::<CredentialStatus>(json).unwrap(), status);
    }
}
