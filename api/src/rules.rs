//! What `credential` and `audiences` may be combined with: one table for the CEL rules in the CRD and for the check
//! that every pass repeats.
//!
//! The API server enforces the rules at admission, but an object may be older than they are, or the served definition
//! may be another project's. So the controller asks [`credential_contradictions`] again; both sides show the same text.

use std::collections::BTreeSet;

use crate::{
    credential::CredentialKind,
    registry_access::{Provider, RegistryAccess},
};

/// Most items in `audiences`.
pub const MAX_AUDIENCES: usize = 16;

/// Longest audience in characters.
pub const MAX_AUDIENCE_LEN: usize = 255;

/// One rule, broken. The text is the one the API server answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.message())]
pub enum CredentialRule {
    /// A token needs somebody it is meant for.
    AudiencesRequired,
    /// Audiences say nothing without a credential.
    AudiencesWithoutCredential,
    /// A certificate carries no audience.
    AudiencesWithCertificate,
    /// A cloud provider's credentials and ours exclude each other.
    ProviderNotGeneric,
    /// A pull secret and a credential exclude each other.
    SecretRef,
    /// The identity of a SPIFFE credential is the object.
    ServiceAccountName,
    /// A certificate needs TLS to be presented in.
    Insecure,
    /// The word in `credential` is none of the three.
    UnknownKind,
    /// More than [`MAX_AUDIENCES`].
    TooManyAudiences,
    /// Empty, or longer than [`MAX_AUDIENCE_LEN`].
    AudienceLength,
    /// An audience occurs twice.
    DuplicateAudience,
}

impl CredentialRule {
    /// The rules that the CRD expresses in CEL; the others are part of its schema (`enum`, `maxItems`, …).
    pub const CEL: [Self; 7] = [
        Self::AudiencesRequired,
        Self::AudiencesWithoutCredential,
        Self::AudiencesWithCertificate,
        Self::ProviderNotGeneric,
        Self::SecretRef,
        Self::ServiceAccountName,
        Self::Insecure,
    ];

    /// What the user is told.
    pub const fn message(self) -> &'static str {
        match self {
            Self::AudiencesRequired => {
                "audiences is required with credential ServiceAccountToken and SpiffeJWT: name the registry the token is for"
            }
            Self::AudiencesWithoutCredential => "audiences is only allowed together with credential",
            Self::AudiencesWithCertificate => {
                "audiences is not allowed with credential SpiffeCertificate: a certificate carries no audience"
            }
            Self::ProviderNotGeneric => "credential is only allowed with provider generic",
            Self::SecretRef => "credential and secretRef exclude each other",
            Self::ServiceAccountName => {
                "serviceAccountName is not allowed with credential SpiffeJWT and SpiffeCertificate: \
                 their identity is the object, not an account"
            }
            Self::Insecure => {
                "insecure is not allowed with credential SpiffeCertificate: without TLS there is nothing to present it in"
            }
            Self::UnknownKind => "credential is one of ServiceAccountToken, SpiffeJWT, SpiffeCertificate",
            Self::TooManyAudiences => "audiences has at most 16 items",
            Self::AudienceLength => "each of the audiences has 1 to 255 characters",
            Self::DuplicateAudience => "audiences are unique",
        }
    }

    /// The rule over `spec` as `self`, true when it is kept; `None` where the schema says it without CEL.
    pub const fn cel(self) -> Option<&'static str> {
        Some(match self {
            Self::AudiencesRequired => {
                "!has(self.credential) || self.credential == 'SpiffeCertificate' || \
                 (has(self.audiences) && size(self.audiences) > 0)"
            }
            Self::AudiencesWithoutCredential => "has(self.credential) || !has(self.audiences)",
            Self::AudiencesWithCertificate => {
                "!has(self.credential) || self.credential != 'SpiffeCertificate' || !has(self.audiences)"
            }
            Self::ProviderNotGeneric => "!has(self.credential) || !has(self.provider) || self.provider == 'generic'",
            Self::SecretRef => "!has(self.credential) || !has(self.secretRef)",
            Self::ServiceAccountName => {
                "!has(self.credential) || self.credential == 'ServiceAccountToken' || \
                 !has(self.serviceAccountName) || self.serviceAccountName == ''"
            }
            Self::Insecure => {
                "!has(self.credential) || self.credential != 'SpiffeCertificate' || \
                 !has(self.insecure) || !self.insecure"
            }
            Self::UnknownKind | Self::TooManyAudiences | Self::AudienceLength | Self::DuplicateAudience => return None,
        })
    }

    /// The field below `spec` that the rule is about, as a CEL `fieldPath`.
    pub const fn field_path(self) -> &'static str {
        match self {
            Self::ProviderNotGeneric => ".provider",
            Self::SecretRef => ".secretRef",
            Self::ServiceAccountName => ".serviceAccountName",
            Self::Insecure => ".insecure",
            Self::UnknownKind => ".credential",
            _ => ".audiences",
        }
    }

    /// The machine-readable `reason` of the API server's answer.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::AudiencesRequired => "FieldValueRequired",
            _ => "FieldValueForbidden",
        }
    }

    fn broken(self, spec: &RegistryAccess) -> bool {
        use CredentialKind::{ServiceAccountToken, SpiffeCertificate, Unknown};
        let credential = spec.credential;
        let audiences = spec.audiences.as_deref();
        let items = audiences.unwrap_or_default();
        match self {
            Self::AudiencesRequired => credential.is_some_and(|kind| kind != SpiffeCertificate) && items.is_empty(),
            Self::AudiencesWithoutCredential => credential.is_none() && audiences.is_some(),
            Self::AudiencesWithCertificate => credential == Some(SpiffeCertificate) && audiences.is_some(),
            Self::ProviderNotGeneric => {
                credential.is_some() && spec.provider.is_some_and(|provider| provider != Provider::Generic)
            }
            Self::SecretRef => credential.is_some() && spec.secret_ref.is_some(),
            Self::ServiceAccountName => {
                credential.is_some_and(|kind| kind != ServiceAccountToken)
                    && spec.service_account_name.as_ref().is_some_and(|name| !name.is_empty())
            }
            Self::Insecure => credential == Some(SpiffeCertificate) && spec.insecure,
            Self::UnknownKind => credential == Some(Unknown),
            Self::TooManyAudiences => items.len() > MAX_AUDIENCES,
            Self::AudienceLength => items
                .iter()
                .any(|item| !(1..=MAX_AUDIENCE_LEN).contains(&item.chars().count())),
            Self::DuplicateAudience => items.iter().collect::<BTreeSet<_>>().len() != items.len(),
        }
    }
}

/// The first rule that a spec breaks, in the order of the enum; an unknown kind comes before all others.
pub fn credential_contradictions(spec: &RegistryAccess) -> Result<(), CredentialRule> {
    use CredentialRule::{AudienceLength, DuplicateAudience, TooManyAudiences, UnknownKind};
    let schema = [TooManyAudiences, AudienceLength, DuplicateAudience];
    let rules = std::iter::once(UnknownKind).chain(CredentialRule::CEL).chain(schema);
    for rule in rules {
        if rule.broken(spec) {
            return Err(rule);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
