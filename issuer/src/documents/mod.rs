//! The published documents: discovery, JWKS and SPIFFE bundle, rendered once per change into bytes with their `ETag` and
//! served from memory. Rendering is a pure function of the published keys; it fails only when JSON cannot be written.

use std::time::Duration;

use ::ring::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rustls_pki_types::CertificateDer;
use serde::Serialize;

use crate::keys::{Jwk, JwkError, PublicKey};
use crate::{IssuerUrl, pem};

/// Verifiers ask again after this at the latest.
const LONGEST_REFRESH: Duration = Duration::from_mins(1);
/// `refresh hint` = overlap / 5: a new key is seen by every verifier that follows the hint long before it signs.
const REFRESH_PARTS: u32 = 5;
/// `max-age` = overlap / 6.
const MAX_AGE_PARTS: u32 = 6;
/// Always all of them: verifiers read discovery once, and without ES256 in it go-oidc accepts only RS256.
const SIGNING_ALGORITHMS: [&str; 3] = ["ES256", "ES384", "RS256"];

/// What the documents are made of.
#[derive(Debug, Clone, Copy)]
pub struct DocumentInput<'a> {
    /// The issuer; without one only the bundle is published.
    pub issuer: Option<&'a IssuerUrl>,
    /// The published JWT keys. Kinds that sign no JWT are refused.
    pub jwt_keys: &'a [Jwk],
    /// The published trust anchors.
    pub x509_anchors: &'a [CertificateDer<'a>],
    /// `spiffe_sequence`.
    pub sequence: u64,
    /// How long a new JWT key is published before it signs; decides how often verifiers should ask.
    pub overlap: Duration,
}

/// All documents of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    discovery: Option<Document>,
    keys: Option<Document>,
    bundle_json: Document,
    bundle_pem: Document,
    /// *P*: the issuer's path.
    prefix: String,
    max_age: Duration,
}

/// One document as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The body.
    pub body: Bytes,
    /// `Content-Type`.
    pub media_type: &'static str,
    /// A strong entity tag (RFC 9110 §8.8.3) with its quotes: SHA-256 of the body.
    pub etag: String,
}

/// Why the documents cannot be rendered or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentsError {
    /// A key that does not belong there.
    #[error("key {kid} cannot be published: {error}")]
    Key {
        /// The key.
        kid: String,
        /// What is wrong.
        error: JwkError,
    },
    /// A certificate whose key is not of an accepted kind.
    #[error("a trust anchor cannot be published: {0}")]
    Anchor(JwkError),
    /// A document of the stored set is missing.
    #[error("the stored document {0:?} is missing")]
    Missing(&'static str),
    /// JSON could not be written.
    #[error("a document could not be encoded: {0}")]
    Encode(String),
}

#[derive(Serialize)]
struct Discovery<'a> {
    issuer: &'a str,
    jwks_uri: String,
    response_types_supported: [&'static str; 1],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: [&'static str; 3],
}

#[derive(Serialize)]
struct KeySet<T> {
    keys: Vec<T>,
}

#[derive(Serialize)]
struct PublishedKey<'a> {
    #[serde(flatten)]
    key: &'a Jwk,
    #[serde(rename = "use")]
    key_use: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    x5c: Option<[String; 1]>,
}

#[derive(Serialize)]
struct Bundle<'a> {
    keys: Vec<PublishedKey<'a>>,
    spiffe_sequence: u64,
    spiffe_refresh_hint: u64,
}

impl Documents {
    /// Names of the documents where they are kept as a set: in the state Secret and in a `ConfigMap` copy.
    pub const DISCOVERY: &'static str = "openid-configuration";
    /// See [`Documents::DISCOVERY`].
    pub const KEYS: &'static str = "keys.json";
    /// See [`Documents::DISCOVERY`].
    pub const BUNDLE_JSON: &'static str = "bundle.json";
    /// See [`Documents::DISCOVERY`].
    pub const BUNDLE_PEM: &'static str = "bundle.pem";

