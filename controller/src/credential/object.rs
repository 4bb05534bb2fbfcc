//! The credential of one object: mints it, keeps it while it is fresh, and mints anew when a registry refused it or the
//! signing key changed. A credential in use never changes hands: the slot belongs to the object's UID.

use std::collections::BTreeSet;
use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use mintmark_api::credential::{CredentialKind, CredentialStatus};
use mintmark_issuer::{JwtRequest, NoSigner, ObjectRef, SpiffeId, SystemRandom};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::{
    Audience, CertificateCredential, CredentialError, CredentialGeneration, CredentialSource, Credentials,
    JwtCredential, ObjectIdentity, Presented, TokenKey, Wanted, audit, freshness::Freshness,
};

/// What an object holds between passes.
#[derive(Default)]
pub(super) struct Slot {
    held: std::sync::Mutex<Option<Held>>,
    minted: AtomicU64,
}

impl Slot {
    /// Drops the credential if it rests on one of these keys, and says whether it did.
    pub(super) fn drop_revoked(&self, revoked: &BTreeSet<String>) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.take_if(|held| revoked.contains(&*held.basis.key_id)).is_some()
    }
}

struct Held {
    /// What decided this credential; another basis means another credential.
    basis: Basis,
    presented: Presented,
    freshness: Freshness,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Basis {
    kind: CredentialKind,
    subject: Arc<str>,
    audiences: Arc<[Audience]>,
    life: Duration,
    key_id: Arc<str>,
}

/// Where a credential comes from.
enum Origin {
    Anonymous,
    ServiceAccount(TokenKey),
    Jwt {
        subject: SpiffeId,
        audiences: Arc<[Audience]>,
        life: Duration,
    },
    Certificate {
        subject: SpiffeId,
    },
}

/// The credential of one object for one pass.
pub struct ObjectCredential {
    credentials: Arc<Credentials>,
    object: ObjectIdentity,
    slot: Arc<Slot>,
    origin: Origin,
}

impl ObjectCredential {
    pub(super) fn service_account(
        credentials: Arc<Credentials>,
        object: ObjectIdentity,
        slot: Arc<Slot>,
        key: TokenKey,
    ) -> Self {
        Self {
            credentials,
            object,
            slot,
            origin: Origin::ServiceAccount(key),
        }
    }

    pub(super) fn anonymous(credentials: Arc<Credentials>, object: ObjectIdentity) -> Self {
        Self {
            credentials,
            object,
            slot: Arc::default(),
            origin: Origin::Anonymous,
        }
    }

    pub(super) fn minted(
        credentials: Arc<Credentials>,
        object: ObjectIdentity,
        slot: Arc<Slot>,
        wanted: &Wanted,
        subject: SpiffeId,
    ) -> Self {
        let origin = match wanted {
            Wanted::SpiffeJwt { audiences, life } => Origin::Jwt {
                subject,
                audiences: audiences.clone(),
                life: life.unwrap_or(Duration::MAX).min(credentials.settings.jwt_ttl),
            },
            _ => Origin::Certificate { subject },
        };
        Self {
            credentials,
            object,
            slot,
            origin,
        }
    }

    /// What `status.credential` says; none for an anonymous pull.
    pub fn status(&self) -> Option<CredentialStatus> {
        let (kind, subject, audiences) = match &self.origin {
            Origin::Anonymous => return None,
            Origin::ServiceAccount(key) => (CredentialKind::ServiceAccountToken, key.subject(), &*key.audiences),
            Origin::Jwt { subject, audiences, .. } => (CredentialKind::SpiffeJwt, subject.to_string(), &**audiences),
            Origin::Certificate { subject } => (CredentialKind::SpiffeCertificate, subject.to_string(), [].as_slice()),
        };
        let held = self.slot.held.lock().unwrap_or_else(PoisonError::into_inner);
        let key_id = held
            .as_ref()
            .map(|held| held.basis.key_id.to_string())
            .filter(|id| !id.is_empty());
        let audiences = audiences.iter().map(|audience| audience.as_str().to_owned()).collect();
        Some(CredentialStatus {
            kind,
            subject,
            audiences,
            key_id,
        })
    }

    /// Whether presenting it asks the API server for a token.
    pub fn asks_for_token(&self) -> bool {
        match &self.origin {
            Origin::ServiceAccount(key) => !self.credentials.tokens.has_fresh(key),
            _ => false,
        }
    }

