//! Fetches what an object points to, one live GET per pass and referent: here TLS and proxy settings, from the Secrets of
//! `certSecretRef` and `proxySecretRef`. Needs get on Secrets. Messages quote nothing of a Secret but its keys.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt;
use mintmark_api::{condition::reason, oci_repository::OciRepository};
use secrecy::SecretString;

use super::{ValidatedOciRepository, known};
use crate::{
    credential::{CertificateCredential, CredentialGeneration, Wanted},
    reconcile::{Context, StepError},
    registry::{CaBundle, ProxySettings},
    watch::ObjectKey,
};

/// Keys of a CA, a client certificate and its key: today's, and those that Flux used before.
const CA: [&str; 2] = ["ca.crt", "caFile"];
const CERTIFICATE: [&str; 2] = ["tls.crt", "certFile"];
const KEY: [&str; 2] = ["tls.key", "keyFile"];

/// What a pass depends on besides the object.
#[derive(Debug, Clone, Default)]
pub struct Referents {
    /// CAs to trust beside the system's.
    pub ca: Option<CaBundle>,
    /// The user's own client certificate.
    pub client_certificate: Option<CertificateCredential>,
    /// The way to the registry.
    pub proxy: Option<ProxySettings>,
    /// Name of each referent to the version that was read, for the record.
    pub versions: BTreeMap<String, String>,
}

/// What the Secret of `certSecretRef` holds.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    ca: Option<CaBundle>,
    client_certificate: Option<CertificateCredential>,
    version: String,
}

/// What the Secret of `proxySecretRef` holds.
#[derive(Debug, Clone)]
pub struct Proxy {
    settings: ProxySettings,
    version: String,
}

/// Reads all of them.
pub async fn referents(
    ctx: &Context<OciRepository>,
    key: &ObjectKey,
    uid: &str,
    spec: &ValidatedOciRepository,
) -> Result<Referents, StepError> {
    let mut referents = Referents::default();
    if let Some(name) = &spec.cert_secret {
        let unread = |why: known::Unread| transport(key, &why.secret(key, name));
        let tls: Tls = known::read(ctx, key, name, unread, |secret| Tls::read(key, uid, spec, secret)).await?;
        referents.ca = tls.ca;
        referents.client_certificate = tls.client_certificate;
        referents.versions.insert(format!("Secret/{name}"), tls.version);
    }
    if let Some(name) = &spec.proxy_secret {
        let unread = |why: known::Unread| proxy_error(&why.secret(key, name));
        let proxy: Proxy = known::read(ctx, key, name, unread, Proxy::read).await?;
        referents.proxy = Some(proxy.settings);
        referents.versions.insert(format!("Secret/{name}/proxy"), proxy.version);
    }
    Ok(referents)
}

impl Tls {
    fn read(key: &ObjectKey, uid: &str, spec: &ValidatedOciRepository, secret: &Secret) -> Result<Self, StepError> {
        let mut tls = Self::default();
        let name = secret.name_any();
        let value = |keys: [&'static str; 2]| keys.into_iter().find_map(|key| bytes(secret, key));
        let (ca, certificate, private_key) = (value(CA), value(CERTIFICATE), value(KEY));
        if certificate.is_some() || private_key.is_some() {
            refuse_client_certificate(spec, &name)?;
        }
        let pair = match (certificate, private_key) {
            (Some(certificate), Some(private_key)) => Some((certificate, private_key)),
            (Some(_), None) => return Err(transport(key, &format!("Secret '{name}' has tls.crt without tls.key"))),
            (None, Some(_)) => return Err(transport(key, &format!("Secret '{name}' has tls.key without tls.crt"))),
            (None, None) if ca.is_none() => return Err(transport(key, &format!("Secret '{name}' has no ca.crt"))),
            (None, None) => None,
        };
        let mut hash = ring::digest::Context::new(&ring::digest::SHA256);
        if let Some(pem) = ca {
            let bundle = CaBundle::from_pem(pem);
            tls.ca = Some(bundle.map_err(|error| transport(key, &format!("ca.crt of Secret '{name}': {error}")))?);
            hash.update(pem);
        }
        if let Some((certificate, private_key)) = pair {
            let generation = format!("{uid}/ClientCertificate/{name}/{}", version(secret));
            let read =
                CertificateCredential::from_pem(certificate, private_key, CredentialGeneration(generation.into()));
            let read =
                read.map_err(|error| transport(key, &format!("tls.crt and tls.key of Secret '{name}': {error}")))?;
            tls.client_certificate = Some(read);
            // Beside a CA, so that no text can stand for both.
            hash.update(&[0]);
            hash.update(certificate);
        }
        let digest = hash.finish();
        tls.version = digest
            .as_ref()
            .iter()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        Ok(tls)
    }
}

impl Proxy {
    fn read(secret: &Secret) -> Result<Self, StepError> {
        let name = secret.name_any();
        let text = |key: &'static str| {
            let value = bytes(secret, key).map(std::str::from_utf8).transpose();
            value.map_err(|_| proxy_error(&format!("{key} of Secret '{name}' is not text")))
        };
        let address = text("address")?.ok_or_else(|| proxy_error(&format!("Secret '{name}' has no address")))?;
        let (username, password) = (
            text("username")?,
            SecretString::from(text("password")?.unwrap_or_default()),
        );
        let settings = ProxySettings::new(address.trim(), username, &password)
            .map_err(|error| proxy_error(&format!("Secret '{name}': {error}")))?;
        Ok(Self {
            settings,
            version: version(secret),
        })
    }
}

/// Where a client certificate contradicts the object.
fn refuse_client_certificate(spec: &ValidatedOciRepository, name: &str) -> Result<(), StepError> {
    let message = if spec.credential == Wanted::SpiffeCertificate {
        format!(
            "Secret '{name}' of spec.certSecretRef holds a client certificate; with credential SpiffeCertificate only \
             ca.crt is meant there"
        )
    } else if spec.origin.is_https() {
        return Ok(());
    } else {
        format!(
            "Secret '{name}' of spec.certSecretRef holds a client certificate; with spec.insecure there is no TLS to \
             present it in"
        )
    };
    Err(StepError::terminal(reason::CREDENTIAL_INVALID, message))
}

fn transport(key: &ObjectKey, what: &str) -> StepError {
    let message = format!("failed to generate transport for '{key}': {what}");
    StepError::fetch(reason::AUTHENTICATION_FAILED, message)
}

fn proxy_error(what: &str) -> StepError {
    StepError::fetch(
        reason::AUTHENTICATION_FAILED,
        format!("failed to get proxy address: {what}"),
    )
}

fn bytes<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    let ByteString(bytes) = secret.data.as_ref()?.get(key)?;
    Some(bytes)
}

fn version(secret: &Secret) -> String {
    format!(
        "{}/{}",
        secret.uid().unwrap_or_default(),
        secret.resource_version().unwrap_or_default()
    )
}