    /// Renders the documents (`OpenID` Connect Discovery §3, RFC 8414 §2, RFC 7517 §5, SPIFFE Trust Domain and Bundle §4).
    pub fn render(input: &DocumentInput<'_>) -> Result<Self, DocumentsError> {
        let (mut discovery, mut keys) = (None, None);
        if let Some(issuer) = input.issuer {
            discovery = Some(json(&discovery_of(issuer))?);
            let published = input.jwt_keys.iter().map(jwks_entry).collect::<Result<_, _>>()?;
            keys = Some(json(&KeySet { keys: published })?);
        }
        let anchors = input
            .x509_anchors
            .iter()
            .map(|anchor| anchor_key(anchor))
            .collect::<Result<Vec<_>, _>>()?;
        let jwt = input.jwt_keys.iter().map(|key| PublishedKey {
            key,
            key_use: "jwt-svid",
            alg: None,
            kid: Some(key.thumbprint()),
            x5c: None,
        });
        let x509 = anchors
            .iter()
            .zip(input.x509_anchors)
            .map(|(key, anchor)| PublishedKey {
                key: key.jwk(),
                key_use: "x509-svid",
                alg: None,
                kid: None,
                x5c: Some([STANDARD.encode(anchor)]),
            });
        let bundle = Bundle {
            keys: x509.chain(jwt).collect(),
            spiffe_sequence: input.sequence,
            spiffe_refresh_hint: (input.overlap / REFRESH_PARTS).min(LONGEST_REFRESH).as_secs().max(1),
        };
        let pem: String = input
            .x509_anchors
            .iter()
            .map(|anchor| pem::write("CERTIFICATE", anchor).to_string())
            .collect();
        Ok(Self {
            discovery,
            keys,
            bundle_json: json(&bundle)?,
            bundle_pem: document(pem.into_bytes(), PEM_CHAIN),
            prefix: input.issuer.map(|issuer| issuer.path().to_owned()).unwrap_or_default(),
            max_age: (input.overlap / MAX_AGE_PARTS).min(LONGEST_REFRESH),
        })
    }

    /// The document served at this request path; `None` is 404.
    pub fn get(&self, path: &str) -> Option<&Document> {
        if let Some(prefix) = path.strip_prefix("/.well-known/oauth-authorization-server") {
            return self.discovery.as_ref().filter(|_| prefix == self.prefix);
        }
        match path.strip_prefix(&self.prefix)? {
            "/.well-known/openid-configuration" => self.discovery.as_ref(),
            "/keys" => self.keys.as_ref(),
            "/spiffe/bundle.json" => Some(&self.bundle_json),
            "/spiffe/bundle.pem" => Some(&self.bundle_pem),
            _ => None,
        }
    }

    /// Every document with the request path it is served at.
    pub fn served(&self) -> impl Iterator<Item = (String, &Document)> {
        self.files().map(|(file, document)| match file {
            ".well-known/oauth-authorization-server" => (format!("/{file}{}", self.prefix), document),
            _ => (format!("{}/{file}", self.prefix), document),
        })
    }

