//! Runs the key ring: feeds it with what the signing Secrets and the stored ring became, with who leads and with time, and
//! performs what it asks for, in order: store, publish, sign, tell. The ring itself is pure and lives in `mintmark-issuer`.
//!
//! [`RingStore`] keeps it in Secrets `mintmark-issuer` and `mintmark-issuer-ring`; the [`IssuingTask`] never waits for the
//! API server while it signs and publishes.

mod annotations;
mod follow;
mod news;
mod outlet;
mod retry;
mod secrets;
mod signing;
mod skew;
mod store;
mod task;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

use mintmark_issuer::{Documents, SigningSet};
use tokio::sync::watch;

pub use self::{
    annotations::Annotations,
    follow::{Change, RingWatch},
    news::{News, OnNews},
    secrets::{Held, IoError, KubeSecrets, SecretData, SecretIo, Which},
    skew::ServerClock,
    store::{MayWrite, Reading, RingStore, StoreError},
    task::{Inputs, IssuingTask, WallClock},
};
use crate::credential::SigningReceiver;

/// The documents of the ring's stored state; none before the first key.
pub type DocumentsReceiver = watch::Receiver<Option<Arc<Documents>>>;

/// The ids that are never to be used again.
pub type RevokedReceiver = watch::Receiver<Arc<BTreeSet<String>>>;

/// Where the results of an [`IssuingTask`] are seen.
pub struct Issuing {
    /// Who signs.
    pub signing: SigningReceiver,
    /// What is published.
    pub documents: DocumentsReceiver,
    /// What is revoked.
    pub revoked: RevokedReceiver,
}

/// Whether anything signs.
pub fn can_sign(set: &SigningSet) -> bool {
    set.jwt.is_ok() || set.x509.is_ok()
}

/// Whether the signing Secret was looked at, whatever came of it.
pub fn is_read(set: &SigningSet) -> bool {
    use mintmark_issuer::NoSigner::{NotRead, NotStored};
    !matches!(
        (&set.jwt, &set.x509),
        (Err(NotRead | NotStored), Err(NotRead | NotStored))
    )
}

/// The set before the first reading.
pub fn nobody_signs() -> SigningSet {
    use mintmark_issuer::NoSigner::NotRead;
    SigningSet {
        jwt: Err(NotRead),
        x509: Err(NotRead),
    }
}
