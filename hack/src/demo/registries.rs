//! The two registries of the samples, both over TLS: one takes tokens, one takes client certificates. Each repository is
//! seeded with an artifact of its owner and may be read by its owner alone.

use std::collections::BTreeMap;

use anyhow::Result;

use super::samples::{AUDIENCE, CERTIFICATE_HOST, Sample, TOKEN_HOST};
use crate::{
    pki::TestCa,
    registry::{AccessEntry, Artifact, ClientAuth, ClientCa, Issuer, RegistryOptions, RegistryServer},
};

/// The file in each artifact.
pub const SEEDED_FILE: &str = "configmap.yaml";

/// The annotation that tells an artifact's version.
const VERSION: &str = "org.opencontainers.image.version";

/// Whom the registries believe.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trust {
    /// The controller's issuer, the cluster's issuer, and the CA in the signing Secret.
    #[default]
    Tenants,
    /// Nobody: every pull must fail, and the demo must say so.
    Nobody,
}

/// Both registries and what they were seeded with.
#[derive(Debug)]
pub struct Registries {
    tokens: RegistryServer,
    certificates: RegistryServer,
    revisions: BTreeMap<String, String>,
}

impl Registries {
    /// Starts both. `signing_ca` is the CA in the signing Secret, PEM; `issuers` are the URLs whose tokens are taken.
    pub fn start(trust: Trust, issuers: Vec<Issuer>, signing_ca: &str) -> Result<Self> {
        let stranger = TestCa::new("nobody's CA")?;
        let (issuers, client_ca) = match trust {
            Trust::Tenants => (issuers, signing_ca),
            Trust::Nobody => (Vec::new(), stranger.pem()),
        };
        let tokens = RegistryServer::start(RegistryOptions {
            tls: true,
            issuers,
            ..RegistryOptions::default()
        })?;
        let certificates = RegistryServer::start(RegistryOptions {
            tls: true,
            client_ca: Some(ClientCa {
                pem: client_ca.to_owned(),
                auth: ClientAuth::Optional,
                reload: false,
            }),
            ..RegistryOptions::default()
        })?;
        Ok(Self {
            tokens,
            certificates,
            revisions: BTreeMap::new(),
        })
    }

    /// The issuer at this URL, for the audience of the samples.
    pub fn issuer(url: impl Into<String>) -> Issuer {
        Issuer::new(url, &[AUDIENCE])
    }

    /// Pushes an artifact for each tag into each owner's repository and makes the owner its only reader.
    pub async fn seed(&mut self, samples: &[Sample]) -> Result<()> {
        for sample in samples.iter().filter(|sample| sample.is_owner()) {
            let Some(registry) = self.registry(&sample.host) else {
                continue;
            };
            registry.set_readers(&sample.repository, &[&sample.subject])?;
            let artifact = Artifact::from_files(&[(SEEDED_FILE, contents(&sample.repository).as_bytes())])?;
            let mut revision = String::new();
            for tag in &sample.tags {
                // Of each tag another digest.
                let artifact = artifact.clone().annotate(VERSION, tag);
                let pushed = registry.push(&sample.repository, tag, &artifact).await?;
                revision = format!("{tag}@{}", pushed.digest);
            }
            self.revisions.insert(sample.repository.clone(), revision);
        }
        Ok(())
    }

    /// Where the registry of this host in the samples really listens.
    pub fn address(&self, host: &str) -> Option<&str> {
        self.registry(host).map(RegistryServer::address)
    }

    /// The CAs of both registries' certificates.
    pub fn ca_pem(&self) -> String {
        format!("{}{}", self.tokens.ca_pem(), self.certificates.ca_pem())
    }

    /// What the owner of a repository must come to, `<tag>@<digest>` of the last of its tags.
    pub fn revision(&self, repository: &str) -> Option<&str> {
        self.revisions.get(repository).map(String::as_str)
    }

    /// What a host's registry was asked about a repository, except by its administrator.
    pub fn asked(&self, host: &str, repository: &str) -> Result<Vec<AccessEntry>> {
        let Some(registry) = self.registry(host) else {
            return Ok(Vec::new());
        };
        let prefix = format!("/v2/{repository}/");
        let entries = registry.access_log()?.into_iter();
        Ok(entries
            .filter(|entry| entry.path.starts_with(&prefix) && entry.subject != crate::registry::ADMIN)
            .collect())
    }

    /// The origins of both: tokens, certificates.
    pub fn origins(&self) -> (&str, &str) {
        (self.tokens.origin(), self.certificates.origin())
    }

    /// Ends both and waits until they have ended.
    pub fn end(self) -> Result<()> {
        self.tokens.stop().and(self.certificates.stop())
    }

    fn registry(&self, host: &str) -> Option<&RegistryServer> {
        match host {
            TOKEN_HOST => Some(&self.tokens),
            CERTIFICATE_HOST => Some(&self.certificates),
            _ => None,
        }
    }
}

/// What [`SEEDED_FILE`] of a repository says.
pub fn contents(repository: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {}\ndata:\n  from: {repository}\n",
        repository.replace('/', "-")
    )
}
