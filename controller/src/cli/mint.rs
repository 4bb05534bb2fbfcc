//! `mintmark mint`: mints one credential from a key in a file, exactly as the controller would, and prints or writes it. No
//! cluster is needed; for trying out a registry and for emergencies.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use base64::{Engine, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use mintmark_issuer::{IssuerUrl, JwtRequest, ObjectRef, SystemRandom, X509Authority, X509Svid};
use secrecy::ExposeSecret;
use serde_json::json;

use super::{
    CliError, FlagError,
    flags::go_duration,
    offline::{KeyFlags, ObjectFlags, Output, key_alone, print},
};

/// Which credential.
#[derive(Debug, Subcommand)]
pub(super) enum MintCommand {
    /// Print a JWT-SVID.
    #[command(after_help = "Example:
  mintmark mint jwt --namespace team-a --name app --audience registry.example.org \\
    --spiffe-trust-domain example.org --spiffe-issuer https://mintmark.example.org --key tls.key")]
    Jwt(JwtFlags),
    /// Write an X.509-SVID: svid.pem (chain), svid.key (PKCS#8, mode 0600) and bundle.pem.
    #[command(after_help = "Example:
  mintmark mint x509 --namespace team-a --name app --spiffe-trust-domain example.org \\
    --key tls.key --cert tls.crt --output-dir svid
  curl --cert svid/svid.pem --key svid/svid.key https://registry.example.org/v2/")]
    X509(X509Flags),
}

/// Flags of `mint jwt`.
#[derive(Debug, Args)]
pub(super) struct JwtFlags {
    #[command(flatten)]
    object: ObjectFlags,
    #[command(flatten)]
    key: KeyFlags,
    /// Audience of the token (repeatable).
    #[arg(long = "audience", value_name = "AUDIENCE", required = true)]
    audiences: Vec<String>,
    /// Issuer of the token.
    #[arg(long, value_name = "URL")]
    spiffe_issuer: String,
    /// Accept an http issuer that is not on loopback.
    #[arg(long)]
    allow_insecure_issuer: bool,
    /// Life of the token.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = go_duration)]
    ttl: Duration,
    /// text or json.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// Flags of `mint x509`.
#[derive(Debug, Args)]
pub(super) struct X509Flags {
    #[command(flatten)]
    object: ObjectFlags,
    #[command(flatten)]
    key: KeyFlags,
    /// Folder for the files; created when missing.
    #[arg(long, value_name = "DIR")]
    output_dir: PathBuf,
    /// Life of the certificate.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = go_duration)]
    ttl: Duration,
    /// text or json.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// Mints and prints.
pub(super) fn run(command: &MintCommand) -> Result<(), CliError> {
    match command {
        MintCommand::Jwt(flags) => jwt(flags),
        MintCommand::X509(flags) => x509(flags),
    }
}

fn jwt(flags: &JwtFlags) -> Result<(), CliError> {
    let (domain, subject) = flags.object.identity()?;
    let issuer = IssuerUrl::parse(&flags.spiffe_issuer, flags.allow_insecure_issuer)
        .map_err(|error| FlagError::new("spiffe-issuer", error.to_string()))?;
    let secret = flags.key.read()?;
    let authority = if secret.tls_crt.is_empty() {
        // A key alone signs tokens; only certificates need a CA.
        key_alone(&secret)?
    } else {
        let authority = flags.key.authority(&domain)?;
        authority
            .jwt()
            .map_err(|error| FlagError::new("key", error.to_string()))?
            .clone()
    };
    let audiences: Vec<&str> = flags.audiences.iter().map(String::as_str).collect();
    let request = JwtRequest {
        subject: &subject,
        audiences: &audiences,
        issuer: &issuer,
        object: ObjectRef {
            kind: flags.object.kind.name(),
            namespace: &flags.object.namespace,
            name: &flags.object.name,
            uid: "",
        },
        ttl: SignedDuration::try_from(flags.ttl).unwrap_or(SignedDuration::MAX),
    };
    let svid = authority
        .mint(&request, Timestamp::now(), &SystemRandom::new())
        .context("could not mint")?;
    let token = svid.token.expose_secret();
    let details = json!({
        "token": token,
        "subject": subject.as_str(),
        "audiences": audiences,
        "keyID": svid.kid,
        "id": svid.jti,
        "expires": svid.expires_at.to_string(),
    });
    print(flags.output, token, &details)
}

fn x509(flags: &X509Flags) -> Result<(), CliError> {
    let (domain, subject) = flags.object.identity()?;
    let authority = flags.key.authority(&domain)?;
    let authority = authority
        .x509()
        .map_err(|error| FlagError::new("cert", error.to_string()))?;
    let ttl = SignedDuration::try_from(flags.ttl).unwrap_or(SignedDuration::MAX);
    let svid = authority
        .mint(&subject, ttl, Timestamp::now(), &SystemRandom::new())
        .context("could not mint")?;
    write(&flags.output_dir, &svid, authority)
        .with_context(|| format!("cannot write to {}", flags.output_dir.display()))?;
    let text = format!(
        "{subject}\nvalid until {}\nwritten to {}",
        svid.not_after,
        flags.output_dir.display()
    );
    let details = json!({
        "subject": subject.as_str(),
        "serial": svid.serial,
        "authorityID": svid.authority_id,
        "expires": svid.not_after.to_string(),
        "chain": flags.output_dir.join(CHAIN),
        "key": flags.output_dir.join(KEY),
        "bundle": flags.output_dir.join(BUNDLE),
    });
    print(flags.output, &text, &details)
}

const CHAIN: &str = "svid.pem";
const KEY: &str = "svid.key";
const BUNDLE: &str = "bundle.pem";

fn write(folder: &Path, svid: &X509Svid, authority: &X509Authority) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let chain: String = svid
        .chain
        .iter()
        .map(|certificate| pem("CERTIFICATE", certificate))
        .collect();
    fs::write(folder.join(CHAIN), chain)?;
    fs::write(folder.join(BUNDLE), pem("CERTIFICATE", authority.certificate()))?;
    // Made with its final mode: at no moment can others read it. An earlier one is replaced, whatever its mode was.
    let _ = fs::remove_file(folder.join(KEY));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(folder.join(KEY))?;
    file.write_all(zeroize::Zeroizing::new(pem("PRIVATE KEY", &svid.key)).as_bytes())
}

/// RFC 7468: base64 in lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text + &format!("-----END {label}-----\n")
}
