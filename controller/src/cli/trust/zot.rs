//! Zot's configuration file: JWTs by `OpenID` discovery (`http.auth.bearer.oidc`), or client certificates whose URI SAN is the
//! user (`http.auth.mtls`). One process serves one of the two. Fails when a flag lacks a partner.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use clap::Args;
use mintmark_issuer::TrustDomain;
use serde_json::{Map, Value, json};

use super::{
    Credential, FlagError, Output, ServerFlags, identities::Reader, issuer, needed, prefix, refused, trust_domain,
};

pub(super) const EXAMPLES: &str = "Examples:
  mintmark trust zot --storage /var/lib/zot --audience registry.example.org --registry registry.example.org \\
    --tls-cert-file /etc/zot/tls.crt --tls-key-file /etc/zot/tls.key \\
    --spiffe-trust-domain example.org --spiffe-issuer https://mintmark.example.org \\
    --reader team-a/app=team-a/app > config.json
  mintmark trust zot --credential x509 --storage /var/lib/zot --ca-file /etc/zot/bundle.pem \\
    --tls-cert-file /etc/zot/tls.crt --tls-key-file /etc/zot/tls.key \\
    --spiffe-trust-domain example.org --reader team-a/app=team-a/app > config.json
  zot serve config.json";

/// Flags of `trust zot`.
#[derive(Debug, Args)]
pub(in crate::cli) struct ZotFlags {
    /// What Zot is to take.
    #[arg(long, value_enum, default_value = "jwt")]
    credential: Credential,
    #[command(flatten)]
    server: ServerFlags,
    /// Name under which clients reach the registry; default: the address it listens on.
    #[arg(long, value_name = "HOST[:PORT]")]
    registry: Option<String>,
    /// Audience that a token must name (repeatable; jwt).
    #[arg(long = "audience", value_name = "AUDIENCE")]
    audiences: Vec<String>,
    /// jwt: CA of the issuer's https endpoint, unless Zot's system knows it. x509: CAs of the client certificates
    /// (bundle.pem); Zot reads them once, at its start.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Trust domain of the identities.
    #[arg(long, value_name = "TRUST_DOMAIN")]
    spiffe_trust_domain: String,
    /// Issuer of the tokens (jwt).
    #[arg(long, value_name = "URL")]
    spiffe_issuer: Option<String>,
    /// Accept an http issuer that is not on loopback.
    #[arg(long)]
    allow_insecure_issuer: bool,
    /// An object and a repository that it may read (repeatable); everything else is refused. The default is an example.
    #[arg(
        long = "reader",
        value_name = "[KIND/]NAMESPACE/NAME=REPOSITORY",
        default_value = "team-a/app=team-a/app"
    )]
    readers: Vec<Reader>,
    /// text (indented JSON) or json (one line).
    #[arg(short, long, value_enum, default_value = "text")]
    pub(super) output: Output,
}

/// The whole file.
pub(super) fn configuration(flags: &ZotFlags) -> Result<Value, FlagError> {
    let domain = trust_domain(&flags.spiffe_trust_domain)?;
    let (auth, client_cas) = match flags.credential {
        Credential::Jwt => (bearer(flags, &domain)?, None),
        Credential::X509 => {
            refused(!flags.audiences.is_empty(), "audience", "x509")?;
            refused(flags.spiffe_issuer.is_some(), "spiffe-issuer", "x509")?;
            flags.server.needed_tls()?;
            let client_cas = needed(flags.ca_file.as_ref(), "ca-file", "x509")?;
            (mutual_tls(&domain), Some(client_cas))
        }
    };
    let mut http = json!({
        // Zot puts address and port together itself, without brackets.
        "address": match flags.server.listen.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        },
        "port": flags.server.listen.port().to_string(),
        "auth": auth,
        "accessControl": {"repositories": policies(&flags.readers, &domain)?},
    });
    if let (Some((certificate, key)), Some(fields)) = (flags.server.tls()?, http.as_object_mut()) {
        let mut tls = json!({"cert": certificate, "key": key});
        if let (Some(client_cas), Some(tls)) = (client_cas, tls.as_object_mut()) {
            tls.insert("cacert".to_owned(), json!(client_cas));
        }
        fields.insert("tls".to_owned(), tls);
    }
    Ok(json!({
        "distSpecVersion": "1.1.1",
        "storage": {"rootDirectory": flags.server.storage},
        "http": http,
        "log": {"level": "info"},
    }))
}

fn bearer(flags: &ZotFlags, domain: &TrustDomain) -> Result<Value, FlagError> {
    let url = needed(flags.spiffe_issuer.as_ref(), "spiffe-issuer", "jwt")?;
    let issuer = issuer(url, flags.allow_insecure_issuer)?;
    if flags.audiences.is_empty() {
        return Err(FlagError::new("audience", "is needed with --credential jwt"));
    }
    let prefix = prefix(domain);
    let mut provider = json!({
        "issuer": issuer.as_str(),
        "audiences": flags.audiences,
        "claimMapping": {
            // Without this, the user would be `<iss>/<sub>`.
            "username": "claims.sub",
            "validations": [{
                "expression": format!("claims.sub.startsWith('{prefix}')"),
                "message": format!("the subject is not of {prefix}"),
            }],
        },
    });
    if let (Some(ca), Some(fields)) = (&flags.ca_file, provider.as_object_mut()) {
        fields.insert("certificateAuthorityFile".to_owned(), json!(ca));
    }
    let host = flags
        .registry
        .clone()
        .unwrap_or_else(|| flags.server.listen.to_string());
    let scheme = if flags.server.tls()?.is_some() { "https" } else { "http" };
    Ok(json!({"bearer": {
        "realm": format!("{scheme}://{host}/zot/auth/token"),
        "service": host,
        "oidc": [provider],
    }}))
}

