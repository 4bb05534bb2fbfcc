//! What the ring knows and stores: entries per use with their state and times, the sequence and the revoked ids. All of it
//! is public; private keys are held beside it and stored apart.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ::ring::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::authority::validity;
use crate::documents::{DocumentInput, Documents, DocumentsError};
use crate::keys::Jwk;
use crate::{IssuerUrl, TrustDomain, X509Authority};

/// Most keys of one use in a ring, whatever their state.
pub const MAX_KEYS_PER_USE: usize = 16;
/// A verifier may let a token live this much beyond `exp` (go-spiffe's leeway).
const LEEWAY: Duration = Duration::from_mins(1);

/// How a ring is configured. It is not stored: each process brings its own flags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingPolicy {
    /// The trust domain.
    pub trust_domain: TrustDomain,
    /// The issuer; without one no JWT document is published.
    pub issuer: Option<IssuerUrl>,
    /// Longest life of a JWT-SVID.
    pub jwt_ttl: Duration,
    /// Longest life of an X.509-SVID.
    pub x509_ttl: Duration,
    /// How long a new JWT key is published before it signs.
    pub jwt_overlap: Duration,
    /// How long a new CA is published before it signs.
    pub x509_overlap: Duration,
    /// Whether roots are published beside the signing CAs.
    pub bundle_root: bool,
}

impl RingPolicy {
    /// How long a retired JWT key stays published: its last token's life, a verifier's leeway, one overlap.
    pub fn jwt_retention(&self) -> Duration {
        self.jwt_ttl + LEEWAY + self.jwt_overlap
    }

    /// How long a retired CA stays published.
    pub fn x509_retention(&self) -> Duration {
        self.x509_ttl + LEEWAY + self.x509_overlap
    }
}

/// Where a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyState {
    /// Verifiers can see it; it does not sign yet.
    Published,
    /// It signs. At most one per use.
    Signing,
    /// It signs no more; what it signed may still be valid.
    Retired,
}

/// One key of a ring. `M` is [`JwtMaterial`] or [`X509Material`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry<M> {
    /// The key id (RFC 7638 thumbprint) or the authority id.
    pub id: String,
    /// Where it is in its life.
    pub state: KeyState,
    /// What verifiers need of it.
    #[serde(flatten)]
    pub material: M,
    /// When its publication was decided (wall time). A key that comes back while it is published keeps it.
    pub published_at: Timestamp,
    /// When it was last decided to sign with it; a retired key without it was superseded before it signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_at: Option<Timestamp>,
    /// When it was decided not to sign with it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Timestamp>,
}

/// A published JWT key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JwtMaterial {
    /// The public key.
    pub key: Jwk,
    /// No token is valid after this: the end of the certificate that came with the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
}

/// A published X.509 authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct X509Material {
    /// The signing CA.
    #[serde(serialize_with = "write_der", deserialize_with = "read_der")]
    pub certificate: CertificateDer<'static>,
    /// The certificates above it in `tls.crt`, nearest first.
    #[serde(
        default,
        serialize_with = "write_ders",
        deserialize_with = "read_ders",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub chain: Vec<CertificateDer<'static>>,
    /// Its root, when it is another certificate.
    #[serde(
        default,
        serialize_with = "write_root",
        deserialize_with = "read_root",
        skip_serializing_if = "Option::is_none"
    )]
    pub root: Option<CertificateDer<'static>>,
}

impl X509Material {
    /// What is stored of an authority.
    pub(super) fn of(authority: &X509Authority) -> Self {
        Self {
            certificate: authority.certificate.clone(),
            chain: authority.chain.iter().skip(1).cloned().collect(),
            root: authority.root.clone(),
        }
    }

    /// The latest start and the earliest end among the certificates of the chain.
    pub(super) fn validity(&self) -> (Timestamp, Timestamp) {
        let parsed = std::iter::once(&self.certificate)
            .chain(&self.chain)
            .filter_map(|der| X509Certificate::from_der(der).ok());
        parsed
            .map(|(_, certificate)| validity(&certificate))
            .fold((Timestamp::MIN, Timestamp::MAX), |(start, end), (from, until)| {
                (start.max(from), end.min(until))
            })
    }

    /// The signing CA and what stands above it, as in `tls.crt`.
    pub(super) fn full_chain(&self) -> Vec<CertificateDer<'static>> {
        std::iter::once(&self.certificate).chain(&self.chain).cloned().collect()
    }
}

