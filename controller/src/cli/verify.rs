//! `mintmark verify`: checks a credential against a published bundle, as a registry would, and says who it speaks for. Ends
//! with status 1 when it is refused.

use std::{io::Read, path::PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use mintmark_issuer::TrustBundle;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;

use super::{
    CliError, FlagError,
    offline::{Output, print, read, trust_domain},
};

/// Which credential.
#[derive(Debug, Subcommand)]
pub(super) enum VerifyCommand {
    /// Verify a JWT-SVID from standard input or a file.
    #[command(after_help = "Example:
  mintmark mint jwt … | mintmark verify jwt --bundle bundle.json --spiffe-trust-domain example.org \\
    --audience registry.example.org")]
    Jwt(JwtFlags),
    /// Verify an X.509-SVID: a PEM file with the leaf first.
    #[command(after_help = "Example:
  mintmark verify x509 --bundle svid/bundle.pem --spiffe-trust-domain example.org --chain svid/svid.pem")]
    X509(X509Flags),
}

/// What is trusted.
#[derive(Debug, Args)]
struct BundleFlags {
    /// SPIFFE bundle (JSON), JWKS, or CA certificates (PEM).
    #[arg(long, value_name = "FILE")]
    bundle: PathBuf,
    /// Trust domain that the credential must belong to.
    #[arg(long, value_name = "TRUST_DOMAIN")]
    spiffe_trust_domain: String,
    /// text or json.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

impl BundleFlags {
    fn read(&self) -> Result<TrustBundle, FlagError> {
        TrustBundle::parse(&read("bundle", &self.bundle)?).map_err(|error| FlagError::new("bundle", error.to_string()))
    }
}

/// Flags of `verify jwt`.
#[derive(Debug, Args)]
pub(super) struct JwtFlags {
    #[command(flatten)]
    bundle: BundleFlags,
    /// Audience that the token must name.
    #[arg(long)]
    audience: Option<String>,
    /// File with the token; standard input when absent.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Flags of `verify x509`.
#[derive(Debug, Args)]
pub(super) struct X509Flags {
    #[command(flatten)]
    bundle: BundleFlags,
    /// The chain, PEM; standard input when absent.
    #[arg(long, value_name = "FILE")]
    chain: Option<PathBuf>,
}

/// Verifies and prints whom the credential speaks for.
pub(super) fn run(command: &VerifyCommand) -> Result<(), CliError> {
    match command {
        VerifyCommand::Jwt(flags) => jwt(flags),
        VerifyCommand::X509(flags) => x509(flags),
    }
}

fn jwt(flags: &JwtFlags) -> Result<(), CliError> {
    let domain = trust_domain(&flags.bundle.spiffe_trust_domain)?;
    let bundle = flags.bundle.read()?;
    let token = input("token-file", flags.token_file.as_ref())?;
    let token = std::str::from_utf8(&token).map_err(|_| FlagError::new("token-file", "is not text"))?;
    let verified = bundle
        .verify_jwt(token.trim(), &domain, flags.audience.as_deref(), Timestamp::now())
        .map_err(|error| anyhow!("refused: {error}"))?;
    let json = json!({
        "subject": verified.subject.as_str(),
        "audiences": verified.audiences,
        "issuer": verified.issuer,
        "expires": verified.expires_at.to_string(),
    });
    print(
        flags.bundle.output,
        &format!("{} until {}", verified.subject, verified.expires_at),
        &json,
    )
}

fn x509(flags: &X509Flags) -> Result<(), CliError> {
    let domain = trust_domain(&flags.bundle.spiffe_trust_domain)?;
    let bundle = flags.bundle.read()?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&input("chain", flags.chain.as_ref())?)
        .collect::<Result<_, _>>()
        .map_err(|error| FlagError::new("chain", format!("is not PEM: {error}")))?;
    let verified = bundle
        .verify_x509(&chain, &domain, Timestamp::now())
        .map_err(|error| anyhow!("refused: {error}"))?;
    let json = json!({
        "subject": verified.subject.as_str(),
        "serial": verified.serial,
        "expires": verified.not_after.to_string(),
    });
    print(
        flags.bundle.output,
        &format!("{} until {}", verified.subject, verified.not_after),
        &json,
    )
}

fn input(flag: &'static str, path: Option<&PathBuf>) -> Result<Vec<u8>, CliError> {
    if let Some(path) = path {
        return Ok(read(flag, path)?);
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .read_to_end(&mut bytes)
        .context("cannot read standard input")?;
    Ok(bytes)
}
