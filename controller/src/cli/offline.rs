//! What the commands without a cluster share: whose identity is meant, where the key is read from, how results are printed.

use std::{fs, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use jiff::Timestamp;
use mintmark_issuer::{
    Authority, JwtAuthority, LoadOptions, NoSigner, PrivateKey, SigningSecret, SigningSet, SpiffeId, TrustDomain,
};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{CliError, FlagError};

/// How a result is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people and pipes.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// A repository kind, as `--kind` takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// `OCIRepository`.
    Ocirepositories,
    /// `ImageRepository`.
    Imagerepositories,
}

impl Kind {
    /// The plural, which is part of the SPIFFE ID.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Ocirepositories => "ocirepositories",
            Self::Imagerepositories => "imagerepositories",
        }
    }

    /// The kind as it stands in manifests.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ocirepositories => "OCIRepository",
            Self::Imagerepositories => "ImageRepository",
        }
    }
}

/// The object that an identity belongs to.
#[derive(Debug, Clone, Args)]
pub(super) struct ObjectFlags {
    /// Kind of the object, in the plural.
    #[arg(long, value_enum, default_value = "ocirepositories")]
    pub(super) kind: Kind,
    /// Namespace of the object.
    #[arg(long)]
    pub(super) namespace: String,
    /// Name of the object.
    #[arg(long)]
    pub(super) name: String,
    /// Trust domain of the identity.
    #[arg(long, value_name = "TRUST_DOMAIN")]
    pub(super) spiffe_trust_domain: String,
}

impl ObjectFlags {
    /// The trust domain and the SPIFFE ID of the object.
    pub(super) fn identity(&self) -> Result<(TrustDomain, SpiffeId), FlagError> {
        let domain = trust_domain(&self.spiffe_trust_domain)?;
        let id = SpiffeId::for_object(&domain, self.kind.plural(), &self.namespace, &self.name)
            .map_err(|error| FlagError::new("name", error.to_string()))?;
        Ok((domain, id))
    }
}

/// The trust domain of `--spiffe-trust-domain`.
pub(super) fn trust_domain(text: &str) -> Result<TrustDomain, FlagError> {
    TrustDomain::parse(text).map_err(|error| FlagError::new("spiffe-trust-domain", error.to_string()))
}

/// Where the signing key and its certificate are.
#[derive(Debug, Clone, Args)]
pub(super) struct KeyFlags {
    /// Private key, PEM (PKCS#8, SEC1 or PKCS#1), or a manifest of the signing Secret (YAML or JSON).
    #[arg(long, value_name = "FILE")]
    pub(super) key: PathBuf,
    /// CA certificate of the key, PEM; part of a Secret manifest already.
    #[arg(long, value_name = "FILE")]
    pub(super) cert: Option<PathBuf>,
}

impl KeyFlags {
    /// The key's bytes, with the certificates that come with it.
    pub(super) fn read(&self) -> Result<SigningSecret, CliError> {
        let key = Zeroizing::new(read("key", &self.key)?);
        let mut secret = match manifest(&key)? {
            Some(secret) => secret,
            None => SigningSecret {
                tls_key: key,
                ..SigningSecret::default()
            },
        };
        if let Some(cert) = &self.cert {
            secret.tls_crt = read("cert", cert)?;
        }
        Ok(secret)
    }

    /// The authority of key and certificate, checked as the controller checks its signing Secret.
    pub(super) fn authority(&self, domain: &TrustDomain) -> Result<Authority, CliError> {
        let secret = self.read()?;
        let options = LoadOptions {
            trust_domain: domain,
            cluster_cas: &[],
        };
        Ok(Authority::load(&secret, &options, Timestamp::now()).context("the signing key cannot be used")?)
    }
}

