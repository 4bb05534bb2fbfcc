//! Condition types and reasons, and the order in which those of an OCIRepository are summarised into `Ready`.
//!
//! The words are Flux's, because dashboards, alerts and the flux CLI know them; the ones that came with `credential`
//! are marked. The functions here are tables, the controller decides what is set when.

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// Longest message of a condition in bytes; the CRD refuses longer ones.
pub const MAX_MESSAGE_LEN: usize = 32_768;

/// Summary of all other conditions: True when the artifact of the current generation is served.
pub const READY: &str = "Ready";
/// A pass is under way or will be repeated. Present only while True.
pub const RECONCILING: &str = "Reconciling";
/// No pass follows until the object, a referent or the configuration changes. Present only while True.
pub const STALLED: &str = "Stalled";
/// An artifact is stored and served.
pub const ARTIFACT_IN_STORAGE: &str = "ArtifactInStorage";
/// The registry has another revision than the stored one. Present only while True.
pub const ARTIFACT_OUTDATED: &str = "ArtifactOutdated";
/// The registry could not be asked or its answer could not be used. Present only while True.
pub const FETCH_FAILED: &str = "FetchFailed";
/// The artifact could not be written or read. Present only while True.
pub const STORAGE_OPERATION_FAILED: &str = "StorageOperationFailed";
/// Outcome of the signature verification; absent when none is asked for.
pub const SOURCE_VERIFIED: &str = "SourceVerified";

/// The condition types that this project writes and removes; all others belong to somebody else and are kept.
pub const OWNED: [&str; 8] = [
    STORAGE_OPERATION_FAILED,
    FETCH_FAILED,
    ARTIFACT_OUTDATED,
    ARTIFACT_IN_STORAGE,
    SOURCE_VERIFIED,
    READY,
    RECONCILING,
    STALLED,
];

/// The same of the image kinds, whose `Ready` is no summary.
pub const OWNED_BY_IMAGES: [&str; 3] = [READY, RECONCILING, STALLED];

/// The types that `Ready` summarises, in descending priority.
pub const SUMMARY_ORDER: [&str; 7] = [
    STORAGE_OPERATION_FAILED,
    FETCH_FAILED,
    ARTIFACT_OUTDATED,
    ARTIFACT_IN_STORAGE,
    SOURCE_VERIFIED,
    STALLED,
    RECONCILING,
];

/// True for types whose `True` means that something is wrong or unfinished; they exist only while True.
pub fn is_negative(condition_type: &str) -> bool {
    matches!(
        condition_type,
        STORAGE_OPERATION_FAILED | FETCH_FAILED | ARTIFACT_OUTDATED | STALLED | RECONCILING
    )
}

/// Values of `status` in a condition.
pub mod status {
    /// Holds.
    pub const TRUE: &str = "True";
    /// Does not hold.
    pub const FALSE: &str = "False";
    /// Not known yet.
    pub const UNKNOWN: &str = "Unknown";
}

/// Values of `reason` in a condition, used for events as well.
pub mod reason {
    /// The pass succeeded.
    pub const SUCCEEDED: &str = "Succeeded";
    /// A pass is under way.
    pub const PROGRESSING: &str = "Progressing";
    /// A pass failed and will be repeated.
    pub const PROGRESSING_WITH_RETRY: &str = "ProgressingWithRetry";
    /// The registry has a revision that is not stored yet.
    pub const NEW_REVISION: &str = "NewRevision";
    /// Event only: an artifact with a new digest was stored.
    pub const NEW_ARTIFACT: &str = "NewArtifact";
    /// Event only: the stored file is not what was stored.
    pub const ARTIFACT_VERIFICATION_FAILED: &str = "ArtifactVerificationFailed";
    /// Event only: `spec.interval` is shorter than the controller allows.
    pub const INTERVAL_CLAMPED: &str = "IntervalClamped";
    /// Event only: another controller wrote the status after this one.
    pub const STATUS_OVERWRITTEN: &str = "StatusOverwritten";
    /// A referent or the registry's authentication stood in the way.
    pub const AUTHENTICATION_FAILED: &str = "AuthenticationFailed";
    /// `spec.url` is not the address of a repository.
    pub const URL_INVALID: &str = "URLInvalid";
    /// No version could be selected.
    pub const READ_OPERATION_FAILED: &str = "ReadOperationFailed";
    /// The manifest or a blob could not be pulled.
    pub const OCI_ARTIFACT_PULL_FAILED: &str = "OCIArtifactPullFailed";
    /// The layer could not be found or unpacked.
    pub const OCI_ARTIFACT_LAYER_OPERATION_FAILED: &str = "OCIArtifactLayerOperationFailed";
    /// A directory could not be created.
    pub const DIRECTORY_CREATION_FAILED: &str = "DirectoryCreationFailed";
    /// A path could not be examined.
    pub const STAT_OPERATION_FAILED: &str = "StatOperationFailed";
    /// The artifact could not be written.
    pub const ARCHIVE_OPERATION_FAILED: &str = "ArchiveOperationFailed";
    /// The signature of the artifact is missing or wrong.
    pub const VERIFICATION_ERROR: &str = "VerificationError";
    /// Added here: the credential needs a flag, an account or a signing Secret that is missing.
    pub const CREDENTIAL_NOT_CONFIGURED: &str = "CredentialNotConfigured";
    /// Added here: the object contradicts itself or asks for a credential it may not have.
    pub const CREDENTIAL_INVALID: &str = "CredentialInvalid";
    /// Added here: the field is part of the schema and does nothing yet.
    pub const FIELD_NOT_SUPPORTED: &str = "FieldNotSupported";
    /// Added here: signature verification does not exist yet.
    pub const VERIFICATION_NOT_SUPPORTED: &str = "VerificationNotSupported";
    /// Added here: the ambient credentials of cloud providers do not exist yet.
    pub const PROVIDER_NOT_SUPPORTED: &str = "ProviderNotSupported";
    /// Added here: the manifest's annotations are too large for a status.
    pub const METADATA_TOO_LARGE: &str = "MetadataTooLarge";
    /// Image kinds: the name of the image cannot be used.
    pub const IMAGE_URL_INVALID: &str = "ImageURLInvalid";
    /// Image kinds: something else went wrong.
    pub const FAILURE: &str = "Failure";
    /// Image policies: the ImageRepository is missing or has no tags.
    pub const DEPENDENCY_NOT_READY: &str = "DependencyNotReady";
    /// Image policies: the ImageRepository may not be used from here.
    pub const ACCESS_DENIED: &str = "AccessDenied";
    /// Image policies: the rule cannot be used.
    pub const INVALID_POLICY: &str = "InvalidPolicy";
    /// Image policies: digests are to be looked up again and again, but not how often.
    pub const INTERVAL_NOT_CONFIGURED: &str = "IntervalNotConfigured";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_covers_every_owned_type_but_itself() {
        for owned in OWNED {
            assert_eq!(SUMMARY_ORDER.contains(&owned), owned != READY, "{owned}");
        }
    }

    #[test]
    fn polarity() {
        assert!(is_negative(FETCH_FAILED));
        assert!(!is_negative(ARTIFACT_IN_STORAGE));
        assert!(!is_negative(SOURCE_VERIFIED));
        assert!(!is_negative("SomebodyElses"));
    }
}
