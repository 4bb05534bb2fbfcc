//! Objects of one kind of credential and the registry that verifies them in one way.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use mintmark_hack::registry::{Artifact, ClientAuth, ClientCa, Issuer, Keys as Learn, RegistryOptions, RegistryServer};
use serde_json::{Value, json};

use super::{keys::Keys, seen::Seen};
use crate::{
    env::{AUDIENCE, Env},
    front::Front,
    specs,
};

/// The repository that all objects of a group pull.
const REPOSITORY: &str = "team/app";

/// Much longer than the interval of the objects: each is told to connect again before their registry restarts.
const DRAIN: Duration = Duration::from_secs(10);

/// How a registry learns whom to trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verifier {
    /// Tokens; it reads the keys when a token names an unknown one, as go-oidc does.
    Refetching,
    /// Tokens; it reads the keys when its last reading is so many seconds old, and never for an unknown one.
    Polling(u32),
    /// Client certificates; it reads the CAs from a file at its start and never again.
    CaFile,
}

/// A registry and the objects that pull from it.
#[derive(Debug)]
pub struct Group {
    pub(super) verifier: Verifier,
    pub(super) registry: Arc<RegistryServer>,
    front: Option<Front>,
    /// Names of the objects.
    pub(super) names: Vec<String>,
    /// What the registry saw.
    pub seen: Seen,
}

impl Group {
    pub(super) async fn new(env: &Env, issuer: &str, verifier: Verifier, names: Vec<String>) -> Result<Self> {
        let issuer = |keys| {
            vec![Issuer {
                keys,
                ..Issuer::new(issuer, &[AUDIENCE])
            }]
        };
        let options = match verifier {
            Verifier::Refetching => RegistryOptions {
                issuers: issuer(Learn::OnUnknown),
                ..RegistryOptions::default()
            },
            Verifier::Polling(seconds) => RegistryOptions {
                issuers: issuer(Learn::Poll(seconds)),
                ..RegistryOptions::default()
            },
            Verifier::CaFile => RegistryOptions {
                tls: true,
                drain: DRAIN,
                client_ca: Some(ClientCa {
                    pem: env.ca.pem().to_owned(),
                    auth: ClientAuth::Optional,
                    reload: false,
                }),
                ..RegistryOptions::default()
            },
        };
        let registry = Arc::new(RegistryServer::start(options)?);
        let front = match verifier {
            Verifier::CaFile => Some(Front::new(registry.address()).await?),
            _ => None,
        };
        Ok(Self {
            verifier,
            registry,
            front,
            names,
            seen: Seen::default(),
        })
    }

    /// Creates the Secret and the readers' list that its objects need, then the objects.
    pub(super) async fn create(&self, env: &Env, namespace: &str, interval: &str) -> Result<()> {
        let subjects: Vec<_> = self.names.iter().map(|name| Env::spiffe_id(namespace, name)).collect();
        self.registry
            .set_readers(REPOSITORY, &subjects.iter().map(String::as_str).collect::<Vec<_>>())?;
        if self.verifier == Verifier::CaFile {
            env.secret(namespace, specs::REGISTRY_CA, &[("ca.crt", self.registry.ca_pem())])
                .await?;
        }
        for name in &self.names {
            env.create(namespace, name, self.spec(interval)).await?;
        }
        Ok(())
    }

    fn spec(&self, interval: &str) -> Value {
        let url = match &self.front {
            Some(front) => format!("oci://{}/{REPOSITORY}", front.address()),
            None => self.registry.url(REPOSITORY),
        };
        let mut spec = match self.verifier {
            Verifier::CaFile => specs::certificate(&url),
            Verifier::Refetching | Verifier::Polling(_) => specs::jwt(&url),
        };
        if let Some(fields) = spec.as_object_mut() {
            fields.insert("interval".into(), json!(interval));
        }
        spec
    }

    /// Pushes under the tag of all objects and returns the revision.
    pub(super) async fn push(&self, artifact: &Artifact) -> Result<String> {
        let pushed = self.registry.push(REPOSITORY, "v1", artifact).await?;
        Ok(format!("v1@{}", pushed.digest))
    }

    /// Gives the registry another CA file and restarts it, as its operator does who loses no request: what is connected gets
    /// its answers and is told to connect again, new connections wait until it is back.
    pub async fn restart_with(&self, ca: &str) -> Result<()> {
        if let Some(front) = &self.front {
            front.hold();
        }
        let registry = self.registry.clone();
        let ca = ca.to_owned();
        // It blocks, and the front leads connections in this runtime.
        tokio::task::spawn_blocking(move || {
            registry.set_client_ca(&ca)?;
            registry.stop()?;
            registry.resume()
        })
        .await??;
        match &self.front {
            Some(front) => front.lead_to(self.registry.address()),
            None => Ok(()),
        }
    }

    /// The name of this key in the registry's access log.
    pub fn key<'a>(&self, keys: &'a Keys) -> &'a str {
        match self.verifier {
            Verifier::CaFile => &keys.key_identifier,
            Verifier::Refetching | Verifier::Polling(_) => &keys.kid,
        }
    }

    /// Whether the objects present certificates.
    pub fn is_x509(&self) -> bool {
        self.verifier == Verifier::CaFile
    }

    /// Everything that the registry refused.
    pub fn refused(&self) -> Result<Vec<String>> {
        let mut refused = self.seen.refused().to_vec();
        refused.extend(self.registry.refused_handshakes()?);
        Ok(refused)
    }
}
