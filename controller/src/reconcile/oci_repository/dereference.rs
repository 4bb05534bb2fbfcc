//! Fetches what an object points to: for now the CA in the Secret of `certSecretRef`, one live GET per pass. Needs get on
//! Secrets.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client};
use mintmark_api::{condition::reason, oci_repository::OciRepository};

use crate::{
    reconcile::{Context, StepError},
    registry::CaBundle,
    runtime::api_server::{is_unreachable, timely},
    watch::ObjectKey,
};

/// Keys under which a CA may stand: today's, and the one that Flux used before.
const CA_KEYS: [&str; 2] = ["ca.crt", "caFile"];
/// Keys of a client certificate.
const CLIENT_KEYS: [&str; 4] = ["tls.crt", "tls.key", "certFile", "keyFile"];

/// What a pass depends on besides the object.
#[derive(Debug, Clone, Default)]
pub struct Referents {
    /// CAs to trust beside the system's.
    pub ca: Option<CaBundle>,
    /// Name of each referent to the version that was read, for the record.
    pub versions: BTreeMap<String, String>,
}

/// What each object's `certSecretRef` held when it was last read: used only while the API server cannot be reached.
#[derive(Debug, Default)]
pub struct KnownReferents(Mutex<HashMap<ObjectKey, (String, Referents)>>);

impl KnownReferents {
    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, (String, Referents)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &ObjectKey, name: &str) -> Option<Referents> {
        let known = self.lock();
        known
            .get(key)
            .filter(|(of, _)| of == name)
            .map(|(_, known)| known.clone())
    }

    /// The object is gone, or what it refers to was found to be unusable.
    pub fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }
}

/// Reads the Secret `name` of `certSecretRef`. `minted_certificate`: the object presents a minted client certificate.
pub async fn cert_secret(
    ctx: &Context<OciRepository>,
    key: &ObjectKey,
    name: &str,
    minted_certificate: bool,
) -> Result<Referents, StepError> {
    let known = || ctx.known_referents.get(key, name);
    if ctx.unwritten.is_down()
        && let Some(known) = known()
    {
        return Ok(known);
    }
    let transport = |what: String| {
        let message = format!("failed to generate transport for '{key}': {what}");
        StepError::fetch(reason::AUTHENTICATION_FAILED, message)
    };
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let read = timely(api.get_opt(name)).await;
    if let Err(error) = &read {
        ctx.unwritten.note(error);
        if is_unreachable(error)
            && let Some(known) = known()
        {
            return Ok(known);
        }
    }
    ctx.known_referents.forget(key);
    let secret = match read {
        Ok(Some(secret)) => secret,
        Ok(None) => return Err(transport(format!("Secret '{}/{name}' not found", key.namespace))),
        Err(kube::Error::Api(status)) => return Err(transport(format!("Secret '{name}': {}", status.message))),
        Err(_) => return Err(transport(format!("Secret '{name}': the API server cannot be reached"))),
    };
    let data = secret.data.unwrap_or_default();
    if CLIENT_KEYS.iter().any(|key| data.contains_key(*key)) {
        if minted_certificate {
            let message = format!(
                "Secret '{name}' of spec.certSecretRef holds a client certificate; with credential SpiffeCertificate only ca.crt is meant there"
            );
            return Err(StepError::terminal(reason::CREDENTIAL_INVALID, message));
        }
        return Err(StepError::unsupported("certSecretRef with a client certificate"));
    }
    let Some(ByteString(pem)) = CA_KEYS.iter().find_map(|key| data.get(*key)) else {
        return Err(transport(format!("Secret '{name}' has no ca.crt")));
    };
    let ca = CaBundle::from_pem(pem).map_err(|error| transport(format!("ca.crt of Secret '{name}': {error}")))?;
    let digest = ring::digest::digest(&ring::digest::SHA256, pem);
    let hex = digest
        .as_ref()
        .iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    let referents = Referents {
        ca: Some(ca),
        versions: BTreeMap::from([(format!("Secret/{name}"), hex)]),
    };
    let known = (name.to_owned(), referents.clone());
    ctx.known_referents.lock().insert(key.clone(), known);
    Ok(referents)
}

/// A Secret in the object's namespace, or what is wrong with it, for a message.
pub async fn secret(client: &Client, key: &ObjectKey, name: &str) -> Result<Secret, String> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &key.namespace);
    match timely(api.get_opt(name)).await {
        Ok(Some(secret)) => Ok(secret),
        Ok(None) => Err(format!("Secret '{}/{name}' not found", key.namespace)),
        Err(kube::Error::Api(status)) => Err(format!("Secret '{name}': {}", status.message)),
        Err(_) => Err(format!("Secret '{name}': the API server cannot be reached")),
    }
}
