//! `mintmark keys`: shows what a key is, and writes the documents that registries fetch, for those who host them elsewhere.
//! Only public halves are ever printed or written.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use mintmark_issuer::{Authority, DocumentInput, Documents, IssuerUrl, Jwk, PrivateKey};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;

use super::{
    CliError, FlagError,
    offline::{KeyFlags, Output, print, read, trust_domain},
};

/// The default of `--spiffe-key-overlap`: it decides how often verifiers are told to ask.
const JWT_OVERLAP: Duration = Duration::from_mins(5);

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Show a key's kind and ids, and whether it can sign tokens and certificates.
    #[command(after_help = "Example:
  kubectl get secret mintmark-signing -n mintmark-system -o yaml > secret.yaml
  mintmark keys show --key secret.yaml --spiffe-trust-domain example.org")]
    Show(ShowFlags),
    /// Write discovery, JWKS and bundle as files, at the paths they are served at.
    #[command(after_help = "Example:
  mintmark keys export --dir site --key tls.key --cert tls.crt \\
    --spiffe-trust-domain example.org --spiffe-issuer https://mintmark.example.org")]
    Export(ExportFlags),
}

/// Flags of `keys show`.
#[derive(Debug, Args)]
pub(super) struct ShowFlags {
    #[command(flatten)]
    key: KeyFlags,
    /// Trust domain that the CA must belong to.
    #[arg(long, value_name = "TRUST_DOMAIN")]
    spiffe_trust_domain: String,
    /// text or json.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// Flags of `keys export`.
#[derive(Debug, Args)]
pub(super) struct ExportFlags {
    /// Folder for the files; created when missing.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Private key whose public half is published (repeatable: keys that sign, and keys that will).
    #[arg(long = "key", value_name = "FILE", required = true)]
    keys: Vec<PathBuf>,
    /// CA that is published (repeatable).
    #[arg(long = "cert", value_name = "FILE")]
    certs: Vec<PathBuf>,
    /// Trust domain of the identities.
    #[arg(long, value_name = "TRUST_DOMAIN")]
    spiffe_trust_domain: String,
    /// Issuer of the tokens.
    #[arg(long, value_name = "URL")]
    spiffe_issuer: String,
    /// Accept an http issuer that is not on loopback.
    #[arg(long)]
    allow_insecure_issuer: bool,
}

/// Shows or exports.
pub(super) fn run(command: &KeysCommand) -> Result<(), CliError> {
    match command {
        KeysCommand::Show(flags) => show(flags),
        KeysCommand::Export(flags) => export(flags),
    }
}

fn show(flags: &ShowFlags) -> Result<(), CliError> {
    let domain = trust_domain(&flags.spiffe_trust_domain)?;
    let authority: Authority = flags.key.authority(&domain)?;
    let jwt = authority
        .jwt()
        .map(|jwt| jwt.kid().to_owned())
        .map_err(ToString::to_string);
    let x509 = authority
        .x509()
        .map(|x509| x509.id().to_owned())
        .map_err(ToString::to_string);
    let advisories: Vec<_> = authority.advisories().iter().map(ToString::to_string).collect();
    let line = |what: &str, result: &Result<String, String>| match result {
        Ok(id) => format!("{what}: {id}"),
        Err(why) => format!("{what}: no, {why}"),
    };
    let mut text = format!("{}\n{}", line("JWT key", &jwt), line("X.509 authority", &x509));
    for advisory in &advisories {
        text.push_str("\nnote: ");
        text.push_str(advisory);
    }
    let json = json!({
        "jwt": {"keyID": jwt.as_ref().ok(), "problem": jwt.as_ref().err()},
        "x509": {"authorityID": x509.as_ref().ok(), "problem": x509.as_ref().err()},
        "advisories": advisories,
    });
    print(flags.output, &text, &json)
}

fn export(flags: &ExportFlags) -> Result<(), CliError> {
    trust_domain(&flags.spiffe_trust_domain)?;
    let issuer = IssuerUrl::parse(&flags.spiffe_issuer, flags.allow_insecure_issuer)
        .map_err(|error| FlagError::new("spiffe-issuer", error.to_string()))?;
    let keys = flags.keys.iter().map(public_key).collect::<Result<Vec<_>, _>>()?;
    let mut anchors: Vec<CertificateDer<'static>> = Vec::new();
    for path in &flags.certs {
        let pem = read("cert", path)?;
        let first = CertificateDer::pem_slice_iter(&pem).next();
        let certificate = first
            .and_then(Result::ok)
            .ok_or_else(|| FlagError::new("cert", format!("{}: no certificate", path.display())))?;
        anchors.push(certificate);
    }
    let documents = Documents::render(&DocumentInput {
        issuer: Some(&issuer),
        jwt_keys: &keys,
        x509_anchors: &anchors,
        sequence: u64::try_from(Timestamp::now().as_second()).unwrap_or_default(),
        overlap: JWT_OVERLAP,
    })
    .context("the documents cannot be made")?;
    for (name, document) in documents.files() {
        let path = flags.dir.join(name);
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, &document.body));
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn public_key(path: &PathBuf) -> Result<Jwk, CliError> {
    let bad = |error: &dyn std::fmt::Display| FlagError::new("key", format!("{}: {error}", path.display()));
    let text = zeroize::Zeroizing::new(read("key", path)?);
    let key = PrivateKey::from_pem(&text).map_err(|error| bad(&error))?;
    let signer = key.signer().map_err(|error| bad(&error))?;
    Ok(mintmark_issuer::Signer::public_key(&signer).jwk().clone())
}
