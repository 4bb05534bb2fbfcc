//! What a pull presents to a registry, and where it comes from.
//!
//! [`Presented`] is the value the registry client works with; a [`CredentialSource`] yields it, from a cache or freshly
//! minted. A credential and everything exchanged for it belong to one object and one [`CredentialGeneration`].

mod presented;

pub use presented::{
    Audience, AudienceError, CertificateCredential, CredentialError, CredentialGeneration, CredentialSource,
    JwtCredential, Presented,
};
