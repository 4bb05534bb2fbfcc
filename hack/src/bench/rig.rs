//! What a fleet pulls from and presents: nothing over plain HTTP, or a minted token or certificate over TLS. The registry's
//! CA is one of the system's to the controller, so that no pass reads a Secret.

use std::{fs, path::PathBuf};

use anyhow::Result;
use mintmark_api::oci_repository::OciRepositorySpec;
use serde::Serialize;
use serde_json::json;

use super::objects::{TENANT, name};
use crate::{
    cluster::Cluster,
    controller::{self, Controller, Installation, Ports, SIGNING_SECRET},
    pki::TestCa,
    registry::{Artifact, ClientAuth, ClientCa, Issuer, RegistryOptions, RegistryServer},
};

const TRUST_DOMAIN: &str = "bench.example";
const AUDIENCE: &str = "registry.example";
const REPOSITORY: &str = "bench/app";

/// What the objects of a fleet present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
pub enum Presents {
    /// Nothing, over plain HTTP.
    Nothing,
    /// A JWT-SVID of each object's own, over TLS.
    #[value(name = "jwt")]
    SpiffeJwt,
    /// An X.509-SVID of each object's own.
    #[value(name = "certificate")]
    SpiffeCertificate,
}

impl Presents {
    /// For the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Nothing => "anonymous over plain HTTP",
            Self::SpiffeJwt => "SpiffeJWT over TLS",
            Self::SpiffeCertificate => "SpiffeCertificate over TLS",
        }
    }
}

/// A registry with one artifact, and the controller that pulls it.
pub struct Rig {
    pub registry: RegistryServer,
    pub controller: Controller,
    presents: Presents,
}

impl Rig {
    /// Starts both and waits until the controller is ready; `objects` may read.
    pub async fn start(
        cluster: &Cluster,
        installation: &Installation,
        presents: Presents,
        objects: usize,
    ) -> Result<Self> {
        let ca = TestCa::new("bench CA")?;
        controller::signing_secret(cluster, &installation.namespace, ca.key_and_certificate()).await?;
        let ports = Ports::free()?;
        let registry = registry(presents, ports, &ca).await?;
        if presents == Presents::Nothing {
            registry.allow_anonymous(REPOSITORY)?;
        } else {
            let subjects: Vec<String> = (0..objects)
                .map(|index| format!("spiffe://{TRUST_DOMAIN}/ocirepositories/{TENANT}/{}", name(index)))
                .collect();
            registry.set_readers(REPOSITORY, &subjects.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        let roots = write_roots(cluster, &registry)?;
        let issuer = format!("--spiffe-issuer={}", ports.issuer_url());
        let domain = format!("--spiffe-trust-domain={TRUST_DOMAIN}");
        let secret = format!("--spiffe-secret-name={SIGNING_SECRET}");
        let controller = Controller::start_with(
            &[("SSL_CERT_FILE", roots.display().to_string())],
            installation,
            ports,
            &["--log-level=error", &issuer, &domain, &secret],
        )?;
        controller.wait_ready().await?;
        Ok(Self {
            registry,
            controller,
            presents,
        })
    }

    /// The spec of every object.
    pub fn spec(&self, interval: std::time::Duration) -> Result<OciRepositorySpec> {
        let mut spec = json!({
            "url": self.registry.url(REPOSITORY),
            "ref": {"tag": "v1"},
            "interval": format!("{}s", interval.as_secs()),
        });
        let more = match self.presents {
            Presents::Nothing => json!({"insecure": true}),
            Presents::SpiffeJwt => json!({"credential": "SpiffeJWT", "audiences": [AUDIENCE]}),
            Presents::SpiffeCertificate => json!({"credential": "SpiffeCertificate"}),
        };
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        Ok(serde_json::from_value(spec)?)
    }
}

async fn registry(presents: Presents, ports: Ports, ca: &TestCa) -> Result<RegistryServer> {
    let tls = RegistryOptions {
        tls: true,
        ..RegistryOptions::default()
    };
    let registry = RegistryServer::start(match presents {
        Presents::Nothing => RegistryOptions::default(),
        Presents::SpiffeJwt => RegistryOptions {
            issuers: vec![Issuer::new(ports.issuer_url(), &[AUDIENCE])],
            ..tls
        },
        Presents::SpiffeCertificate => RegistryOptions {
            client_ca: Some(ClientCa {
                pem: ca.pem().to_owned(),
                auth: ClientAuth::Optional,
                reload: false,
            }),
            ..tls
        },
    })?;
    // Incompressible, so that the layer is as large as the content.
    let content: Vec<u8> = (0..4096).map(|_| rand::random()).collect();
    registry
        .push(REPOSITORY, "v1", &Artifact::from_files(&[("app.bin", &content)])?)
        .await?;
    Ok(registry)
}

fn write_roots(cluster: &Cluster, registry: &RegistryServer) -> Result<PathBuf> {
    let roots = cluster.folder().join("registry-ca.crt");
    fs::write(&roots, registry.ca_pem())?;
    Ok(roots)
}
