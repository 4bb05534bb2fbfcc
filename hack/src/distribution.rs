//! The CNCF distribution registry with a configuration file of the caller's, empty storage and TLS. Its token access controller
//! and its TLS server are its own: what `mintmark trust distribution` prints is meant for exactly this.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Result;
use tempfile::TempDir;

use crate::{
    pki::TestCa,
    place::Place,
    process::{Guard, Guarded, free_port, write_private},
    servers,
};

const START_DEADLINE: Duration = Duration::from_mins(1);
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// A running registry. It ends when this is dropped or this process ends.
#[derive(Debug)]
pub struct Distribution {
    process: Guarded,
    port: u16,
    ca_pem: String,
    _folder: TempDir,
}

impl Distribution {
    /// Starts a registry with the file (YAML) that `configure` writes, and waits until it listens.
    pub async fn start(configure: impl FnOnce(&Place) -> Result<String>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mintmark-distribution-").tempdir()?;
        let place = Place {
            folder: folder.path().to_owned(),
            port: free_port()?,
        };
        let ca = TestCa::new("distribution test CA")?;
        let server = ca.server(&[])?;
        write_private(&place.key(), &server.key_pem)?;
        fs::write(place.certificate(), &server.certificate_pem)?;
        let file = folder.path().join("config.yml");
        fs::write(&file, configure(&place)?)?;
        let log = folder.path().join("distribution.log");
        let guard = Guard {
            name: "distribution",
            log: &log,
            grace: Duration::from_secs(5),
            remove: Some(folder.path()),
            capture: false,
            // Else it looks for a collector.
            environment: &[("OTEL_TRACES_EXPORTER", "none")],
        };
        let process = guard.start(&servers::ensure()?.distribution, [file.as_os_str()])?;
        let mut registry = Self {
            process,
            port: place.port,
            ca_pem: ca.pem().to_owned(),
            _folder: folder,
        };
        registry.wait_listening().await?;
        Ok(registry)
    }

    /// `https://127.0.0.1:<port>`.
    pub fn origin(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The CA of its server certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    async fn wait_listening(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            if self.process.ended()?.is_some() {
                return Err(self.process.failure("ended"));
            }
            if Instant::now() >= deadline {
                return Err(self.process.failure("does not listen"));
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
        Ok(())
    }
}
