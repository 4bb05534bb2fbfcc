//! The Kubernetes types of mintmark: the `OCIRepository` of group `source.toolkit.fluxcd.io` with the fields
//! `credential` and `audiences`, its conditions, and the small value types they are made of.
//!
//! Nothing here reads a clock, a socket or a file. Field names, defaults and patterns are those of Flux's own
//! definition, so that every consumer of the kind keeps working; the additions are listed in [`oci_repository`].

pub mod annotation;
pub mod artifact;
pub mod condition;
pub mod crd;
pub mod credential;
pub mod digest;
pub mod duration;
pub mod oci_repository;
pub mod reference;
pub mod registry_access;
pub mod rules;

mod schema;

pub use rules::{CredentialRule, credential_contradictions};
