//! What objects refer to, read by live GETs and kept in parsed form for as long as anybody refers to it. A pass reads it
//! again unless a watch says that it is still the newest, or the API server is away. Needs get on Secrets and
//! service accounts. Nothing here quotes a Secret.

mod account;
mod known;
mod proxy;
#[cfg(test)]
mod tests;
mod tls;

use std::{collections::HashSet, fmt::Debug, sync::Arc};

use k8s_openapi::{NamespaceResourceScope, api::core::v1::Secret};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use zeroize::Zeroize;

pub use account::Account;
pub use known::KnownReferents;
pub use proxy::ProxySecret;
pub use tls::TlsSecret;

use self::known::Readings;
use super::{Context, Reconciled};
use crate::{
    credential::PullSecret,
    runtime::api_server::is_unreachable,
    watch::{ObjectKey, ReferentKey, ReferentKind},
};

/// A way of reading a Secret or ServiceAccount.
pub trait Referent: Sized + Send + Sync + 'static {
    /// What it is read from.
    type Source: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + 'static;
    /// The same, as a word.
    const KIND: ReferentKind;

    /// What is of use in `source`, or why it is of none.
    fn parse(source: &Self::Source) -> Result<Self, String>;

    /// Overwrites what is secret in `source`.
    fn wipe(source: &mut Self::Source);

    /// Where readings of this kind are kept.
    fn readings(known: &KnownReferents) -> &Readings<Self>;
}

impl Referent for PullSecret {
    type Source = Secret;
    const KIND: ReferentKind = ReferentKind::Secret;

    fn parse(secret: &Secret) -> Result<Self, String> {
        Self::read(secret).map_err(|error| error.to_string())
    }

    fn wipe(secret: &mut Secret) {
        wipe(secret);
    }

    fn readings(known: &KnownReferents) -> &Readings<Self> {
        &known.pull_secrets
    }
}

/// Why a referent was not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// There is none of that name.
    NotFound,
    /// It is there and of no use.
    Invalid(String),
    /// The API server says no.
    Refused(String),
    /// The API server says nothing.
    Unreachable,
}

impl Unread {
    /// As a message about the Secret `name` in the namespace of `key`. What is invalid speaks for itself.
    pub fn secret(self, key: &ObjectKey, name: &str) -> String {
        match self {
            Self::NotFound => format!("Secret '{}/{name}' not found", key.namespace),
            Self::Invalid(why) => why,
            Self::Refused(why) => format!("Secret '{name}': {why}"),
            Self::Unreachable => format!("Secret '{name}': the API server cannot be reached"),
        }
    }
}

impl From<&kube::Error> for Unread {
    fn from(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status.message.clone()),
            _ => Self::Unreachable,
        }
    }
}

/// How new a reading has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// As new as the API server's.
    Newest,
    /// What was read before will do, unless it was of no use or a watch says that there is a newer one.
    Known,
}

/// The reading of one pass. When it ends, what it has not asked for is no longer referred to.
pub struct Reader<'a, K: Reconciled> {
    ctx: &'a Context<K>,
    key: &'a ObjectKey,
    look: Look,
    read: HashSet<ReferentKey>,
}

impl<'a, K: Reconciled> Reader<'a, K> {
    /// Reads for the object of `key`.
    pub fn new(ctx: &'a Context<K>, key: &'a ObjectKey, look: Look) -> Self {
        Self {
            ctx,
            key,
            look,
            read: HashSet::new(),
        }
    }

    /// The referent `name` of the object.
    pub async fn read<R: Referent>(&mut self, name: &str) -> Result<Arc<R>, Unread> {
        let referent = self.referent(R::KIND, name);
        self.read.insert(referent.clone());
        let (ctx, readings) = (self.ctx, R::readings(&self.ctx.known_referents));
        if ctx.api_server.is_down()
            && let Some(kept) = readings.kept(self.key, &referent)
        {
            return kept;
        }
        if self.look == Look::Known
            && !ctx.known_referents.is_watched()
            && let Some(Ok(kept)) = readings.kept(self.key, &referent)
        {
            return Ok(kept);
        }
        let read = readings.get(&ctx.client, self.key, &referent).await;
        read.unwrap_or_else(|error| {
            ctx.api_server.note(&error);
            if is_unreachable(&error)
                && let Some(kept) = readings.kept(self.key, &referent)
            {
                return kept;
            }
            readings.drop_one(&referent);
            Err(Unread::from(&*error))
        })
    }

    fn referent(&self, kind: ReferentKind, name: &str) -> ReferentKey {
        let key = ObjectKey {
            namespace: self.key.namespace.clone(),
            name: name.into(),
        };
        ReferentKey { kind, key }
    }
}

impl<K: Reconciled> Drop for Reader<'_, K> {
    fn drop(&mut self) {
        self.ctx.known_referents.keep_only(self.key, &self.read);
        if self.ctx.store.get(self.key).is_none() {
            // Deleted while it was read.
            self.ctx.known_referents.forget(self.key);
        }
    }
}

fn wipe(secret: &mut Secret) {
    for value in secret.data.iter_mut().flat_map(|data| data.values_mut()) {
        value.0.zeroize();
    }
}

fn bytes<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    secret.data.as_ref()?.get(key).map(|value| value.0.as_slice())
}

/// UID and resourceVersion: what is read from another version is another credential.
fn version(secret: &Secret) -> String {
    format!(
        "{}/{}",
        secret.uid().unwrap_or_default(),
        secret.resource_version().unwrap_or_default()
    )
}
