//! What an object asks for, and for whom. Both are made from the object's metadata and validated spec; nothing in
//! `spec` or `status` can change the subject of a minted credential.

use std::{sync::Arc, time::Duration};

use mintmark_api::credential::CredentialKind;

use super::Audience;

/// The credential that an object asks for. Audiences are sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// `spec.credential` is absent.
    Anonymous,
    /// A token of a ServiceAccount: the object's, the operator's default, or (none named) the controller's own.
    ServiceAccountToken {
        /// Account in the object's namespace.
        account: Option<Arc<str>>,
        /// What the token is for.
        audiences: Arc<[Audience]>,
        /// How long it lives, in place of `--service-account-token-ttl`.
        life: Option<Duration>,
    },
    /// A JWT-SVID of the object.
    SpiffeJwt {
        /// What the token is for.
        audiences: Arc<[Audience]>,
        /// How long it lives at most, if that is less than `--spiffe-jwt-ttl`: so long are verification keys published.
        life: Option<Duration>,
    },
    /// An X.509-SVID of the object.
    SpiffeCertificate,
}

impl Wanted {
    /// The word in `spec.credential`.
    pub fn kind(&self) -> Option<CredentialKind> {
        match self {
            Self::Anonymous => None,
            Self::ServiceAccountToken { .. } => Some(CredentialKind::ServiceAccountToken),
            Self::SpiffeJwt { .. } => Some(CredentialKind::SpiffeJwt),
            Self::SpiffeCertificate => Some(CredentialKind::SpiffeCertificate),
        }
    }

    /// The audiences; a certificate has none.
    pub fn audiences(&self) -> &[Audience] {
        match self {
            Self::Anonymous | Self::SpiffeCertificate => &[],
            Self::ServiceAccountToken { audiences, .. } | Self::SpiffeJwt { audiences, .. } => audiences,
        }
    }
}

/// The object a credential speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectIdentity {
    /// E.g. `OCIRepository`.
    pub kind: &'static str,
    /// E.g. `ocirepositories`.
    pub plural: &'static str,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: Arc<str>,
}