    async fn present(&self, refused: Option<&Presented>) -> Result<Presented, CredentialError> {
        let started = Instant::now();
        let kind = match &self.origin {
            Origin::Anonymous => return Ok(Presented::Anonymous),
            Origin::ServiceAccount(_) => CredentialKind::ServiceAccountToken,
            Origin::Jwt { .. } => CredentialKind::SpiffeJwt,
            Origin::Certificate { .. } => CredentialKind::SpiffeCertificate,
        };
        let result = match &self.origin {
            Origin::ServiceAccount(key) => self.request(key, refused).await,
            _ => self.mint(refused),
        };
        match result {
            Ok((presented, false)) => Ok(presented),
            Ok((presented, true)) => {
                self.credentials
                    .metrics
                    .credential_issued(kind.as_str(), started.elapsed());
                Ok(presented)
            }
            Err(error) => {
                let reason = if error.transient { "unavailable" } else { "refused" };
                self.credentials.metrics.credential_failed(kind.as_str(), reason);
                Err(error)
            }
        }
    }

    /// The held credential if it rests on `basis`, is fresh and is not the refused one.
    fn held(&self, basis: &Basis, refused: Option<&Presented>) -> Option<Presented> {
        let held = self.slot.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held
            .as_ref()
            .filter(|held| held.basis == *basis && held.freshness.is_fresh())?;
        let is_refused = refused.is_some_and(|refused| refused.generation() == held.presented.generation());
        (!is_refused).then(|| held.presented.clone())
    }

    fn hold(&self, basis: Basis, presented: &Presented, freshness: Freshness) {
        let held = Held {
            basis,
            presented: presented.clone(),
            freshness,
        };
        *self.slot.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
    }

    fn generation(&self, basis: &Basis) -> CredentialGeneration {
        let count = self.slot.minted.fetch_add(1, Ordering::Relaxed);
        CredentialGeneration(format!("{}/{}/{}/{count}", self.object.uid, basis.kind, basis.key_id).into())
    }

    fn mint(&self, refused: Option<&Presented>) -> Result<(Presented, bool), CredentialError> {
        let signing = self.credentials.signing.borrow().clone();
        match &self.origin {
            Origin::Jwt {
                subject,
                audiences,
                life,
            } => {
                let authority = signing.jwt.as_ref().map_err(no_signer)?;
                let basis = Basis {
                    kind: CredentialKind::SpiffeJwt,
                    subject: subject.as_str().into(),
                    audiences: audiences.clone(),
                    life: *life,
                    key_id: authority.kid().into(),
                };
                if let Some(held) = self.held(&basis, refused) {
                    return Ok((held, false));
                }
                self.mint_jwt(authority, subject, basis)
                    .map(|presented| (presented, true))
            }
            Origin::Certificate { subject } => {
                let authority = signing.x509.as_ref().map_err(no_signer)?;
                let basis = Basis {
                    kind: CredentialKind::SpiffeCertificate,
                    subject: subject.as_str().into(),
                    audiences: [].into(),
                    life: self.credentials.settings.x509_ttl,
                    key_id: authority.id().into(),
                };
                if let Some(held) = self.held(&basis, refused) {
                    return Ok((held, false));
                }
                self.mint_certificate(authority, subject, basis)
                    .map(|presented| (presented, true))
            }
            Origin::Anonymous | Origin::ServiceAccount(_) => Ok((Presented::Anonymous, false)),
        }
    }

    fn mint_jwt(
        &self,
        authority: &mintmark_issuer::JwtAuthority,
        subject: &SpiffeId,
        basis: Basis,
    ) -> Result<Presented, CredentialError> {
        let settings = &self.credentials.settings;
        let issuer = settings
            .issuer
            .as_ref()
            .ok_or_else(|| refused_by("--spiffe-issuer is not set"))?;
        let audiences: Vec<_> = basis.audiences.iter().map(Audience::as_str).collect();
        let request = JwtRequest {
            subject,
            audiences: &audiences,
            issuer,
            object: ObjectRef {
                kind: self.object.kind,
                namespace: &self.object.namespace,
                name: &self.object.name,
                uid: &self.object.uid,
            },
            ttl: signed(basis.life),
        };
        if subject.exceeds_oidc_subject() {
            tracing::warn!(
                subject = subject.as_str(),
                "longer than the 255 characters that OIDC verifiers must accept"
            );
        }
        let svid = authority
            .mint(&request, Timestamp::now(), &SystemRandom::new())
            .map_err(|error| not_minted(&error))?;
        audit::minted(
            &self.object,
            subject.as_str(),
            &basis.audiences,
            &svid.jti,
            &svid.kid,
            svid.expires_at,
        );
        let presented = Presented::Jwt(JwtCredential {
            token: svid.token,
            audiences: basis.audiences.clone(),
            username: None,
            generation: self.generation(&basis),
            minted_at: Instant::now(),
        });
        self.hold(
            basis,
            &presented,
            Freshness::for_half_life(life(svid.issued_at, svid.expires_at), jitter()),
        );
        Ok(presented)
    }

