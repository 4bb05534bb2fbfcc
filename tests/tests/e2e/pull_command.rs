//! `mintmark pull`: what the controller would serve, from a file and without a cluster, on the real registry.

use std::{fs, path::Path, process::Output};

use anyhow::Result;
use mintmark_hack::{
    controller,
    pki::TestCa,
    registry::{Artifact, ClientAuth, ClientCa, RegistryOptions, RegistryServer},
};
use mintmark_tests::env::{Env, TRUST_DOMAIN};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Desk {
    folder: TempDir,
    registry: RegistryServer,
}

impl Desk {
    /// A registry that lets `team-a/app` in by its certificate, and files for it.
    async fn new() -> Result<Self> {
        let (folder, ca) = (tempfile::tempdir()?, TestCa::new("desk CA")?);
        let pair = ca.key_and_certificate();
        let signing = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "signing"},
            "stringData": {"tls.key": pair.key_pem, "tls.crt": pair.certificate_pem}});
        fs::write(folder.path().join("signing.yaml"), signing.to_string())?;
        let registry = RegistryServer::start(RegistryOptions {
            tls: true,
            client_ca: Some(ClientCa {
                pem: ca.pem().to_owned(),
                auth: ClientAuth::Optional,
                reload: false,
            }),
            ..RegistryOptions::default()
        })?;
        registry.set_readers("app", &[&Env::spiffe_id("team-a", "app")])?;
        let files: [(&str, &[u8]); 2] = [("deploy/app.yaml", b"kind: App"), (".git/config", b"left out")];
        registry.push("app", "v1", &Artifact::from_files(&files)?).await?;
        Ok(Self { folder, registry })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The object of `namespace` and the Secret with the registry's CA, as two YAML documents.
    fn write(&self, namespace: &str) -> Result<()> {
        let object = json!({"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "OCIRepository",
            "metadata": {"name": "app", "namespace": namespace},
            "spec": {"url": self.registry.url("app"), "interval": "1m", "ref": {"tag": "v1"},
                "credential": "SpiffeCertificate", "certSecretRef": {"name": "ca"}}});
        let ca = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "ca", "namespace": namespace},
            "stringData": {"ca.crt": self.registry.ca_pem()}});
        fs::write(self.path().join("app.yaml"), format!("{object}\n---\n{ca}\n"))?;
        Ok(())
    }

    fn pull(&self, more: &str) -> Result<Output> {
        let line =
            format!("pull -f app.yaml --output out --key signing.yaml --spiffe-trust-domain {TRUST_DOMAIN} {more}");
        let mut command = std::process::Command::new(controller::binary()?);
        let output = command
            .args(line.split_whitespace())
            .current_dir(self.path())
            .output()?;
        for stream in [&output.stdout, &output.stderr] {
            assert!(!String::from_utf8_lossy(stream).contains("PRIVATE KEY"));
        }
        Ok(output)
    }
}

fn line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

#[tokio::test]
async fn what_would_be_served_is_unpacked() -> Result<()> {
    let desk = Desk::new().await?;
    desk.write("team-a")?;
    let output = desk.pull("--print json")?;
    assert!(output.status.success(), "{}", line(&output.stderr));
    let result: Value = serde_json::from_slice(&output.stdout)?;
    assert!(
        result["revision"]
            .as_str()
            .is_some_and(|revision| revision.starts_with("v1@sha256:"))
    );
    assert_eq!(result["files"], 1);
    assert_eq!(fs::read(desk.path().join("out/deploy/app.yaml"))?, b"kind: App");
    assert!(!desk.path().join("out/.git").exists(), "left out by the built-in rules");

    let again = desk.pull("")?;
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(line(&again.stderr), "mintmark: --output: out: is not empty");
    Ok(())
}

#[tokio::test]
async fn what_a_pass_would_refuse_is_refused() -> Result<()> {
    let desk = Desk::new().await?;
    desk.write("team-b")?;
    let output = desk.pull("")?;
    assert_eq!(output.status.code(), Some(1));
    let said = line(&output.stderr);
    assert!(
        said.starts_with("mintmark: AuthenticationFailed: ") && !said.contains('\n'),
        "{said}"
    );
    assert!(
        said.contains("403"),
        "another object's identity may not read it: {said}"
    );

    let text = fs::read_to_string(desk.path().join("app.yaml"))?;
    fs::write(
        desk.path().join("app.yaml"),
        text.replace("\"interval\"", "\"verify\":{\"provider\":\"cosign\"},\"interval\""),
    )?;
    let output = desk.pull("")?;
    assert_eq!(output.status.code(), Some(1));
    assert!(line(&output.stderr).starts_with("mintmark: VerificationNotSupported: "));
    assert_eq!(fs::read_dir(desk.path().join("out"))?.count(), 0);
    Ok(())
}
