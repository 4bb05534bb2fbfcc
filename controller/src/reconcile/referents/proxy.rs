//! What the Secret of `proxySecretRef` holds: `address`, and `username` with `password` if the proxy wants a login.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use secrecy::SecretString;

use super::{KnownReferents, Readings, Referent, bytes, version, wipe};
use crate::{registry::ProxySettings, watch::ReferentKind};

/// The way to the registry.
#[derive(Debug, Clone)]
pub struct ProxySecret {
    /// Address and login.
    pub settings: ProxySettings,
    /// UID and version of the Secret.
    pub version: String,
}

impl Referent for ProxySecret {
    type Source = Secret;
    const KIND: ReferentKind = ReferentKind::Secret;

    fn parse(secret: &Secret) -> Result<Self, String> {
        let name = secret.name_any();
        let text = |key: &'static str| {
            let value = bytes(secret, key).map(std::str::from_utf8).transpose();
            value.map_err(|_| format!("{key} of Secret '{name}' is not text"))
        };
        let address = text("address")?.ok_or_else(|| format!("Secret '{name}' has no address"))?;
        let password = SecretString::from(text("password")?.unwrap_or_default());
        let settings = ProxySettings::new(address.trim(), text("username")?, &password)
            .map_err(|error| format!("Secret '{name}': {error}"))?;
        Ok(Self {
            settings,
            version: version(secret),
        })
    }

    fn wipe(secret: &mut Secret) {
        wipe(secret);
    }

    fn readings(known: &KnownReferents) -> &Readings<Self> {
        &known.proxies
    }
}