    /// Every document with its served path, without *P* and without a leading slash, for those who host the files
    /// themselves.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Document)> {
        let discovery = self.discovery.iter().flat_map(|document| {
            [
                (".well-known/openid-configuration", document),
                (".well-known/oauth-authorization-server", document),
            ]
        });
        discovery
            .chain(self.keys.iter().map(|document| ("keys", document)))
            .chain([
                ("spiffe/bundle.json", &self.bundle_json),
                ("spiffe/bundle.pem", &self.bundle_pem),
            ])
    }

    /// Every document under its name in a stored set, e.g. [`Documents::KEYS`].
    pub fn named(&self) -> impl Iterator<Item = (&'static str, &Document)> {
        let discovery = self.discovery.iter().map(|document| (Self::DISCOVERY, document));
        let keys = self.keys.iter().map(|document| (Self::KEYS, document));
        discovery.chain(keys).chain([
            (Self::BUNDLE_JSON, &self.bundle_json),
            (Self::BUNDLE_PEM, &self.bundle_pem),
        ])
    }

    /// `Cache-Control: max-age`, whole seconds, at most 60.
    pub fn max_age(&self) -> Duration {
        Duration::from_secs(self.max_age.as_secs())
    }

    /// The discovery document; none without an issuer.
    pub fn discovery(&self) -> Option<&Document> {
        self.discovery.as_ref()
    }

    /// The JWKS; none without an issuer.
    pub fn keys(&self) -> Option<&Document> {
        self.keys.as_ref()
    }

    /// The SPIFFE bundle.
    pub fn bundle_json(&self) -> &Document {
        &self.bundle_json
    }

    /// All published trust anchors as PEM; empty without one.
    pub fn bundle_pem(&self) -> &Document {
        &self.bundle_pem
    }

    /// Takes the documents of a stored set as they are; `issuer` and `overlap` are those stored beside them.
    pub(crate) fn from_stored<'a>(
        find: impl Fn(&str) -> Option<&'a [u8]>,
        issuer: Option<&IssuerUrl>,
        overlap: Duration,
    ) -> Result<Self, DocumentsError> {
        let take = |name: &'static str, media_type| {
            find(name)
                .map(|body| document(body.to_vec(), media_type))
                .ok_or(DocumentsError::Missing(name))
        };
        Ok(Self {
            discovery: issuer.map(|_| take(Self::DISCOVERY, JSON)).transpose()?,
            keys: issuer.map(|_| take(Self::KEYS, JSON)).transpose()?,
            bundle_json: take(Self::BUNDLE_JSON, JSON)?,
            bundle_pem: take(Self::BUNDLE_PEM, PEM_CHAIN)?,
            prefix: issuer.map(|issuer| issuer.path().to_owned()).unwrap_or_default(),
            max_age: (overlap / MAX_AGE_PARTS).min(LONGEST_REFRESH),
        })
    }
}

const JSON: &str = "application/json";
/// RFC 8555 §9.1.
const PEM_CHAIN: &str = "application/pem-certificate-chain";

fn discovery_of(issuer: &IssuerUrl) -> Discovery<'_> {
    Discovery {
        issuer: issuer.as_str(),
        jwks_uri: format!("{}/keys", issuer.base()),
        response_types_supported: ["id_token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: SIGNING_ALGORITHMS,
    }
}

/// A key of the JWKS. A key without a JWS algorithm never gets in: one unknown kind spoils the set for go-jose.
fn jwks_entry(key: &Jwk) -> Result<PublishedKey<'_>, DocumentsError> {
    let wrong = |error| DocumentsError::Key {
        kid: key.thumbprint(),
        error,
    };
    let alg = PublicKey::from_jwk(key).map_err(wrong)?.algorithm().jws();
    let alg = alg.ok_or_else(|| wrong(JwkError::NotAccepted))?;
    Ok(PublishedKey {
        key,
        key_use: "sig",
        alg: Some(alg),
        kid: Some(key.thumbprint()),
        x5c: None,
    })
}

fn anchor_key(anchor: &CertificateDer<'_>) -> Result<PublicKey, DocumentsError> {
    use x509_parser::prelude::FromDer;
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(anchor)
        .map_err(|_| DocumentsError::Anchor(JwkError::Damaged("certificate")))?;
    PublicKey::from_spki_der(certificate.public_key().raw).map_err(DocumentsError::Anchor)
}

fn json(value: &impl Serialize) -> Result<Document, DocumentsError> {
    let body = serde_json::to_vec(value).map_err(|error| DocumentsError::Encode(error.to_string()))?;
    Ok(document(body, JSON))
}

fn document(body: Vec<u8>, media_type: &'static str) -> Document {
    let etag = format!("\"{}\"", crate::hex(digest(&SHA256, &body).as_ref()));
    Document {
        body: body.into(),
        media_type,
        etag,
    }
}

#[cfg(test)]
mod tests;
