//! The commands that need no cluster: what they mint is taken by go-spiffe, what they refuse ends with status 1, a mistake in
//! a flag with status 2, and nothing secret is printed but the credential that was asked for.

use std::{fs, path::Path, process::Output};

use anyhow::{Context, Result};
use mintmark_hack::{controller, pki::TestCa, svid::Bundle};
use mintmark_tests::env::{AUDIENCE, TRUST_DOMAIN};
use serde_json::Value;
use tempfile::TempDir;

const SUBJECT: &str = "spiffe://cluster.example/ocirepositories/team-a/app";
const ISSUER: &str = "https://issuer.example";

struct Desk {
    folder: TempDir,
    ca: TestCa,
}

impl Desk {
    /// A folder with a signing key and its CA certificate.
    fn new() -> Result<Self> {
        let (folder, ca) = (tempfile::tempdir()?, TestCa::new("command line CA")?);
        let pair = ca.key_and_certificate();
        fs::write(folder.path().join("tls.key"), &pair.key_pem)?;
        fs::write(folder.path().join("tls.crt"), &pair.certificate_pem)?;
        Ok(Self { folder, ca })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn run(&self, line: &str) -> Result<Output> {
        let mut command = std::process::Command::new(controller::binary()?);
        Ok(command
            .args(line.split_whitespace())
            .current_dir(self.path())
            .output()?)
    }

    /// The standard output of a command that succeeds.
    fn text(&self, line: &str) -> Result<String> {
        let output = self.run(line)?;
        anyhow::ensure!(
            output.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    fn jwt(&self, more: &str) -> Result<String> {
        self.text(&format!(
            "mint jwt --namespace team-a --name app --audience {AUDIENCE} --spiffe-trust-domain {TRUST_DOMAIN} \
             --spiffe-issuer {ISSUER} --key tls.key {more}"
        ))
    }

    fn export(&self) -> Result<()> {
        let line = format!(
            "keys export --dir site --key tls.key --cert tls.crt --spiffe-trust-domain {TRUST_DOMAIN} --spiffe-issuer {ISSUER}"
        );
        self.text(&line).map(drop)
    }

    /// The bundle that [`Desk::export`] wrote, for go-spiffe.
    fn bundle(&self) -> String {
        self.path().join("site/spiffe/bundle.json").display().to_string()
    }
}

#[tokio::test]
async fn a_minted_jwt_is_taken_by_go_spiffe_against_the_exported_bundle() -> Result<()> {
    let desk = Desk::new()?;
    desk.export()?;
    let token = desk.jwt("")?;
    let source = desk.bundle();
    let bundle = Bundle {
        source: &source,
        trust_domain: TRUST_DOMAIN,
    };
    assert_eq!(bundle.verify_jwt(&token, &[AUDIENCE]).await?.subject, SUBJECT);
    assert!(bundle.verify_jwt(&token, &["other"]).await.is_err());
    let json: Value = serde_json::from_str(&desk.jwt("--cert tls.crt -o json")?)?;
    assert_eq!(json["subject"], SUBJECT);
    let token = json["token"].as_str().context("a token")?;
    assert_eq!(bundle.verify_jwt(token, &[AUDIENCE]).await?.subject, SUBJECT);
    let discovery: Value =
        serde_json::from_slice(&fs::read(desk.path().join("site/.well-known/openid-configuration"))?)?;
    assert_eq!(discovery["issuer"], ISSUER);
    Ok(())
}

#[tokio::test]
async fn a_minted_certificate_is_taken_by_go_spiffe_and_its_key_is_private() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new()?;
    desk.export()?;
    let line = format!(
        "mint x509 --namespace team-a --name app --spiffe-trust-domain {TRUST_DOMAIN} --key tls.key --cert tls.crt --output-dir svid"
    );
    let printed = desk.text(&line)?;
    assert!(!printed.contains("PRIVATE KEY"), "{printed}");
    let source = desk.bundle();
    let bundle = Bundle {
        source: &source,
        trust_domain: TRUST_DOMAIN,
    };
    assert_eq!(
        bundle.verify_x509(&desk.path().join("svid/svid.pem")).await?.subject,
        SUBJECT
    );
    let mode = fs::metadata(desk.path().join("svid/svid.key"))?.permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        fs::read_to_string(desk.path().join("svid/bundle.pem"))?.trim(),
        desk.ca.pem().trim()
    );
    // Once more over the first: a key file is replaced, never appended to.
    desk.text(&line)?;
    bundle.verify_x509(&desk.path().join("svid/svid.pem")).await?;
    Ok(())
}

#[test]
fn verify_says_whom_a_credential_speaks_for_and_refuses_with_status_1() -> Result<()> {
    let desk = Desk::new()?;
    desk.export()?;
    fs::write(desk.path().join("token"), desk.jwt("")?)?;
    let verify =
        format!("verify jwt --bundle site/spiffe/bundle.json --spiffe-trust-domain {TRUST_DOMAIN} --token-file token");
    assert!(
        desk.text(&format!("{verify} --audience {AUDIENCE}"))?
            .starts_with(SUBJECT)
    );
    let refused = desk.run(&format!("{verify} --audience other"))?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr)?.contains("refused"));
    let other = desk.run(&verify.replace(TRUST_DOMAIN, "other.example"))?;
    assert_eq!(other.status.code(), Some(1));
    let mistake = desk.run(&verify.replace("site/spiffe/bundle.json", "nothing"))?;
    assert_eq!(mistake.status.code(), Some(2));
    assert!(String::from_utf8(mistake.stderr)?.contains("--bundle"));
    Ok(())
}

#[test]
fn a_secret_manifest_stands_for_its_key_and_certificate_and_nothing_secret_is_shown() -> Result<()> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let desk = Desk::new()?;
    let pair = desk.ca.key_and_certificate();
    let (key, certificate) = (STANDARD.encode(&pair.key_pem), STANDARD.encode(&pair.certificate_pem));
    let manifest = format!("apiVersion: v1\nkind: Secret\ndata:\n  tls.key: {key}\n  tls.crt: {certificate}\n");
    fs::write(desk.path().join("secret.yaml"), manifest)?;
    let shown = desk.text(&format!(
        "keys show --key secret.yaml --spiffe-trust-domain {TRUST_DOMAIN} -o json"
    ))?;
    let json: Value = serde_json::from_str(&shown)?;
    assert!(
        json["jwt"]["keyID"].is_string() && json["x509"]["authorityID"].is_string(),
        "{shown}"
    );
    let body: Vec<&str> = pair.key_pem.lines().filter(|line| !line.starts_with('-')).collect();
    assert!(body.iter().all(|line| !shown.contains(line)));
    fs::write(desk.path().join("garbage.yaml"), format!("kind: Secret\ndata: [{key}"))?;
    let refused = desk.run(&format!(
        "keys show --key garbage.yaml --spiffe-trust-domain {TRUST_DOMAIN}"
    ))?;
    assert_eq!(refused.status.code(), Some(2));
    let error = String::from_utf8(refused.stderr)?;
    assert!(error.contains("--key") && !error.contains(&key), "{error}");
    Ok(())
}
