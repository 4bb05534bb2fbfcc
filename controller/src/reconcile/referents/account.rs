//! What is of use in a ServiceAccount: the annotations that ask for a token, and the names of its pull secrets.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::ResourceExt;

use super::{KnownReferents, Readings, Referent};
use crate::{credential::Annotated, watch::ReferentKind};

/// A ServiceAccount.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// Those that speak of credentials.
    pub annotations: BTreeMap<String, String>,
    /// The names in its imagePullSecrets.
    pub pull_secrets: Vec<String>,
}

impl Account {
    /// The token that its annotations ask for, in place of pull secrets. `name` is its own, `registry` the `host[:port]` that
    /// the token is for unless they say otherwise.
    pub fn annotated(&self, name: &str, registry: &str) -> Result<Option<Annotated>, String> {
        let annotated = Annotated::read(&self.annotations, name, registry).map_err(|error| error.to_string())?;
        if annotated.is_some() && !self.pull_secrets.is_empty() {
            return Err("credential annotations and imagePullSecrets exclude each other".to_owned());
        }
        Ok(annotated)
    }
}

impl Referent for Account {
    type Source = ServiceAccount;
    const KIND: ReferentKind = ReferentKind::ServiceAccount;

    fn parse(account: &ServiceAccount) -> Result<Self, String> {
        let annotations = account.annotations().iter();
        let annotations = annotations.filter(|(name, _)| Annotated::is_about(name));
        let pull_secrets = account.image_pull_secrets.iter().flatten();
        Ok(Self {
            annotations: annotations.map(|(name, value)| (name.clone(), value.clone())).collect(),
            pull_secrets: pull_secrets.map(|reference| reference.name.clone()).collect(),
        })
    }

    fn wipe(_account: &mut ServiceAccount) {}

    fn readings(known: &KnownReferents) -> &Readings<Self> {
        &known.accounts
    }
}
