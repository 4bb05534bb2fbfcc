//! The configuration file of the CNCF distribution registry (3.x). It verifies no foreign tokens: its `token` access controller
//! takes those of a token service, whose keys it reads from a file at its start. Client certificates open its door, but name
//! nobody. Fails when a flag lacks a partner.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use url::Url;

use super::{Credential, FlagError, Output, ServerFlags, needed, refused};

pub(super) const EXAMPLES: &str = "Examples:
  mintmark trust distribution --storage /var/lib/registry --audience registry.example.org \\
    --token-realm https://tokens.example.org/token --token-issuer https://tokens.example.org \\
    --jwks-file /etc/distribution/tokens.json \\
    --tls-cert-file /etc/distribution/tls.crt --tls-key-file /etc/distribution/tls.key > config.yml
  mintmark trust distribution --credential x509 --storage /var/lib/registry --ca-file /etc/distribution/bundle.pem \\
    --tls-cert-file /etc/distribution/tls.crt --tls-key-file /etc/distribution/tls.key > config.yml
  registry serve config.yml

With x509, every holder of a certificate of the CA may read and write every repository.";

/// What a token service may sign with; RS256 alone would leave out our own kinds of key.
const ALGORITHMS: [&str; 3] = ["ES256", "ES384", "RS256"];

/// Flags of `trust distribution`.
#[derive(Debug, Args)]
pub(in crate::cli) struct DistributionFlags {
    /// jwt: behind a token service that takes our tokens. x509: client certificates of our CA, without identities.
    #[arg(long, value_enum, default_value = "jwt")]
    credential: Credential,
    #[command(flatten)]
    server: ServerFlags,
    /// What the registry is called: the `service` of its challenges and the audience of the token service's tokens (jwt).
    #[arg(long, value_name = "AUDIENCE")]
    audience: Option<String>,
    /// URL of the token service (jwt).
    #[arg(long, value_name = "URL")]
    token_realm: Option<String>,
    /// `iss` of the token service's tokens (jwt).
    #[arg(long, value_name = "ISSUER")]
    token_issuer: Option<String>,
    /// Keys of the token service as a JSON Web Key Set (jwt).
    #[arg(long, value_name = "FILE")]
    jwks_file: Option<PathBuf>,
    /// CAs of the client certificates, bundle.pem (x509).
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// text (YAML) or json.
    #[arg(short, long, value_enum, default_value = "text")]
    pub(super) output: Output,
}

/// The whole file.
pub(super) fn configuration(flags: &DistributionFlags) -> Result<Value, FlagError> {
    let mut configuration = json!({
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": flags.server.storage}},
    });
    let mut http = json!({"addr": flags.server.listen.to_string()});
    let auth = match flags.credential {
        Credential::Jwt => {
            refused(flags.ca_file.is_some(), "ca-file", "jwt")?;
            if let Some((certificate, key)) = flags.server.tls()? {
                insert(&mut http, "tls", json!({"certificate": certificate, "key": key}));
            }
            Some(token(flags)?)
        }
        Credential::X509 => {
            insert(&mut http, "tls", mutual_tls(flags)?);
            None
        }
    };
    insert(&mut configuration, "http", http);
    if let Some(auth) = auth {
        insert(&mut configuration, "auth", auth);
    }
    Ok(configuration)
}

fn insert(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

fn token(flags: &DistributionFlags) -> Result<Value, FlagError> {
    let realm = needed(flags.token_realm.as_ref(), "token-realm", "jwt")?;
    let url = Url::parse(realm).map_err(|error| FlagError::new("token-realm", error.to_string()))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(FlagError::new("token-realm", "must be an https or http URL"));
    }
    Ok(json!({"token": {
        "realm": realm,
        "service": needed(flags.audience.as_ref(), "audience", "jwt")?,
        "issuer": needed(flags.token_issuer.as_ref(), "token-issuer", "jwt")?,
        "jwks": needed(flags.jwks_file.as_ref(), "jwks-file", "jwt")?,
        "signingalgorithms": ALGORITHMS,
    }}))
}

fn mutual_tls(flags: &DistributionFlags) -> Result<Value, FlagError> {
    for (given, flag) in [
        (flags.audience.is_some(), "audience"),
        (flags.token_realm.is_some(), "token-realm"),
        (flags.token_issuer.is_some(), "token-issuer"),
        (flags.jwks_file.is_some(), "jwks-file"),
    ] {
        refused(given, flag, "x509")?;
    }
    let (certificate, key) = flags.server.needed_tls()?;
    let client_cas = needed(flags.ca_file.as_ref(), "ca-file", "x509")?;
    Ok(json!({
        "certificate": certificate,
        "key": key,
        "clientcas": [client_cas],
        "clientauth": "require-and-verify-client-cert",
    }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::configured;

    const JWT: &str =
        "distribution --storage s --audience a --token-realm https://t.example/token --token-issuer t --jwks-file j";
    const X509: &str = "distribution --credential x509 --storage s --ca-file ca --tls-cert-file c --tls-key-file k";

    #[test]
    fn no_credential_is_left_without_a_check() {
        assert!(configured(JWT).unwrap()["auth"]["token"].is_object());
        let tls = configured(X509).unwrap()["http"]["tls"].clone();
        assert_eq!(tls["clientauth"], "require-and-verify-client-cert");
    }

    #[test]
    fn what_is_missing_or_would_be_passed_over_is_named() {
        for (line, flag) in [
            (JWT.replace("--audience a", ""), "--audience: "),
            (
                JWT.replace("--token-realm https://t.example/token", ""),
                "--token-realm: ",
            ),
            (JWT.replace("https://t.example/token", "tokens"), "--token-realm: "),
            (JWT.replace("--token-issuer t", ""), "--token-issuer: "),
            (JWT.replace("--jwks-file j", ""), "--jwks-file: "),
            (format!("{JWT} --ca-file ca"), "--ca-file: "),
            (X509.replace("--ca-file ca", ""), "--ca-file: "),
            (
                X509.replace("--tls-cert-file c --tls-key-file k", ""),
                "--tls-cert-file: ",
            ),
            (format!("{X509} --jwks-file j"), "--jwks-file: "),
        ] {
            let problem = configured(&line).unwrap_err();
            assert!(problem.starts_with(flag), "{line}: {problem}");
        }
    }
}
