//! kube-apiserver: its files (CA, certificates, keys, audit policy) and its process, which can be stopped and started.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{ClusterOptions, wait_ready, write};
use crate::{
    pki::{self, KeyAndCertificate, TestCa},
    process::{Guard, Guarded, free_port, write_private},
    servers,
};

/// Metadata of every request, once it is answered; a watch also when it begins. Of a list of Secrets, the answer as well, for
/// it has to be seen what was told in it.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: RequestResponse
  verbs: [list]
  resources: [{resources: [secrets]}]
- level: Metadata
";

/// What the API server reads at its start, in the cluster's folder.
#[derive(Clone)]
pub(super) struct Files {
    folder: PathBuf,
    pub(super) ca_pem: String,
    pub(super) admin: KeyAndCertificate,
    authentication: bool,
}

impl Files {
    pub(super) fn create(folder: &Path, options: &ClusterOptions) -> Result<Self> {
        let ca = TestCa::new("mintmark test cluster")?;
        let server = ca.server(&["kubernetes.default.svc"])?;
        write(&folder.join("ca.crt"), ca.pem())?;
        write(&folder.join("server.crt"), &server.certificate_pem)?;
        write_private(&folder.join("server.key"), server.key_pem)?;
        let (private, public) = pki::ec_key_pair()?;
        write_private(&folder.join("service-account.key"), private)?;
        write(&folder.join("service-account.pub"), &public)?;
        write(&folder.join("audit-policy.yaml"), AUDIT_POLICY)?;
        if let Some(config) = &options.authentication_config {
            write(&folder.join("authentication.yaml"), config)?;
        }
        Ok(Self {
            folder: folder.to_owned(),
            ca_pem: ca.pem().to_owned(),
            admin: ca.user("admin", "system:masters")?,
            authentication: options.authentication_config.is_some(),
        })
    }

    fn flag(&self, name: &str, file: &str) -> String {
        format!("--{name}={}", self.folder.join(file).display())
    }
}

/// The process and what it needs to start again.
#[derive(Debug)]
pub(super) struct ApiServer {
    process: Option<Guarded>,
    files: Files,
    port: u16,
    etcd: String,
    extra_flags: Vec<String>,
}

impl ApiServer {
    pub(super) async fn start(files: Files, etcd: &str, options: &ClusterOptions) -> Result<Self> {
        let (ca_pem, extra_flags) = (files.ca_pem.clone(), options.api_server_flags.clone());
        let mut server = Self {
            process: None,
            files,
            port: free_port()?,
            etcd: etcd.to_owned(),
            extra_flags,
        };
        server.spawn()?;
        wait_ready(&server.url(), &ca_pem, || server.check()).await?;
        Ok(server)
    }

    pub(super) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    pub(super) fn spawn(&mut self) -> Result<()> {
        let log = self.files.folder.join("kube-apiserver.log");
        let guard = Guard {
            name: "kube-apiserver",
            log: &log,
            grace: Duration::from_secs(2),
            remove: None,
            capture: false,
            environment: &[],
        };
        self.process = Some(guard.start(&servers::ensure()?.kube_apiserver, self.flags())?);
        Ok(())
    }

    pub(super) fn stop(&mut self) -> Result<()> {
        self.process.take().context("the API server is not running")?.stop()?;
        Ok(())
    }

    /// Fails when the process has ended by itself.
    pub(super) fn check(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("the API server is not running")?;
        match process.ended()? {
            Some(_) => Err(process.failure("ended")),
            None => Ok(()),
        }
    }

    fn flags(&self) -> Vec<String> {
        let (url, files) = (self.url(), &self.files);
        let mut flags = vec![
            "--bind-address=127.0.0.1".to_owned(),
            // No Endpoints object: a loopback address is refused there.
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--secure-port={}", self.port),
            format!("--etcd-servers={}", self.etcd),
            "--authorization-mode=RBAC".to_owned(),
            "--anonymous-auth=true".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--profiling=false".to_owned(),
            files.flag("cert-dir", "certs"),
            files.flag("client-ca-file", "ca.crt"),
            files.flag("tls-cert-file", "server.crt"),
            files.flag("tls-private-key-file", "server.key"),
            files.flag("service-account-key-file", "service-account.pub"),
            files.flag("service-account-signing-key-file", "service-account.key"),
            format!("--service-account-issuer={url}"),
            // Its default names another network interface.
            format!("--service-account-jwks-uri={url}/openid/v1/jwks"),
            files.flag("audit-policy-file", "audit-policy.yaml"),
            files.flag("audit-log-path", "audit.log"),
            // Written before a short answer is sent, so that who has the answer finds the line; never rotated.
            "--audit-log-mode=blocking-strict".to_owned(),
            "--audit-log-maxsize=0".to_owned(),
        ];
        if files.authentication {
            flags.push(files.flag("authentication-config", "authentication.yaml"));
        }
        flags.extend(self.extra_flags.iter().cloned());
        flags
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}
