//! Options of the test registry and the files they become: `config.json`, `policy.json`, certificates.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use super::{ADMIN, write_json};
use crate::{pki::TestCa, process::write_private};

pub(super) const CONFIG_FILE: &str = "config.json";
const POLICY_FILE: &str = "policy.json";
const CLIENT_CA_FILE: &str = "client-ca.crt";

/// What a registry is started with. The default takes no credential at all, over plain HTTP.
#[derive(Debug, Clone, Default)]
pub struct RegistryOptions {
    /// Serve https, with a certificate of the harness for 127.0.0.1 and `localhost`.
    pub tls: bool,
    /// Cap the protocol at TLS 1.2 instead of 1.3.
    pub tls12_only: bool,
    /// How long it goes on at most after [`super::RegistryServer::stop`]: it ends each connection with its next answer, and
    /// itself with the last one, so that no request is lost. Zero ends it at once.
    pub drain: Duration,
    /// Ask for client certificates (needs `tls`).
    pub client_ca: Option<ClientCa>,
    /// Whose tokens are taken.
    pub issuers: Vec<Issuer>,
    /// How a JWT may be presented; empty means [`Accept::Bearer`].
    pub accept: Vec<Accept>,
    /// The token endpoint of [`Accept::Token`].
    pub token: TokenEndpoint,
}

/// Client certificates: the subject is the only URI SAN.
#[derive(Debug, Clone)]
pub struct ClientCa {
    /// CAs, PEM.
    pub pem: String,
    /// What happens without a certificate.
    pub auth: ClientAuth,
    /// Read the CAs again for each connection instead of once at start (Zot reads them once).
    pub reload: bool,
}

/// What happens to a client without a certificate. One that is given must verify in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// Its requests are answered with 401.
    Optional,
    /// The handshake fails.
    Require,
}

/// An OIDC issuer.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// Issuer URL, byte for byte as in the tokens. Need not answer before the first token comes.
    pub url: String,
    /// A token must have at least one of these.
    pub audiences: Vec<String>,
    /// CA of the issuer's https endpoint, PEM; `None` means the system's.
    pub ca_pem: Option<String>,
    /// Its keys as a JSON Web Key Set; `None` means that the registry asks the issuer, as `keys` says.
    pub key_set: Option<String>,
    /// How the registry learns keys.
    pub keys: Keys,
}

impl Issuer {
    /// An issuer whose keys are read again when a token names an unknown one.
    pub fn new(url: impl Into<String>, audiences: &[&str]) -> Self {
        let audiences = audiences.iter().map(|&audience| audience.to_owned()).collect();
        Self {
            url: url.into(),
            audiences,
            ca_pem: None,
            key_set: None,
            keys: Keys::OnUnknown,
        }
    }

    /// The same with the CA of its https endpoint.
    #[must_use]
    pub fn with_ca(mut self, pem: impl Into<String>) -> Self {
        self.ca_pem = Some(pem.into());
        self
    }

    /// The same with its keys, for an issuer that the registry cannot reach.
    #[must_use]
    pub fn with_key_set(mut self, json: impl Into<String>) -> Self {
        self.key_set = Some(json.into());
        self
    }
}

/// How a registry learns the keys of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// As go-oidc does: kept for ever, read again for an unknown key id.
    OnUnknown,
    /// Read when older than so many seconds, and never for an unknown key id.
    Poll(u32),
    /// As Zot does with 60: discovery and keys are forgotten after so many seconds, and read again for an unknown key id.
    Rediscover(u32),
}

/// How a JWT may be presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Accept {
    /// `Authorization: Bearer <jwt>` on the registry itself.
    Bearer,
    /// `Authorization: Basic <any>:<jwt>` on the registry itself.
    Basic,
    /// Exchanged at the realm for a token of the registry.
    Token,
}

/// The token endpoint.
#[derive(Debug, Clone, Default)]
pub struct TokenEndpoint {
    /// Serve it on an origin of its own instead of the registry's.
    pub own_origin: bool,
    /// Name another realm in the challenge.
    pub realm: Option<String>,
    /// The challenge's service; default host:port of the registry.
    pub service: Option<String>,
    /// Life of an exchanged token in seconds; 0 means 60.
    pub ttl_seconds: u32,
    /// Leave `expires_in` out.
    pub omit_expiry: bool,
    /// Answer with `access_token` instead of `token`.
    pub access_token: bool,
}

/// What `config.json` says, and what of it the harness needs again.
#[derive(Debug)]
pub(super) struct Config {
    json: Value,
    pub(super) access_log: PathBuf,
    pub(super) drain: Duration,
}

