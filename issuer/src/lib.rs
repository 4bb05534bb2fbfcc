//! The issuer core: SPIFFE IDs, signing keys, authorities, JWT-SVIDs, X.509-SVIDs, the key ring and the published documents.
//!
//! Everything here is plain computation: no sockets, no Kubernetes, no async and no clock. Wall time, monotonic time and
//! randomness are arguments, so that every rule is a unit test. Private keys enter as Secret bytes, live behind [`Signer`],
//! which has no key getter, and leave only through [`StoredKeys`], the form kept in the ring's own Secret.
//!
//! ```
//! use jiff::SignedDuration;
//! use mintmark_issuer::{Authority, LoadOptions, SigningSecret, SpiffeId, SystemRandom, TrustDomain};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let key = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/ec-p256.sec1.key"))?;
//! # let certificate = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/two-ou.crt"))?;
//! # let now = "2027-01-01T00:00:00Z".parse()?;
//! let trust_domain = TrustDomain::parse("example.org")?;
//! let secret = SigningSecret::from_data([("tls.key", key.as_slice()), ("tls.crt", certificate.as_slice())]);
//! let authority = Authority::load(&secret, &LoadOptions { trust_domain: &trust_domain, cluster_cas: &[] }, now)?;
//! let subject = SpiffeId::for_object(&trust_domain, "ocirepositories", "tenant-a", "app")?;
//! let x509 = authority.x509().map_err(Clone::clone)?;
//! let svid = x509.mint(&subject, SignedDuration::from_hours(1), now, &SystemRandom::new())?;
//! assert_eq!(svid.chain.len(), 1);
//! # Ok(())
//! # }
//! ```

mod authority;
mod der;
mod documents;
mod issuer_url;
mod jwt;
mod keyring;
mod keys;
mod pem;
mod random;
mod spiffe_id;
#[cfg(test)]
mod test_support;
mod trust_domain;
mod verify;
mod x509;

pub use authority::{
    Advisory, Authority, AuthorityError, Field, JwtUnavailable, LoadOptions, SigningSecret, X509Unavailable,
};
pub use documents::{Document, DocumentInput, Documents, DocumentsError};
pub use issuer_url::{IssuerUrl, IssuerUrlError};
pub use jwt::{JwtAuthority, JwtMintError, JwtRequest, JwtSvid, ObjectRef};
pub use keyring::{
    Action, Clocks, Entry, Event, Found, JwtMaterial, KeyRing, KeyState, KeyUse, KeyUses, MAX_KEYS_PER_USE, NoSigner,
    Notice, Refused, RingPolicy, RingState, SigningSet, StateError, StoreWrite, StoredKeys, StoredState, X509Material,
    is_authority_id, is_id,
};
pub use keys::{Jwk, JwkError, KeyAlgorithm, KeyError, LocalSigner, PrivateKey, PublicKey, SignError, Signer};
pub use pem::PemError;
pub use random::{Random, RandomError};
pub use spiffe_id::{SpiffeId, SpiffeIdError};
pub use trust_domain::{TrustDomain, TrustDomainError};
pub use verify::{BundleError, JwtVerifyError, TrustBundle, VerifiedJwt, VerifiedX509, X509VerifyError};
pub use x509::{SelfCheckError, X509Authority, X509MintError, X509Svid};

/// The system's randomness: what minting takes in the product.
pub use ::ring::rand::SystemRandom;

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
