//! TLS and proxy settings of an object, from the Secrets of `certSecretRef` and `proxySecretRef`. Messages quote nothing of a
//! Secret but its keys.

use std::collections::BTreeMap;

use mintmark_api::condition::reason;

use super::ValidatedAccess;
use crate::{
    credential::{CertificateCredential, Wanted},
    reconcile::{
        Reconciled, StepError,
        referents::{ProxySecret, Reader, TlsSecret},
    },
    registry::{CaBundle, ProxySettings},
    watch::ObjectKey,
};

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

/// Reads all of them.
pub async fn referents<K: Reconciled>(
    reader: &mut Reader<'_, K>,
    key: &ObjectKey,
    uid: &str,
    spec: &ValidatedAccess,
) -> Result<Referents, StepError> {
    let mut referents = Referents::default();
    if let Some(name) = &spec.cert_secret {
        let tls = reader.read::<TlsSecret>(name).await;
        let tls = tls.map_err(|why| transport(key, &why.secret(key, name)))?;
        if tls.client_certificate.is_some() {
            refuse_client_certificate(spec, name)?;
        }
        referents.ca.clone_from(&tls.ca);
        referents.client_certificate = tls.client_certificate_of(uid);
        let version = tls.version.clone();
        referents.versions.insert(format!("Secret/{name}"), version);
    }
    if let Some(name) = &spec.proxy_secret {
        let proxy = reader.read::<ProxySecret>(name).await;
        let proxy = proxy.map_err(|why| proxy_error(&why.secret(key, name)))?;
        referents.proxy = Some(proxy.settings.clone());
        let version = proxy.version.clone();
        referents.versions.insert(format!("Secret/{name}/proxy"), version);
    }
    Ok(referents)
}

/// Where a client certificate contradicts the object.
fn refuse_client_certificate(spec: &ValidatedAccess, name: &str) -> Result<(), StepError> {
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