impl Config {
    pub(super) fn write(folder: &Path, options: RegistryOptions, ca: &TestCa, admin_password: &str) -> Result<Self> {
        let access_log = folder.join("access.log");
        let accept = if options.accept.is_empty() {
            vec![Accept::Bearer]
        } else {
            options.accept
        };
        let issuers = options
            .issuers
            .iter()
            .enumerate()
            .map(|(i, it)| issuer_json(folder, i, it))
            .collect::<Result<Vec<_>>>()?;
        let tls = if options.tls {
            Some(tls_json(folder, options.client_ca.as_ref(), options.tls12_only, ca)?)
        } else {
            None
        };
        let json = json!({
            "listen": "127.0.0.1:0",
            "storage": folder.join("storage"),
            "access_log": access_log,
            "policy": folder.join(POLICY_FILE),
            "admin": { "username": ADMIN, "password": admin_password },
            "tls": tls,
            "drain_ms": u64::try_from(options.drain.as_millis())?,
            "issuers": issuers,
            "accept": accept,
            "token": {
                "realm": options.token.realm.unwrap_or_default(),
                "listen": if options.token.own_origin { "127.0.0.1:0" } else { "" },
                "service": options.token.service.unwrap_or_default(),
                "ttl_seconds": if options.token.ttl_seconds == 0 { 60 } else { options.token.ttl_seconds },
                "omit_expiry": options.token.omit_expiry,
                "access_token": options.token.access_token,
            },
        });
        write_json(&folder.join(CONFIG_FILE), &json)?;
        Ok(Self {
            json,
            access_log,
            drain: options.drain,
        })
    }

    /// Replaces port 0 by the ports that were bound.
    pub(super) fn fix_addresses(&mut self, folder: &Path, address: &str, token_origin: &str) -> Result<()> {
        if let Some(listen) = self.json.pointer_mut("/listen") {
            *listen = address.into();
        }
        if let Some((_, token_address)) = token_origin.split_once("://")
            && let Some(listen) = self.json.pointer_mut("/token/listen")
        {
            *listen = token_address.into();
        }
        write_json(&folder.join(CONFIG_FILE), &self.json)
    }
}

fn tls_json(folder: &Path, client_ca: Option<&ClientCa>, tls12_only: bool, ca: &TestCa) -> Result<Value> {
    let server = ca.server(&[])?;
    let (certificate, key) = (folder.join("server.crt"), folder.join("server.key"));
    write_private(&certificate, server.certificate_pem)?;
    write_private(&key, server.key_pem)?;
    let mut tls = json!({ "cert_file": certificate, "key_file": key });
    if let (Some(client_ca), Some(fields)) = (client_ca, tls.as_object_mut()) {
        write_client_ca(folder, &client_ca.pem)?;
        fields.insert("client_ca_file".into(), json!(folder.join(CLIENT_CA_FILE)));
        fields.insert("client_auth".into(), json!(client_ca.auth));
        fields.insert("reload_client_ca".into(), json!(client_ca.reload));
    }
    if let (true, Some(fields)) = (tls12_only, tls.as_object_mut()) {
        fields.insert("max_version".into(), json!("1.2"));
    }
    Ok(tls)
}

fn issuer_json(folder: &Path, index: usize, issuer: &Issuer) -> Result<Value> {
    let mut ca_file = PathBuf::new();
    if let Some(pem) = &issuer.ca_pem {
        ca_file = folder.join(format!("issuer-{index}-ca.crt"));
        write_private(&ca_file, pem)?;
    }
    let mut keys_file = PathBuf::new();
    if let Some(json) = &issuer.key_set {
        keys_file = folder.join(format!("issuer-{index}-keys.json"));
        write_private(&keys_file, json)?;
    }
    let (poll, rediscover) = match issuer.keys {
        Keys::OnUnknown => (0, 0),
        Keys::Poll(seconds) => (seconds, 0),
        Keys::Rediscover(seconds) => (0, seconds),
    };
    Ok(json!({
        "issuer": issuer.url,
        "audiences": issuer.audiences,
        "ca_file": ca_file,
        "keys_file": keys_file,
        "poll_seconds": poll,
        "rediscover_seconds": rediscover,
    }))
}

pub(super) fn write_client_ca(folder: &Path, pem: &str) -> Result<()> {
    let temporary = folder.join("client-ca.new");
    write_private(&temporary, pem)?;
    Ok(std::fs::rename(temporary, folder.join(CLIENT_CA_FILE))?)
}

/// Who may read what.
#[derive(Debug, Default, Serialize)]
pub(super) struct Policy {
    pub(super) readers: BTreeMap<String, Vec<String>>,
    pub(super) anonymous: BTreeSet<String>,
}

impl Policy {
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        write_json(&folder.join(POLICY_FILE), self)
    }
}