/// The whole URI SAN is the user, and no other trust domain's is one.
fn mutual_tls(domain: &TrustDomain) -> Value {
    // Of a trust domain's characters only the dot means something in a regular expression.
    let pattern = format!("^({}.+)$", prefix(domain).replace('.', r"\."));
    json!({"mtls": {"identityAttributes": ["URI"], "uriSanPattern": pattern}})
}

fn policies(readers: &[Reader], domain: &TrustDomain) -> Result<Value, FlagError> {
    let mut users = BTreeMap::<&str, Vec<String>>::new();
    for reader in readers {
        let id = reader.object.id(domain, "reader")?;
        users.entry(&reader.repository).or_default().push(id.to_string());
    }
    let policy = |users: Vec<String>| json!({"policies": [{"users": users, "actions": ["read"]}]});
    Ok(users
        .into_iter()
        .map(|(repository, users)| (repository.to_owned(), policy(users)))
        .collect::<Map<_, _>>()
        .into())
}

#[cfg(test)]
mod tests {
    use super::{super::tests::configured, *};

    const JWT: &str =
        "zot --storage s --audience a --spiffe-trust-domain cluster.example --spiffe-issuer https://i.example";
    const X509: &str = "zot --credential x509 --storage s --spiffe-trust-domain cluster.example --ca-file ca \
        --tls-cert-file c --tls-key-file k";

    #[test]
    fn a_pattern_takes_the_trust_domain_and_none_that_looks_like_it() {
        let configuration = configured(X509).unwrap();
        let pattern = configuration["http"]["auth"]["mtls"]["uriSanPattern"].as_str().unwrap();
        let pattern = regex::Regex::new(pattern).unwrap();
        assert!(pattern.is_match("spiffe://cluster.example/ocirepositories/a/b"));
        for other in [
            "spiffe://clusterxexample/ocirepositories/a/b",
            "spiffe://cluster.example.org/a",
            "x-spiffe://cluster.example/a",
            "spiffe://cluster.example/",
        ] {
            assert!(!pattern.is_match(other), "{other}");
        }
    }

    #[test]
    fn readers_of_one_repository_stand_in_one_policy() {
        let line =
            format!("{JWT} --reader a/x=team/app --reader imagerepositories/a/y=team/app --reader a/z=team/other");
        let configuration = configured(&line).unwrap();
        let repositories = &configuration["http"]["accessControl"]["repositories"];
        assert_eq!(repositories.as_object().unwrap().len(), 2);
        let users = &repositories["team/app"]["policies"][0]["users"];
        let id = |rest: &str| format!("spiffe://cluster.example/{rest}");
        assert_eq!(*users, json!([id("ocirepositories/a/x"), id("imagerepositories/a/y")]));
    }

    #[test]
    fn the_realm_has_the_name_and_scheme_that_clients_use() {
        let realm = |line: &str| configured(line).unwrap()["http"]["auth"]["bearer"]["realm"].clone();
        assert_eq!(realm(JWT), "http://0.0.0.0:5000/zot/auth/token");
        let tls = format!("{JWT} --registry r.example --tls-cert-file c --tls-key-file k");
        assert_eq!(realm(&tls), "https://r.example/zot/auth/token");
    }

    #[test]
    fn what_is_missing_or_would_be_passed_over_is_named() {
        let problem = |line: &str| configured(line).unwrap_err();
        for (line, flag) in [
            (JWT.replace("--audience a", ""), "--audience: "),
            (
                JWT.replace("--spiffe-issuer https://i.example", ""),
                "--spiffe-issuer: ",
            ),
            (JWT.replace("https:", "http:"), "--spiffe-issuer: "),
            (JWT.replace("cluster.example", "Cluster"), "--spiffe-trust-domain: "),
            (format!("{JWT} --tls-cert-file c"), "--tls-cert-file: "),
            (format!("{JWT} --tls-key-file k"), "--tls-key-file: "),
            (X509.replace("--ca-file ca", ""), "--ca-file: "),
            (
                X509.replace("--tls-cert-file c --tls-key-file k", ""),
                "--tls-cert-file: ",
            ),
            (format!("{X509} --audience a"), "--audience: "),
            (format!("{X509} --spiffe-issuer https://i.example"), "--spiffe-issuer: "),
        ] {
            let problem = problem(&line);
            assert!(problem.starts_with(flag), "{line}: {problem}");
        }
        assert!(problem(&format!("{JWT} --reader a/b=**")).contains("--reader"));
    }
}