/// What signs with this key: tokens with a key alone, certificates with its CA certificate.
pub(super) fn signing_set(secret: &SigningSecret, domain: &TrustDomain) -> Result<SigningSet, CliError> {
    let options = LoadOptions {
        trust_domain: domain,
        cluster_cas: &[],
    };
    match Authority::load(secret, &options, Timestamp::now()) {
        Ok(authority) => Ok(SigningSet {
            jwt: authority.jwt().cloned().map_err(|error| NoSigner::Jwt(error.clone())),
            x509: authority.x509().cloned().map_err(|error| NoSigner::X509(error.clone())),
        }),
        Err(error) if secret.tls_crt.is_empty() => Ok(SigningSet {
            jwt: Ok(key_alone(secret)?),
            x509: Err(NoSigner::Secret(error)),
        }),
        Err(error) => Err(anyhow::Error::new(error)
            .context("the signing key cannot be used")
            .into()),
    }
}

/// The authority of a key without a certificate: it signs tokens only.
pub(super) fn key_alone(secret: &SigningSecret) -> Result<Arc<JwtAuthority>, FlagError> {
    let bad = |error: &dyn std::fmt::Display| FlagError::new("key", error.to_string());
    let key = PrivateKey::from_pem(&secret.tls_key).map_err(|error| bad(&error))?;
    let signer = key.signer().map_err(|error| bad(&error))?;
    let authority = JwtAuthority::new(Arc::new(signer), None).map_err(|error| bad(&error))?;
    Ok(Arc::new(authority))
}

/// Reads the file of a flag.
pub(super) fn read(flag: &'static str, path: &PathBuf) -> Result<Vec<u8>, FlagError> {
    fs::read(path).map_err(|error| FlagError::new(flag, format!("{}: {error}", path.display())))
}

#[derive(serde::Deserialize)]
struct SecretManifest {
    kind: String,
    #[serde(default)]
    data: std::collections::BTreeMap<String, String>,
    #[serde(default, rename = "stringData")]
    string_data: std::collections::BTreeMap<String, String>,
}

/// The fields of a Secret manifest; none when the bytes are PEM.
fn manifest(bytes: &[u8]) -> Result<Option<SigningSecret>, CliError> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
        return Ok(None);
    }
    // The parser's own message would quote the text, and with it the key.
    let refuse = || FlagError::new("key", "is neither PEM nor the manifest of a Secret");
    let manifest: SecretManifest = serde_yaml_ng::from_slice(bytes).map_err(|_| refuse())?;
    if manifest.kind != "Secret" {
        return Err(refuse().into());
    }
    let mut fields = Vec::new();
    for (name, value) in &manifest.data {
        let value = STANDARD
            .decode(value.trim())
            .map_err(|_| FlagError::new("key", format!("data.{name} is not base64")))?;
        fields.push((name.as_str(), Zeroizing::new(value)));
    }
    for (name, value) in &manifest.string_data {
        fields.push((name.as_str(), Zeroizing::new(value.clone().into_bytes())));
    }
    Ok(Some(SigningSecret::from_data(
        fields.iter().map(|(name, value)| (*name, value.as_slice())),
    )))
}

/// Prints a result: `text` for people, `json` for scripts.
#[expect(clippy::print_stdout, reason = "the result of a command")]
pub(super) fn print(output: Output, text: &str, json: &impl Serialize) -> Result<(), CliError> {
    match output {
        Output::Text => println!("{text}"),
        Output::Json => println!(
            "{}",
            serde_json::to_string(json).context("the result cannot be written")?
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_manifest_stands_for_key_and_certificate() {
        let yaml = b"apiVersion: v1\nkind: Secret\ndata:\n  tls.key: a2V5\nstringData:\n  tls.crt: crt\n";
        let secret = manifest(yaml).unwrap().unwrap();
        assert_eq!(
            (secret.tls_key.as_slice(), secret.tls_crt.as_slice()),
            (&b"key"[..], &b"crt"[..])
        );
        assert!(manifest(b"-----BEGIN PRIVATE KEY-----").unwrap().is_none());
    }

    #[test]
    fn what_is_no_key_is_not_quoted() {
        for text in [
            "kind: ConfigMap\ndata: {k: c2VjcmV0}",
            "top-secret",
            "kind: Secret\ndata: {k: '%%secret%%'}",
        ] {
            let error = manifest(text.as_bytes()).unwrap_err().to_string();
            assert!(
                error.starts_with("--key: ") && !error.contains("secret%%") && !error.contains("top-secret"),
                "{error}"
            );
        }
    }
}
