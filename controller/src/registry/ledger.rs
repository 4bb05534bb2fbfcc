//! What was obtained with a credential, kept per object: the token it was exchanged for, and which origins have seen it.
//!
//! An entry belongs to one object UID and one credential generation; another generation starts empty, so nothing outlives
//! the credential it came from. Entries of deleted objects go by [`Ledger::forget`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use secrecy::SecretString;
use tokio::time::Instant;

use super::url::{Origin, RepositoryUrl};
use crate::credential::CredentialGeneration;

#[derive(Default)]
pub(super) struct Ledger {
    objects: Mutex<HashMap<Arc<str>, Entry>>,
}

struct Entry {
    generation: CredentialGeneration,
    seen_by: Vec<Origin>,
    grant: Option<(Origin, RepositoryUrl, Grant)>,
}

/// How a registry wants the credential, learned from its challenge.
#[derive(Clone)]
pub(super) enum Grant {
    /// As the password of HTTP basic authentication.
    Basic,
    /// Exchanged for this token.
    Token {
        /// What to send as bearer.
        token: SecretString,
        /// Not used from then on.
        expires: Instant,
    },
}

/// Whose grant, for what.
#[derive(Clone, Copy)]
pub(super) struct Holder<'a> {
    pub(super) object: &'a Arc<str>,
    pub(super) generation: &'a CredentialGeneration,
    pub(super) origin: &'a Origin,
    pub(super) url: &'a RepositoryUrl,
}

impl Ledger {
    /// The grant to use, unless it has expired.
    pub(super) fn grant(&self, holder: Holder<'_>, now: Instant) -> Option<Grant> {
        let objects = self.lock();
        let entry = objects
            .get(holder.object)
            .filter(|entry| entry.generation == *holder.generation)?;
        let (origin, url, grant) = entry.grant.as_ref()?;
        if origin != holder.origin || url != holder.url {
            return None;
        }
        match grant {
            Grant::Token { expires, .. } if *expires <= now => None,
            grant => Some(grant.clone()),
        }
    }

    /// Keeps a grant in place of the earlier one.
    pub(super) fn keep(&self, holder: Holder<'_>, grant: Grant) {
        let mut objects = self.lock();
        let entry = Self::entry(&mut objects, holder.object, holder.generation);
        entry.grant = Some((holder.origin.clone(), holder.url.clone(), grant));
    }

    /// Drops a grant that was refused.
    pub(super) fn revoke(&self, object: &Arc<str>) {
        if let Some(entry) = self.lock().get_mut(object) {
            entry.grant = None;
        }
    }

    /// Whether `origin` sees this generation for the first time. Only the first call says yes.
    pub(super) fn is_first(&self, object: &Arc<str>, generation: &CredentialGeneration, origin: &Origin) -> bool {
        let mut objects = self.lock();
        let entry = Self::entry(&mut objects, object, generation);
        if entry.seen_by.contains(origin) {
            return false;
        }
        entry.seen_by.push(origin.clone());
        true
    }

    /// Drops everything about an object.
    pub(super) fn forget(&self, object: &Arc<str>) {
        self.lock().remove(object);
    }

    fn entry<'a>(
        objects: &'a mut HashMap<Arc<str>, Entry>,
        object: &Arc<str>,
        generation: &CredentialGeneration,
    ) -> &'a mut Entry {
        let fresh = || Entry {
            generation: generation.clone(),
            seen_by: Vec::new(),
            grant: None,
        };
        let entry = objects.entry(Arc::clone(object)).or_insert_with(fresh);
        if entry.generation != *generation {
            *entry = fresh();
        }
        entry
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_grant_belongs_to_object_generation_origin_and_repository() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        let (one, two): (Arc<str>, Arc<str>) = ("uid-1".into(), "uid-2".into());
        let (first, second) = (CredentialGeneration("1".into()), CredentialGeneration("2".into()));
        let url = RepositoryUrl::parse("oci://r.example/a/b", true).unwrap();
        let other = RepositoryUrl::parse("oci://r.example/a/c", true).unwrap();
        let origin = url.origin(false);
        let holder = Holder {
            object: &one,
            generation: &first,
            origin: &origin,
            url: &url,
        };
        let expires = now + Duration::from_mins(1);
        ledger.keep(
            holder,
            Grant::Token {
                token: "t".into(),
                expires,
            },
        );
        assert!(ledger.grant(holder, now).is_some());
        assert!(ledger.grant(holder, expires).is_none());
        assert!(ledger.grant(Holder { object: &two, ..holder }, now).is_none());
        assert!(
            ledger
                .grant(
                    Holder {
                        generation: &second,
                        ..holder
                    },
                    now
                )
                .is_none()
        );
        assert!(ledger.grant(Holder { url: &other, ..holder }, now).is_none());
        assert!(
            ledger
                .grant(
                    Holder {
                        origin: &url.origin(true),
                        ..holder
                    },
                    now
                )
                .is_none()
        );
        ledger.revoke(&one);
        assert!(ledger.grant(holder, now).is_none());
    }

    #[test]
    fn first_presentation_is_told_once_per_generation_and_origin() {
        let ledger = Ledger::default();
        let object: Arc<str> = "uid".into();
        let origin = RepositoryUrl::parse("oci://r.example/a/b", true).unwrap().origin(false);
        let first = CredentialGeneration("1".into());
        assert!(ledger.is_first(&object, &first, &origin));
        assert!(!ledger.is_first(&object, &first, &origin));
        assert!(ledger.is_first(&object, &CredentialGeneration("2".into()), &origin));
        ledger.forget(&object);
        assert!(ledger.is_first(&object, &first, &origin));
    }
}
