//! `mintmark trust`: prints the configuration by which a verifier trusts this issuer, complete, so that it can be started with
//! it. Reads nothing but its flags (and the CA file that kube-apiserver wants inline); fails with the flag that is wrong.
//! Nothing printed is secret.

mod distribution;
mod identities;
mod keycloak;
mod kube_apiserver;
mod zot;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use mintmark_issuer::{IssuerUrl, TrustDomain};

use super::{
    CliError, FlagError,
    offline::{Output, print, trust_domain},
};

/// Whose configuration.
#[derive(Debug, Subcommand)]
pub(super) enum TrustCommand {
    /// A configuration file of Zot, for tokens or for client certificates.
    #[command(after_help = zot::EXAMPLES)]
    Zot(zot::ZotFlags),
    /// A configuration file of the CNCF distribution registry, behind a token service or for client certificates.
    #[command(after_help = distribution::EXAMPLES)]
    Distribution(distribution::DistributionFlags),
    /// Authentication configuration for kube-apiserver (--authentication-config).
    #[command(after_help = kube_apiserver::EXAMPLES)]
    KubeApiserver(kube_apiserver::KubeApiserverFlags),
    /// A partial import for a Keycloak realm: SPIFFE identity provider and clients.
    #[command(after_help = keycloak::EXAMPLES)]
    Keycloak(keycloak::KeycloakFlags),
}

/// Prints.
pub(super) fn run(command: &TrustCommand) -> Result<(), CliError> {
    let (output, configuration, form) = match command {
        TrustCommand::Zot(flags) => (flags.output, zot::configuration(flags)?, Form::Json),
        TrustCommand::Distribution(flags) => (flags.output, distribution::configuration(flags)?, Form::Yaml),
        TrustCommand::KubeApiserver(flags) => (flags.output, kube_apiserver::configuration(flags)?, Form::Yaml),
        TrustCommand::Keycloak(flags) => (flags.output, keycloak::configuration(flags)?, Form::Json),
    };
    let text = match form {
        Form::Json => serde_json::to_string_pretty(&configuration).context("the configuration cannot be written")?,
        Form::Yaml => serde_yaml_ng::to_string(&configuration).context("the configuration cannot be written")?,
    };
    print(output, text.trim_end(), &configuration)
}

/// What the verifier's own configuration files are written in.
enum Form {
    Json,
    Yaml,
}

/// Which of the minted credentials the verifier is to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Credential {
    /// Tokens: `credential: SpiffeJWT`.
    Jwt,
    /// Client certificates: `credential: SpiffeCertificate`.
    X509,
}

/// Where a registry listens and keeps its content. Paths are those of the registry's machine; they are not read here.
#[derive(Debug, Args)]
struct ServerFlags {
    /// Address that the registry listens on.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:5000")]
    listen: SocketAddr,
    /// Folder of the registry's content.
    #[arg(long, value_name = "DIR")]
    storage: PathBuf,
    /// Certificate of the registry (chain, PEM). Without one it speaks plain HTTP, for TLS in front of it.
    #[arg(long, value_name = "FILE")]
    tls_cert_file: Option<PathBuf>,
    /// Private key of that certificate.
    #[arg(long, value_name = "FILE")]
    tls_key_file: Option<PathBuf>,
}

impl ServerFlags {
    /// Certificate and key, if the registry ends TLS itself.
    fn tls(&self) -> Result<Option<(&PathBuf, &PathBuf)>, FlagError> {
        match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(FlagError::new("tls-cert-file", "needs --tls-key-file as well")),
            (None, Some(_)) => Err(FlagError::new("tls-key-file", "needs --tls-cert-file as well")),
        }
    }

    /// The same where there must be one: whoever asks for client certificates has to end TLS.
    fn needed_tls(&self) -> Result<(&PathBuf, &PathBuf), FlagError> {
        self.tls()?
            .ok_or_else(|| FlagError::new("tls-cert-file", "is needed with --credential x509"))
    }
}

/// A flag that only one of the credentials needs.
fn needed<'a, T>(value: Option<&'a T>, flag: &'static str, credential: &str) -> Result<&'a T, FlagError> {
    value.ok_or_else(|| FlagError::new(flag, format!("is needed with --credential {credential}")))
}

/// Refuses a flag that would be passed over.
fn refused(given: bool, flag: &'static str, credential: &str) -> Result<(), FlagError> {
    if given {
        return Err(FlagError::new(
            flag,
            format!("means nothing with --credential {credential}"),
        ));
    }
    Ok(())
}

/// The issuer of `--spiffe-issuer`.
fn issuer(url: &str, allow_insecure: bool) -> Result<IssuerUrl, FlagError> {
    IssuerUrl::parse(url, allow_insecure).map_err(|error| FlagError::new("spiffe-issuer", error.to_string()))
}

/// The issuer where the verifier itself takes https only.
fn https_issuer(url: &str, verifier: &str) -> Result<IssuerUrl, FlagError> {
    let issuer = issuer(url, false)?;
    if !issuer.is_https() {
        return Err(FlagError::new("spiffe-issuer", format!("{verifier} takes https only")));
    }
    Ok(issuer)
}

/// What every SPIFFE ID of the domain begins with.
fn prefix(domain: &TrustDomain) -> String {
    format!("{}/", domain.id())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: TrustCommand,
    }

    /// What a command line prints, as JSON; its error as text.
    pub(super) fn configured(line: &str) -> Result<Value, String> {
        let words = std::iter::once("trust").chain(line.split_whitespace());
        let parsed = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        let result = match &parsed.command {
            TrustCommand::Zot(flags) => zot::configuration(flags),
            TrustCommand::Distribution(flags) => distribution::configuration(flags),
            TrustCommand::KubeApiserver(flags) => kube_apiserver::configuration(flags),
            TrustCommand::Keycloak(flags) => keycloak::configuration(flags),
        };
        result.map_err(|error| error.to_string())
    }

    /// Every example of the help texts is a command line that works.
    #[test]
    fn examples_are_accepted() {
        let ca = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca.path(), certificate()).unwrap();
        for examples in [
            zot::EXAMPLES,
            distribution::EXAMPLES,
            kube_apiserver::EXAMPLES,
            keycloak::EXAMPLES,
        ] {
            let joined = examples.replace("\\\n", " ");
            let lines: Vec<_> = joined
                .lines()
                .filter_map(|line| line.trim().strip_prefix("mintmark trust "))
                .collect();
            assert!(!lines.is_empty(), "{examples}");
            for line in lines {
                let line = line.split(" > ").next().unwrap();
                let line = line.replace("issuer-ca.crt", &ca.path().display().to_string());
                configured(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }

    fn certificate() -> &'static [u8] {
        include_bytes!("../../../../issuer/testdata/two-ou.crt")
    }
}
