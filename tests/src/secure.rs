//! Fault registries over TLS on loopback, with one CA that objects learn from a Secret.

use std::net::Ipv4Addr;

use anyhow::Result;

use crate::{
    env::Env,
    fault_registry::{Authority, ClientAuth, FaultRegistry, Tls},
    specs::REGISTRY_CA,
};

/// The CA of some registries.
pub struct ServerCa(Authority);

impl ServerCa {
    /// Makes the CA and puts it into the Secret that [`crate::specs`] names.
    pub async fn new(env: &Env, namespace: &str) -> Result<Self> {
        let authority = Authority::new("registry CA");
        env.secret(namespace, REGISTRY_CA, &[("ca.crt", &authority.pem())])
            .await?;
        Ok(Self(authority))
    }

    /// Its certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The CA itself.
    pub fn authority(&self) -> &Authority {
        &self.0
    }

    /// Starts a registry on 127.0.0.1.
    pub async fn registry(&self, client_auth: ClientAuth) -> FaultRegistry {
        self.registry_at(Ipv4Addr::LOCALHOST, client_auth).await
    }

    /// Starts a registry on another address of this machine.
    pub async fn registry_at(&self, address: Ipv4Addr, client_auth: ClientAuth) -> FaultRegistry {
        let tls = Tls {
            leaf: self.0.server(&[&address.to_string()]),
            client_auth,
            tls12_only: false,
        };
        FaultRegistry::start_at(address.into(), Some(tls)).await
    }
}