/// The public state of a ring.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RingState {
    /// JWT keys, oldest first.
    #[serde(default)]
    pub jwt: Vec<Entry<JwtMaterial>>,
    /// X.509 authorities, oldest first.
    #[serde(default)]
    pub x509: Vec<Entry<X509Material>>,
    /// Ids that are never accepted again.
    #[serde(default)]
    pub revoked: BTreeSet<String>,
    /// The roots in the documents, by the hexadecimal SHA-256 of their DER, each with the moment its publication was
    /// decided. Empty unless roots are published.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub roots: BTreeMap<String, Timestamp>,
    /// `spiffe_sequence` of the bundle: changes exactly when the bundle's content does.
    #[serde(default)]
    pub sequence: u64,
}

impl RingState {
    /// The documents that this state publishes.
    pub fn documents(&self, policy: &RingPolicy) -> Result<Documents, DocumentsError> {
        let jwt_keys: Vec<_> = self.jwt.iter().map(|entry| entry.material.key.clone()).collect();
        Documents::render(&DocumentInput {
            issuer: policy.issuer.as_ref(),
            jwt_keys: &jwt_keys,
            x509_anchors: &self.anchors(policy.bundle_root),
            sequence: self.sequence,
            overlap: policy.jwt_overlap,
        })
    }

    /// The trust anchors: the signing CAs, and their roots if wanted, each once.
    pub fn anchors(&self, with_roots: bool) -> Vec<CertificateDer<'static>> {
        let mut anchors: Vec<CertificateDer<'static>> = Vec::new();
        for entry in &self.x509 {
            let roots = entry.material.root.iter().filter(|_| with_roots);
            for anchor in std::iter::once(&entry.material.certificate).chain(roots) {
                if !anchors.contains(anchor) {
                    anchors.push(anchor.clone());
                }
            }
        }
        anchors
    }

    /// Lists the roots that the documents of this state hold, each since when; the known ones keep their time.
    pub(super) fn list_roots(&mut self, with_roots: bool, wall: Timestamp) {
        let before = std::mem::take(&mut self.roots);
        if with_roots {
            let roots = self.x509.iter().filter_map(|entry| entry.material.root.as_ref());
            self.roots = roots
                .map(|root| {
                    let id = root_id(root);
                    let at = before.get(&id).copied().unwrap_or(wall);
                    (id, at)
                })
                .collect();
        }
    }

    /// Whether no key is published.
    pub(super) fn has_no_keys(&self) -> bool {
        self.jwt.is_empty() && self.x509.is_empty()
    }
}

/// The id of a root: hexadecimal SHA-256 of its DER.
pub(super) fn root_id(root: &[u8]) -> String {
    crate::hex(digest(&SHA256, root).as_ref())
}

impl<M> Entry<M> {
    pub(super) fn published(id: String, material: M, wall: Timestamp) -> Self {
        Self {
            id,
            state: KeyState::Published,
            material,
            published_at: wall,
            signing_at: None,
            retired_at: None,
        }
    }

    pub(super) fn sign(&mut self, wall: Timestamp) {
        self.state = KeyState::Signing;
        self.signing_at = Some(wall);
        self.retired_at = None;
    }

    pub(super) fn retire(&mut self, wall: Timestamp) {
        self.state = KeyState::Retired;
        self.retired_at = Some(wall);
    }
}

fn write_der<S: Serializer>(der: &CertificateDer<'_>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(der))
}

fn read_der<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CertificateDer<'static>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD
        .decode(text)
        .map(CertificateDer::from)
        .map_err(serde::de::Error::custom)
}

#[expect(clippy::ref_option, reason = "serde passes the field by reference")]
fn write_root<S: Serializer>(root: &Option<CertificateDer<'_>>, serializer: S) -> Result<S::Ok, S::Error> {
    root.as_ref().map(|der| STANDARD.encode(der)).serialize(serializer)
}

fn read_root<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<CertificateDer<'static>>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| {
        STANDARD
            .decode(text)
            .map(CertificateDer::from)
            .map_err(serde::de::Error::custom)
    })
    .transpose()
}

fn write_ders<S: Serializer>(ders: &[CertificateDer<'_>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ders.iter().map(|der| STANDARD.encode(der)))
}

fn read_ders<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<CertificateDer<'static>>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts
        .iter()
        .map(|text| {
            STANDARD
                .decode(text)
                .map(CertificateDer::from)
                .map_err(serde::de::Error::custom)
        })
        .collect()
}
