//! A real Zot, where its binary is given: by `ZOT`, else on the PATH. One process takes JWTs of OIDC issuers, another client
//! certificates by URI SAN; each has its own storage, which is filled before the start as an OCI image layout.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use reqwest::{Certificate, Client};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    digest,
    pki::{self, TestCa},
    place::Place,
    process::{Guard, Guarded, free_port, write_private},
    registry::{Artifact, CONFIG, Issuer, MANIFEST_MEDIA_TYPE},
};

/// Name of the variable that names the binary.
pub const ZOT_VARIABLE: &str = "ZOT";
const START_DEADLINE: Duration = Duration::from_mins(1);
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Whom a Zot believes.
#[derive(Debug, Clone)]
pub enum ZotAuth {
    /// JWTs of these issuers as bearer tokens; the subject is the user.
    Bearer(Vec<Issuer>),
    /// Client certificates of this CA (PEM); the URI SAN is the user.
    Certificate(String),
}

/// A repository with one artifact under one tag, and who may read it.
#[derive(Debug, Clone)]
pub struct ZotRepository<'a> {
    /// Its name.
    pub name: &'a str,
    /// The tag.
    pub tag: &'a str,
    /// What is there.
    pub artifact: &'a Artifact,
    /// The readers.
    pub readers: Vec<String>,
}

/// A running Zot over TLS. It ends when this is dropped or this process ends.
#[derive(Debug)]
pub struct Zot {
    process: Guarded,
    host: String,
    ca_pem: String,
    _folder: TempDir,
}

/// The binary, if there is one; an error when `ZOT` names a file that is not there.
pub fn find() -> Result<Option<PathBuf>> {
    if let Some(path) = env::var_os(ZOT_VARIABLE)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
    {
        if !path.is_file() {
            bail!("{ZOT_VARIABLE} is set, but there is no {}", path.display());
        }
        return Ok(Some(path));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::split_paths(&path)
        .map(|folder| folder.join("zot"))
        .find(|file| file.is_file()))
}

impl Zot {
    /// Starts a Zot and waits until it answers. Fails where no binary is given.
    pub async fn start(auth: ZotAuth, repositories: &[ZotRepository<'_>]) -> Result<Self> {
        let configure = |place: &Place| Ok(serde_json::to_string_pretty(&config(place, &auth, repositories)?)?);
        Self::start_configured(configure, repositories).await
    }

    /// The same with a configuration file that `configure` writes; it has to use what the place names. Readers of
    /// `repositories` are passed over.
    pub async fn start_configured(
        configure: impl FnOnce(&Place) -> Result<String>,
        repositories: &[ZotRepository<'_>],
    ) -> Result<Self> {
        let binary = find()?.context("no zot: set ZOT to its binary, or put it on the PATH")?;
        pki::install_provider();
        let folder = tempfile::Builder::new().prefix("mintmark-zot-").tempdir()?;
        let root = folder.path();
        let place = Place {
            folder: root.to_owned(),
            port: free_port()?,
        };
        for repository in repositories {
            seed(&place.storage(), repository)?;
        }
        let ca = TestCa::new("zot test CA")?;
        let server = ca.server(&[])?;
        write_private(&place.key(), &server.key_pem)?;
        fs::write(place.certificate(), &server.certificate_pem)?;
        fs::write(root.join("config.json"), configure(&place)?)?;
        let log = root.join("zot.log");
        let guard = Guard {
            name: "zot",
            log: &log,
            grace: Duration::from_secs(5),
            remove: Some(root),
            capture: false,
            environment: &[],
        };
        let process = guard.start(&binary, ["serve".as_ref(), root.join("config.json").as_os_str()])?;
        let mut zot = Self {
            process,
            host: format!("127.0.0.1:{}", place.port),
            ca_pem: ca.pem().to_owned(),
            _folder: folder,
        };
        zot.wait_ready().await?;
        Ok(zot)
    }

    /// The `spec.url` of a repository.
    pub fn url(&self, repository: &str) -> String {
        format!("oci://{}/{repository}", self.host)
    }

    /// The CA of its server certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Any answer will do: without a credential it is 401.
    async fn wait_ready(&mut self) -> Result<()> {
        let http = Client::builder()
            .no_proxy()
            .tls_certs_only([Certificate::from_pem(self.ca_pem.as_bytes())?])
            .build()?;
        let deadline = Instant::now() + START_DEADLINE;
        while http.get(format!("https://{}/v2/", self.host)).send().await.is_err() {
            if self.process.ended()?.is_some() {
                return Err(self.process.failure("ended"));
            }
            if Instant::now() >= deadline {
                return Err(self.process.failure("does not answer"));
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
        Ok(())
    }
}

/// Writes a repository as an OCI image layout, which is Zot's storage format.
fn seed(storage: &Path, repository: &ZotRepository<'_>) -> Result<()> {
    let folder = storage.join(repository.name);
    let blobs = folder.join("blobs").join("sha256");
    fs::create_dir_all(&blobs)?;
    fs::create_dir_all(folder.join(".uploads"))?;
    let write = |bytes: &[u8]| fs::write(blobs.join(digest::oci(bytes).trim_start_matches("sha256:")), bytes);
    let manifest = repository.artifact.manifest()?;
    write(CONFIG)?;
    write(&manifest)?;
    for layer in &repository.artifact.layers {
        write(&layer.data)?;
    }
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let index = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": MANIFEST_MEDIA_TYPE,
        "digest": digest::oci(&manifest),
        "size": manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": repository.tag},
    }]});
    fs::write(folder.join("index.json"), serde_json::to_vec(&index)?)?;
    Ok(())
}