    fn mint_certificate(
        &self,
        authority: &mintmark_issuer::X509Authority,
        subject: &SpiffeId,
        basis: Basis,
    ) -> Result<Presented, CredentialError> {
        let ttl = signed(self.credentials.settings.x509_ttl);
        let svid = authority
            .mint(subject, ttl, Timestamp::now(), &SystemRandom::new())
            .map_err(|error| not_minted(&error))?;
        audit::minted(
            &self.object,
            subject.as_str(),
            &[],
            &svid.serial,
            &svid.authority_id,
            svid.not_after,
        );
        let presented = Presented::Certificate(CertificateCredential {
            chain: svid.chain.into(),
            key: Arc::new(PrivatePkcs8KeyDer::from(svid.key.to_vec()).into()),
            issuer: authority.subject_name().into(),
            generation: self.generation(&basis),
            must_be_asked: true,
        });
        self.hold(
            basis,
            &presented,
            Freshness::for_half_life(life(svid.not_before, svid.not_after), jitter()),
        );
        Ok(presented)
    }

    async fn request(&self, key: &TokenKey, refused: Option<&Presented>) -> Result<(Presented, bool), CredentialError> {
        // The generation of a ServiceAccount token ends in its id.
        let refused = refused
            .and_then(Presented::generation)
            .and_then(|generation| generation.0.rsplit('/').next());
        let (token, requested) = self.credentials.tokens.get(key, refused).await?;
        if requested {
            let key_id = token.key_id.as_deref().unwrap_or_default();
            audit::minted(
                &self.object,
                &key.subject(),
                &key.audiences,
                &token.id,
                key_id,
                token.expires_at,
            );
        }
        let basis = Basis {
            kind: CredentialKind::ServiceAccountToken,
            subject: key.subject().into(),
            audiences: key.audiences.clone(),
            life: key.life.unwrap_or_default(),
            key_id: token.key_id.clone().unwrap_or_default(),
        };
        let generation = format!("{}/{}/{}", self.object.uid, token.account_uid, token.id);
        let presented = Presented::Jwt(JwtCredential {
            token: token.token,
            audiences: key.audiences.clone(),
            username: None,
            generation: CredentialGeneration(generation.into()),
            minted_at: token.requested_at,
        });
        self.hold(basis, &presented, token.freshness);
        Ok((presented, requested))
    }
}

impl CredentialSource for ObjectCredential {
    fn current(&self) -> BoxFuture<'_, Result<Presented, CredentialError>> {
        Box::pin(self.present(None))
    }

    fn renew<'a>(&'a self, refused: &'a Presented) -> BoxFuture<'a, Result<Presented, CredentialError>> {
        Box::pin(self.present(Some(refused)))
    }
}

fn no_signer(why: &NoSigner) -> CredentialError {
    CredentialError {
        message: why.to_string(),
        transient: !why.is_permanent(),
    }
}

/// A CA that has ended or a lack of randomness: another try, with what the signing Secret holds then, may do.
fn not_minted(error: &dyn std::error::Error) -> CredentialError {
    CredentialError {
        message: error.to_string(),
        transient: true,
    }
}

fn refused_by(why: &str) -> CredentialError {
    CredentialError {
        message: why.to_owned(),
        transient: false,
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn life(from: Timestamp, until: Timestamp) -> Duration {
    until.duration_since(from).unsigned_abs()
}

/// Between -1 and 1.
fn jitter() -> f64 {
    rand::random_range(-1.0..=1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(key_id: &str) -> Slot {
        let slot = Slot::default();
        *slot.held.lock().unwrap() = Some(Held {
            basis: Basis {
                kind: CredentialKind::SpiffeJwt,
                subject: "spiffe://example.org/a".into(),
                audiences: [].into(),
                life: Duration::from_mins(5),
                key_id: key_id.into(),
            },
            presented: Presented::Anonymous,
            freshness: Freshness::for_half_life(Duration::from_mins(5), 0.0),
        });
        slot
    }

    #[test]
    fn a_revocation_takes_the_credentials_of_its_keys_and_no_others() {
        let revoked = BTreeSet::from(["k1".to_owned(), "k2".to_owned()]);
        let (gone, kept) = (holding("k1"), holding("k3"));
        assert!(gone.drop_revoked(&revoked) && !gone.drop_revoked(&revoked), "told once");
        assert!(gone.held.lock().unwrap().is_none());
        assert!(!kept.drop_revoked(&revoked) && !Slot::default().drop_revoked(&revoked));
        assert!(kept.held.lock().unwrap().is_some());
    }
}
