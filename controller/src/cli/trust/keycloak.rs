//! A partial import for a Keycloak realm (26.4 and later, feature `spiffe`): a SPIFFE identity provider for our trust domain,
//! and one client per object, which authenticates by its JWT-SVID. Only fields that Keycloak documents or its sources name.

use clap::Args;
use serde_json::{Value, json};

use super::{FlagError, Output, https_issuer, identities::Object, trust_domain};

pub(super) const EXAMPLES: &str = "Example:
  mintmark trust keycloak --object team-a/app --spiffe-trust-domain example.org \\
    --spiffe-issuer https://mintmark.example.org > partial-import.json
  kcadm.sh create partialImport -r REALM -f partial-import.json

Keycloak must run with --features=spiffe,client-auth-federated.";

/// Flags of `trust keycloak`.
#[derive(Debug, Args)]
pub(in crate::cli) struct KeycloakFlags {
    /// An object that becomes a client (repeatable).
    #[arg(long = "object", value_name = "[KIND/]NAMESPACE/NAME", required = true)]
    objects: Vec<Object>,
    /// Alias of the identity provider.
    #[arg(long, value_name = "ALIAS", default_value = "mintmark")]
    alias: String,
    /// Trust domain of the identities.
    #[arg(long, value_name = "TRUST_DOMAIN")]
    spiffe_trust_domain: String,
    /// Issuer of the tokens, under which Keycloak fetches the SPIFFE bundle; https.
    #[arg(long, value_name = "URL")]
    spiffe_issuer: String,
    /// text (indented JSON) or json (one line).
    #[arg(short, long, value_enum, default_value = "text")]
    pub(super) output: Output,
}

/// The whole import. What exists already is an error there, not overwritten.
pub(super) fn configuration(flags: &KeycloakFlags) -> Result<Value, FlagError> {
    let domain = trust_domain(&flags.spiffe_trust_domain)?;
    let issuer = https_issuer(&flags.spiffe_issuer, "Keycloak")?;
    if flags.alias.is_empty() {
        return Err(FlagError::new("alias", "must not be empty"));
    }
    let mut clients = Vec::new();
    for object in &flags.objects {
        let id = object.id(&domain, "object")?;
        clients.push(json!({
            "clientId": id.as_str(),
            "protocol": "openid-connect",
            "enabled": true,
            "publicClient": false,
            "standardFlowEnabled": false,
            "directAccessGrantsEnabled": false,
            "serviceAccountsEnabled": true,
            "clientAuthenticatorType": "federated-jwt",
            "attributes": {"jwt.credential.issuer": flags.alias, "jwt.credential.sub": id.as_str()},
        }));
    }
    Ok(json!({
        "ifResourceExists": "FAIL",
        "identityProviders": [{
            "alias": flags.alias,
            "providerId": "spiffe",
            "enabled": true,
            "config": {
                "trustDomain": domain.id(),
                "bundleEndpoint": format!("{}/spiffe/bundle.json", issuer.base()),
            },
        }],
        "clients": clients,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::tests::configured;

    const LINE: &str =
        "keycloak --object a/b --spiffe-trust-domain cluster.example --spiffe-issuer https://i.example/p/";

    #[test]
    fn the_bundle_is_where_it_is_served() {
        let configuration = configured(LINE).unwrap();
        let provider = &configuration["identityProviders"][0];
        assert_eq!(
            provider["config"]["bundleEndpoint"],
            "https://i.example/p/spiffe/bundle.json"
        );
        assert_eq!(provider["config"]["trustDomain"], "spiffe://cluster.example");
        let attributes = &configuration["clients"][0]["attributes"];
        assert_eq!(attributes["jwt.credential.issuer"], provider["alias"]);
        assert_eq!(
            attributes["jwt.credential.sub"],
            "spiffe://cluster.example/ocirepositories/a/b"
        );
    }

    #[test]
    fn mistakes_name_their_flag() {
        for (line, flag) in [
            (
                LINE.replace("https://i.example/p/", "http://localhost/"),
                "--spiffe-issuer",
            ),
            (LINE.replace("cluster.example", "A"), "--spiffe-trust-domain"),
            (LINE.replace("a/b", "b"), "--object"),
            (format!("{LINE} --alias="), "--alias"),
        ] {
            let problem = configured(&line).unwrap_err();
            assert!(problem.contains(flag), "{line}: {problem}");
        }
    }
}
