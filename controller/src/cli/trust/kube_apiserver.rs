//! An `AuthenticationConfiguration` (apiserver.config.k8s.io/v1) for kube-apiserver's structured authentication: bearers of
//! our tokens become users with a prefix of their own. Reads the CA file, because its text is part of the configuration.

use std::path::PathBuf;

use clap::Args;
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};

use super::{FlagError, Output, https_issuer, prefix, trust_domain};
use crate::cli::offline::read;

pub(super) const EXAMPLES: &str = "Example:
  mintmark trust kube-apiserver --audience https://api.example.org --ca-file issuer-ca.crt \\
    --spiffe-trust-domain example.org --spiffe-issuer https://mintmark.example.org > authentication.yaml
  kube-apiserver --authentication-config=authentication.yaml …

An audience that the API server itself hands out must not be among them: mintmark refuses to mint for it.";

/// Users of these names are Kubernetes' own.
const RESERVED: &str = "system:";

/// Flags of `trust kube-apiserver`.
#[derive(Debug, Args)]
pub(in crate::cli) struct KubeApiserverFlags {
    /// Audience that a token must name (repeatable: any of them).
    #[arg(long = "audience", value_name = "AUDIENCE", required = true)]
    audiences: Vec<String>,
    /// CA of the issuer's https endpoint, PEM, unless kube-apiserver's system knows it.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Trust domain of the identities.
    #[arg(long, value_name = "TRUST_DOMAIN")]
    spiffe_trust_domain: String,
    /// Issuer of the tokens; https.
    #[arg(long, value_name = "URL")]
    spiffe_issuer: String,
    /// What user names begin with, so that they are nobody else's.
    #[arg(long, value_name = "PREFIX", default_value = "mintmark:")]
    username_prefix: String,
    /// text (YAML) or json.
    #[arg(short, long, value_enum, default_value = "text")]
    pub(super) output: Output,
}

/// The whole object.
pub(super) fn configuration(flags: &KubeApiserverFlags) -> Result<Value, FlagError> {
    let domain = trust_domain(&flags.spiffe_trust_domain)?;
    let issuer = https_issuer(&flags.spiffe_issuer, "kube-apiserver")?;
    if flags.username_prefix.is_empty() || flags.username_prefix.starts_with(RESERVED) {
        let problem = format!("must not be empty and must not begin with {RESERVED}");
        return Err(FlagError::new("username-prefix", problem));
    }
    let mut issued_by = json!({"url": issuer.as_str(), "audiences": flags.audiences});
    if let Some(fields) = issued_by.as_object_mut() {
        if flags.audiences.len() > 1 {
            fields.insert("audienceMatchPolicy".to_owned(), json!("MatchAny"));
        }
        if let Some(pem) = certificates(flags.ca_file.as_ref())? {
            fields.insert("certificateAuthority".to_owned(), json!(pem));
        }
    }
    let prefix = prefix(&domain);
    let object = |field: &str| format!("claims['mintmark.dev/object'].{field}");
    let extra = |field: &str| json!({"key": format!("mintmark.dev/{field}"), "valueExpression": object(field)});
    Ok(json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": issued_by,
            "claimValidationRules": [{
                "expression": format!("claims.sub.startsWith('{prefix}')"),
                "message": format!("the subject is not of {prefix}"),
            }],
            "claimMappings": {
                "username": {"claim": "sub", "prefix": flags.username_prefix},
                "uid": {"expression": object("uid")},
                "extra": [extra("kind"), extra("namespace"), extra("name")],
            },
            "userValidationRules": [{
                "expression": format!("!user.username.startsWith('{RESERVED}')"),
                "message": format!("user names of {RESERVED} are Kubernetes' own"),
            }],
        }],
    }))
}

/// The file's text, if it holds nothing but certificates.
fn certificates(path: Option<&PathBuf>) -> Result<Option<String>, FlagError> {
    let Some(path) = path else { return Ok(None) };
    let bad = |problem: &str| FlagError::new("ca-file", format!("{}: {problem}", path.display()));
    let text = String::from_utf8(read("ca-file", path)?).map_err(|_| bad("is not text"))?;
    if text.contains("PRIVATE KEY") {
        return Err(bad("has a private key in it, which would be printed"));
    }
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(Some(text)),
        _ => Err(bad("no certificate")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::configured;

    const LINE: &str =
        "kube-apiserver --audience a --spiffe-trust-domain cluster.example --spiffe-issuer https://i.example";

    #[test]
    fn several_audiences_are_alternatives() {
        let issuer = |line: &str| configured(line).unwrap()["jwt"][0]["issuer"].clone();
        assert!(issuer(LINE)["audienceMatchPolicy"].is_null());
        assert_eq!(
            issuer(&format!("{LINE} --audience b"))["audienceMatchPolicy"],
            "MatchAny"
        );
    }

    #[test]
    fn mistakes_name_their_flag_and_no_key_is_printed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        for (line, flag) in [
            (
                LINE.replace("https://i.example", "http://127.0.0.1:9080"),
                "--spiffe-issuer: ",
            ),
            (LINE.replace("cluster.example", "a..b"), "--spiffe-trust-domain: "),
            (format!("{LINE} --username-prefix system:x"), "--username-prefix: "),
            (format!("{LINE} --username-prefix="), "--username-prefix: "),
            (format!("{LINE} --ca-file {}", file.display()), "--ca-file: "),
        ] {
            let problem = configured(&line).unwrap_err();
            assert!(problem.starts_with(flag), "{line}: {problem}");
        }
        let line = format!("{LINE} --ca-file {}", file.display());
        for text in [
            "no certificate",
            "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n",
        ] {
            std::fs::write(&file, text).unwrap();
            let problem = configured(&line).unwrap_err();
            assert!(
                problem.starts_with("--ca-file: ") && !problem.contains("c2VjcmV0"),
                "{problem}"
            );
        }
    }
}
