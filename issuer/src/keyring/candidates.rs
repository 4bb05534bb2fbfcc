//! What the signing Secrets hold and what their annotations want, as last read. A Secret that cannot serve a use leaves
//! the last good key of it in place.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::event::{KeyUses, NoSigner};
use super::notice::Notice;
use crate::authority::{Authority, AuthorityError};
use crate::keys::PrivateKey;
use crate::{JwtAuthority, X509Authority};

/// What the signing Secrets hold, last good per use, and why a use has nothing.
#[derive(Debug)]
pub(super) struct Candidates {
    pub(super) jwt: Option<Candidate<JwtAuthority>>,
    pub(super) x509: Option<Candidate<X509Authority>>,
    pub(super) jwt_failure: NoSigner,
    pub(super) x509_failure: NoSigner,
    /// Ids to revoke that may not be stored yet.
    pub(super) revoked: BTreeSet<String>,
    /// Ids of CAs that may sign before their overlap is over.
    pub(super) activated: BTreeSet<String>,
}

/// An authority with the private key that has to be stored before it signs.
#[derive(Debug, Clone)]
pub(super) struct Candidate<A> {
    pub(super) authority: Arc<A>,
    pub(super) key: Option<Arc<PrivateKey>>,
}

impl Default for Candidates {
    fn default() -> Self {
        Self {
            jwt: None,
            x509: None,
            jwt_failure: NoSigner::NotRead,
            x509_failure: NoSigner::NotRead,
            revoked: BTreeSet::new(),
            activated: BTreeSet::new(),
        }
    }
}

impl Candidates {
    /// Takes in what a Secret holds. A use that it cannot serve keeps its last good key.
    /// Whoever has no issuer mints no tokens and is not told about keys that could not sign any.
    pub(super) fn take(
        &mut self,
        uses: KeyUses,
        outcome: Result<Arc<Authority>, AuthorityError>,
        mints_tokens: bool,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        let authority = match outcome {
            Ok(authority) => authority,
            Err(error) => {
                if uses != KeyUses::X509 {
                    self.jwt_failure = NoSigner::Secret(error.clone());
                }
                if uses != KeyUses::Jwt {
                    self.x509_failure = NoSigner::Secret(error.clone());
                }
                return vec![Notice::NotUsable(error)];
            }
        };
        let key = Some(Arc::clone(&authority.key));
        if uses != KeyUses::X509 {
            match authority.jwt() {
                Ok(jwt) => {
                    self.jwt = Some(Candidate {
                        authority: Arc::clone(jwt),
                        key: key.clone(),
                    });
                }
                Err(reason) => {
                    self.jwt_failure = NoSigner::Jwt(reason.clone());
                    notices.extend(mints_tokens.then(|| Notice::NoJwt(reason.clone())));
                }
            }
        }
        if uses != KeyUses::Jwt {
            match authority.x509() {
                Ok(x509) => {
                    self.x509 = Some(Candidate {
                        authority: Arc::clone(x509),
                        key,
                    });
                }
                Err(reason) => {
                    self.x509_failure = NoSigner::X509(reason.clone());
                    notices.push(Notice::NoX509(reason.clone()));
                }
            }
        }
        notices
    }
}
