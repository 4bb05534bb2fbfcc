//! The Kubernetes types of mintmark: Flux's `OCIRepository`, `ImageRepository` and `ImagePolicy`, their conditions, and
//! the small value types they are made of. The kinds that ask a registry have the fields `credential` and `audiences`.
//!
//! Nothing here reads a clock, a socket or a file. Field names, defaults and patterns are those of Flux's own
//! definitions, so that every consumer of the kinds keeps working; the additions are listed in each kind's module.

pub mod annotation;
pub mod artifact;
pub mod condition;
pub mod crd;
pub mod credential;
pub mod digest;
pub mod duration;
pub mod image_policy;
pub mod image_repository;
pub mod oci_repository;
pub mod reference;
pub mod registry_access;
pub mod rules;

mod schema;

pub use rules::{CredentialRule, credential_contradictions};
pub use schema::CelRule;
