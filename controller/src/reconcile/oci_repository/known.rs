//! Reads what objects refer to, one live GET per pass and referent, and remembers it: while the API server cannot be reached, a
//! pass goes on with what was read last. Needs get on Secrets and service accounts; nothing is ever listed or watched.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Secret, ServiceAccount},
};
use kube::{Api, Resource};
use mintmark_api::oci_repository::OciRepository;
use serde::de::DeserializeOwned;

use super::{
    dereference::{Proxy, Tls},
    login::Account,
};
use crate::{
    credential::PullSecret,
    reconcile::{Context, StepError},
    runtime::api_server::{is_unreachable, timely},
    watch::ObjectKey,
};

/// What each object's referents held when they were last read: used only while the API server cannot be reached.
#[derive(Debug, Default)]
pub struct KnownReferents(Mutex<HashMap<ObjectKey, HashMap<Place, Known>>>);

/// Which way of reading, and the name of what was read.
type Place = (&'static str, String);

/// A referent as it was read.
#[derive(Debug, Clone)]
pub(super) enum Known {
    Tls(Tls),
    Proxy(Proxy),
    PullSecret(PullSecret),
    Account(Account),
}

/// Something that is read from a Secret or ServiceAccount in the object's namespace.
pub(super) trait Referent: Clone {
    /// Tells the ways of reading one Secret apart.
    const PLACE: &'static str;
    /// What it is read from.
    type Source: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned;

    /// For the memory.
    fn remember(self) -> Known;

    /// From the memory.
    fn recall(known: Known) -> Option<Self>;
}

macro_rules! referent {
    ($name:ident, $source:ty) => {
        impl Referent for $name {
            const PLACE: &'static str = stringify!($name);
            type Source = $source;

            fn remember(self) -> Known {
                Known::$name(self)
            }

            fn recall(known: Known) -> Option<Self> {
                match known {
                    Known::$name(referent) => Some(referent),
                    _ => None,
                }
            }
        }
    };
}

referent!(Tls, Secret);
referent!(Proxy, Secret);
referent!(PullSecret, Secret);
referent!(Account, ServiceAccount);

/// Why a referent was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unread {
    /// There is none of that name.
    NotFound,
    /// The API server says no.
    Refused(String),
    /// The API server says nothing.
    Unreachable,
}

impl Unread {
    /// As a message about a Secret.
    pub(super) fn secret(self, key: &ObjectKey, name: &str) -> String {
        match self {
            Self::NotFound => format!("Secret '{}/{name}' not found", key.namespace),
            Self::Refused(why) => format!("Secret '{name}': {why}"),
            Self::Unreachable => format!("Secret '{name}': the API server cannot be reached"),
        }
    }
}

impl KnownReferents {
    /// The object is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, HashMap<Place, Known>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get<R: Referent>(&self, key: &ObjectKey, place: &Place) -> Option<R> {
        let known = self.lock().get(key)?.get(place)?.clone();
        R::recall(known)
    }

    /// Keeps what was read. Of each kind only as many as an object can need: a renamed one replaces what nobody reads.
    fn keep<R: Referent>(&self, key: &ObjectKey, place: Place, referent: R) {
        let mut known = self.lock();
        let places = known.entry(key.clone()).or_default();
        if R::PLACE != PullSecret::PLACE {
            places.retain(|(kind, _), _| *kind != R::PLACE);
        }
        places.insert(place, referent.remember());
    }

    /// Drops what was found to be unusable.
    fn drop_one(&self, key: &ObjectKey, place: &Place) {
        let mut known = self.lock();
        if let Some(places) = known.get_mut(key) {
            places.remove(place);
        }
    }
}

/// Reads the referent `name` of the object of `key`; `unread` and `parse` say what a failure means.
pub(super) async fn read<R: Referent>(
    ctx: &Context<OciRepository>,
    key: &ObjectKey,
    name: &str,
    unread: impl FnOnce(Unread) -> StepError,
    parse: impl FnOnce(&R::Source) -> Result<R, StepError>,
) -> Result<R, StepError> {
    let place = (R::PLACE, name.to_owned());
    let known = || ctx.known_referents.get::<R>(key, &place);
    if ctx.unwritten.is_down()
        && let Some(known) = known()
    {
        return Ok(known);
    }
    let api: Api<R::Source> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let read = timely(api.get_opt(name)).await;
    if let Err(error) = &read {
        ctx.unwritten.note(error);
        if is_unreachable(error)
            && let Some(known) = known()
        {
            return Ok(known);
        }
    }
    ctx.known_referents.drop_one(key, &place);
    let source = match read {
        Ok(Some(source)) => source,
        Ok(None) => return Err(unread(Unread::NotFound)),
        Err(kube::Error::Api(status)) => return Err(unread(Unread::Refused(status.message.clone()))),
        Err(_) => return Err(unread(Unread::Unreachable)),
    };
    let referent = parse(&source)?;
    ctx.known_referents.keep(key, place, referent.clone());
    Ok(referent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_of_reading_has_its_own_memory_and_the_object_takes_all_along() {
        let known = KnownReferents::default();
        let key = ObjectKey {
            namespace: "a".into(),
            name: "app".into(),
        };
        let place = |kind, name: &str| (kind, name.to_owned());
        known.keep(&key, place(Tls::PLACE, "one"), Tls::default());
        known.keep(&key, place(Account::PLACE, "one"), Account::default());
        assert!(known.get::<Tls>(&key, &place(Tls::PLACE, "one")).is_some());
        assert!(known.get::<Account>(&key, &place(Account::PLACE, "one")).is_some());
        assert!(known.get::<Tls>(&key, &place(Account::PLACE, "one")).is_none());
        known.keep(&key, place(Tls::PLACE, "two"), Tls::default());
        assert!(
            known.get::<Tls>(&key, &place(Tls::PLACE, "one")).is_none(),
            "replaced by another name"
        );
        known.drop_one(&key, &place(Tls::PLACE, "two"));
        assert!(known.get::<Tls>(&key, &place(Tls::PLACE, "two")).is_none());
        known.forget(&key);
        assert!(known.get::<Account>(&key, &place(Account::PLACE, "one")).is_none());
    }
}
