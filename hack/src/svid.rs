//! Second opinions on SVIDs: go-spiffe and go-oidc, through the program `svidcheck`.
//!
//! Our own code never verifies our own code alone. Each function returns what the checker established, or an error with
//! the reason it refused; a token goes to the checker by standard input, never as an argument.

use std::{ffi::OsString, path::Path, process::Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::servers;

/// What the checker found.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Verdict {
    ok: bool,
    error: String,
    /// The SPIFFE ID, or the `sub` claim.
    pub subject: String,
    /// The `aud` claim.
    pub audiences: Vec<String>,
    /// The `iss` claim, or the issuing CA's name.
    pub issuer: String,
    /// All claims of a JWT-SVID.
    pub claims: serde_json::Value,
    /// Length of the verified chain of an X.509-SVID, leaf and root included.
    pub chain: usize,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Subjects of the CAs in a bundle.
    pub x509_authorities: Vec<String>,
    /// Key ids of the JWT keys in a bundle, sorted.
    #[serde(rename = "jwtKeyIDs")]
    pub jwt_key_ids: Vec<String>,
    /// `spiffe_sequence` of a bundle.
    pub sequence: Option<u64>,
    /// `spiffe_refresh_hint` of a bundle, seconds.
    pub refresh_hint_seconds: Option<u64>,
}

/// A SPIFFE bundle to verify against.
#[derive(Debug, Clone, Copy)]
pub struct Bundle<'a> {
    /// Path of a bundle file, or http(s) URL of a bundle endpoint.
    pub source: &'a str,
    /// Its trust domain.
    pub trust_domain: &'a str,
}

impl Bundle<'_> {
    /// Parses the bundle.
    pub async fn parse(&self) -> Result<Verdict> {
        check(self.arguments("bundle"), None).await
    }

    /// Verifies an X.509-SVID: a PEM file, leaf first.
    pub async fn verify_x509(&self, chain: &Path) -> Result<Verdict> {
        let mut arguments = self.arguments("x509");
        arguments.extend(["-chain".into(), chain.as_os_str().to_owned()]);
        check(arguments, None).await
    }

    /// Verifies a JWT-SVID for any of these audiences.
    pub async fn verify_jwt(&self, token: &str, audiences: &[&str]) -> Result<Verdict> {
        let mut arguments = self.arguments("jwt");
        for audience in audiences {
            arguments.extend(["-audience".into(), audience.into()]);
        }
        check(arguments, Some(token)).await
    }

    fn arguments(&self, command: &str) -> Vec<OsString> {
        [command, "-bundle", self.source, "-trust-domain", self.trust_domain]
            .map(OsString::from)
            .to_vec()
    }
}

/// Verifies a token as an OIDC relying party would, from the issuer's discovery document on. `ca` is a PEM
/// file with the CA of the issuer's https endpoint.
pub async fn verify_oidc(issuer: &str, ca: Option<&Path>, token: &str, audience: &str) -> Result<Verdict> {
    let mut arguments = ["oidc", "-issuer", issuer, "-audience", audience]
        .map(OsString::from)
        .to_vec();
    if let Some(ca) = ca {
        arguments.extend(["-ca".into(), ca.as_os_str().to_owned()]);
    }
    check(arguments, Some(token)).await
}

async fn check(arguments: Vec<OsString>, token: Option<&str>) -> Result<Verdict> {
    let mut child = Command::new(&servers::ensure()?.svidcheck)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start svidcheck")?;
    if let (Some(mut input), Some(token)) = (child.stdin.take(), token) {
        input.write_all(token.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    let verdict: Verdict = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("svidcheck: {}", String::from_utf8_lossy(&output.stderr).trim()))?;
    if !verdict.ok {
        bail!("refused: {}", verdict.error);
    }
    Ok(verdict)
}
