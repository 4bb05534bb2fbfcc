//! Names of the annotations, labels and finalizers that are read or written, grouped by who defines them.
//!
//! Constants only. Nothing here says what a value means; the reader of the annotation does.

/// A change of this annotation's value asks for a pass at once. The value is free text (the flux CLI writes a time).
pub const RECONCILE_REQUESTED_AT: &str = "reconcile.fluxcd.io/requestedAt";

/// Label that assigns an object to a shard, used by Flux in label selectors.
pub const SHARD_KEY: &str = "sharding.fluxcd.io/key";

/// Finalizer left behind by another controller of the same kind; removed when such an object is being deleted.
pub const FLUX_FINALIZER: &str = "finalizers.fluxcd.io";

/// Prefix of annotations that go along with an event as metadata.
pub const EVENT_PREFIX: &str = "event.toolkit.fluxcd.io/";

/// Event metadata: the artifact's revision.
pub const EVENT_REVISION: &str = "source.toolkit.fluxcd.io/revision";

/// Event metadata: the artifact's digest.
pub const EVENT_DIGEST: &str = "source.toolkit.fluxcd.io/digest";

/// Event metadata: the revision that the OCI annotations name as the artifact's origin.
pub const EVENT_ORIGIN_REVISION: &str = "source.toolkit.fluxcd.io/originRevision";

/// Prefix of the event metadata of the image kinds.
pub const EVENT_IMAGE_PREFIX: &str = "image.toolkit.fluxcd.io/";

/// OCI annotation: where the content came from.
pub const OCI_SOURCE: &str = "org.opencontainers.image.source";

/// OCI annotation: the revision of the content at its source.
pub const OCI_REVISION: &str = "org.opencontainers.image.revision";

/// ServiceAccount annotation: `kubernetes` or `spiffe`.
pub const CREDENTIAL_PROVIDER: &str = "credential.auth.fluxcd.io/provider";

/// ServiceAccount annotation: `jwt`.
pub const CREDENTIAL_TYPE: &str = "credential.auth.fluxcd.io/type";

/// ServiceAccount annotation: audiences separated by commas or newlines.
pub const CREDENTIAL_AUDIENCES: &str = "credential.auth.fluxcd.io/audiences";

/// ServiceAccount annotation: the user name under which the token is sent as a password.
pub const CREDENTIAL_USERNAME: &str = "credential.auth.fluxcd.io/username";

/// ServiceAccount annotation: the token's life, a Go duration of at most one hour.
pub const CREDENTIAL_EXPIRATION: &str = "credential.auth.fluxcd.io/expiration";

/// Set on the CRD: keeps kustomize-controller's variable substitution away from the `$` in patterns.
pub const KUSTOMIZE_SUBSTITUTE: &str = "kustomize.toolkit.fluxcd.io/substitute";

/// Set on the CRD: keeps kustomize-controller from replacing the definition by one without our fields.
pub const KUSTOMIZE_SSA: &str = "kustomize.toolkit.fluxcd.io/ssa";