fn config(place: &Place, auth: &ZotAuth, repositories: &[ZotRepository<'_>]) -> Result<Value> {
    let (root, port) = (place.folder.as_path(), place.port);
    let mut tls = json!({"cert": place.certificate(), "key": place.key()});
    let auth = match auth {
        ZotAuth::Bearer(issuers) => {
            let oidc = issuers
                .iter()
                .enumerate()
                .map(|(index, issuer)| oidc(root, index, issuer));
            let host = format!("127.0.0.1:{port}");
            json!({"bearer": {"realm": format!("https://{host}/zot/auth/token"), "service": host,
                "oidc": oidc.collect::<Result<Vec<_>>>()?}})
        }
        ZotAuth::Certificate(ca) => {
            let file = root.join("clients.crt");
            fs::write(&file, ca)?;
            if let Some(fields) = tls.as_object_mut() {
                fields.insert("cacert".to_owned(), json!(file));
            }
            json!({"mtls": {"identityAttributes": ["URI"], "uriSanPattern": "^(spiffe://.*)$"}})
        }
    };
    let policies = repositories.iter().map(|repository| {
        let policy = json!({"policies": [{"users": repository.readers, "actions": ["read"]}]});
        (repository.name.to_owned(), policy)
    });
    Ok(json!({
        "distSpecVersion": "1.1.1",
        "storage": {"rootDirectory": place.storage(), "gc": false},
        "http": {
            "address": "127.0.0.1",
            "port": port.to_string(),
            "tls": tls,
            "auth": auth,
            "accessControl": {"repositories": policies.collect::<serde_json::Map<_, _>>()},
        },
        "log": {"level": "info"},
    }))
}

fn oidc(root: &Path, index: usize, issuer: &Issuer) -> Result<Value> {
    let mut provider = json!({
        "issuer": issuer.url,
        "audiences": issuer.audiences,
        "claimMapping": {"username": "claims.sub"},
    });
    if let (Some(pem), Some(fields)) = (&issuer.ca_pem, provider.as_object_mut()) {
        let file = root.join(format!("issuer-{index}.crt"));
        fs::write(&file, pem)?;
        fields.insert("certificateAuthorityFile".to_owned(), json!(file));
    }
    Ok(provider)
}
