//! What a pull presents to a registry, and where it comes from.
//!
//! [`Presented`] is the value the registry client works with; a [`CredentialSource`] yields it, from a cache or freshly
//! minted. A credential and everything exchanged for it belong to one object and one [`CredentialGeneration`].

mod annotations;
mod audit;
mod client_certificate;
mod docker_config;
mod freshness;
mod named_user;
mod object;
mod policy;
mod presented;
mod pull_secret;
mod registry_pattern;
mod service;
mod service_account;
mod wanted;

pub use annotations::{Annotated, AnnotationError};
pub use audit::AuditObserver;
pub use client_certificate::ClientCertificateError;
pub use docker_config::{DockerConfig, DockerConfigError, Login};
pub use named_user::NamedUser;
pub use object::ObjectCredential;
pub use policy::{AllowedAudience, AudiencePolicy, AudienceRefusal};
pub use presented::{
    Audience, AudienceError, CertificateCredential, CredentialError, CredentialGeneration, CredentialSource,
    JwtCredential, LoginCredential, Presented,
};
pub use pull_secret::{PullSecret, PullSecretSource};
pub use registry_pattern::{RegistryPattern, Target};
pub use service::{CredentialSettings, Credentials, Unavailable};
pub use service_account::{ServiceAccountToken, ServiceAccountTokens, TokenKey, audiences_of, subject_of};
pub use wanted::{ObjectIdentity, Wanted};

/// Follows who signs: a change of key is one swap of a pointer, and a pass under way goes on with what it has.
pub type SigningReceiver = tokio::sync::watch::Receiver<std::sync::Arc<mintmark_issuer::SigningSet>>;
