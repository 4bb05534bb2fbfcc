//! The key ring as others see it: its two Secrets, the gauges of its keys, what is served.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use mintmark_hack::{
    controller::{SIGNING_SECRET, STATE_SECRET},
    pki::KeyAndCertificate,
};
use serde_json::{Value, json};

use crate::{
    env::{DEADLINE, Env},
    http::until,
    issuer::authority,
};

/// Flags for suites with another subject: a new key signs the moment it is stored.
pub const AT_ONCE: [&str; 2] = ["--spiffe-key-overlap=0", "--spiffe-x509-overlap=0"];

/// The ids of a key and its CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// The JWT key id.
    pub kid: String,
    /// The authority id.
    pub authority: String,
}

impl Ids {
    /// The ids of what is in a signing Secret.
    pub fn of(pair: &KeyAndCertificate) -> Result<Self> {
        let authority = authority(pair)?;
        Ok(Self {
            kid: authority.jwt().map_err(Clone::clone)?.kid().to_owned(),
            authority: authority.x509().map_err(Clone::clone)?.id().to_owned(),
        })
    }
}

impl Env {
    /// `state.json` of a Secret with the ring's state.
    pub fn state_of(secret: &Secret) -> Option<Value> {
        let data = secret.data.as_ref()?.get("state.json")?;
        serde_json::from_slice(&data.0).ok()
    }

    /// Waits on a watch until Secret `mintmark-issuer` holds a state as wanted.
    pub async fn stored(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let api = self.secrets(&self.installation.namespace);
        let mut last = None;
        let watched = async {
            let mut objects = std::pin::pin!(watcher::watch_object(api, STATE_SECRET));
            while let Some(object) = objects.next().await {
                let Ok(object) = object else { continue };
                last = object.as_ref().and_then(Self::state_of);
                if let Some(state) = last.as_ref().filter(|state| wanted(state)) {
                    return Ok(state.clone());
                }
            }
            bail!("the watch ended")
        };
        match tokio::time::timeout(DEADLINE, watched).await {
            Ok(result) => result,
            Err(_) => bail!("not stored: {what}; last seen: {last:#?}"),
        }
    }

    /// The data of one of the controller's Secrets; none when it is absent.
    pub async fn data(&self, name: &str) -> Result<Option<BTreeMap<String, ByteString>>> {
        let secret = self.secrets(&self.installation.namespace).get_opt(name).await?;
        Ok(secret.map(|secret| secret.data.unwrap_or_default()))
    }

    /// Replaces the data of one of the controller's Secrets, whatever it was.
    pub async fn overwrite(&self, name: &str, data: BTreeMap<String, ByteString>) -> Result<()> {
        let api = self.secrets(&self.installation.namespace);
        let mut secret = api.get(name).await?;
        secret.data = Some(data);
        secret.metadata.resource_version = None;
        api.replace(name, &PostParams::default(), &secret).await?;
        Ok(())
    }

    /// Deletes one of the controller's Secrets.
    pub async fn delete_own_secret(&self, name: &str) -> Result<()> {
        let api = self.secrets(&self.installation.namespace);
        api.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Creates one of the controller's Secrets empty, as it is shipped.
    pub async fn create_own_secret(&self, name: &str) -> Result<()> {
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        };
        let api = self.secrets(&self.installation.namespace);
        api.create(&PostParams::default(), &secret).await?;
        Ok(())
    }

    /// Sets an annotation of the signing Secret.
    pub async fn annotate_signing_secret(&self, annotation: &str, value: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        let api = self.secrets(&self.installation.namespace);
        api.patch(SIGNING_SECRET, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// The states of all keys, by the gauge.
    pub async fn key_states(&self) -> Result<BTreeSet<(String, String)>> {
        let metrics = self.metrics().await?;
        let lines = metrics.lines().filter(|line| line.starts_with("mintmark_key_state{"));
        let read = |line: &str| {
            let label = |name: &str| Some(line.split_once(&format!("{name}=\""))?.1.split('"').next()?.to_owned());
            Some((label("kid")?, label("state")?))
        };
        Ok(lines.filter_map(read).collect())
    }

    /// Waits until the gauge shows this key in this state.
    pub async fn key_is(&self, id: &str, state: &str) -> Result<()> {
        let wanted = (id.to_owned(), state.to_owned());
        let wanted = &wanted;
        until(&format!("key {id} is {state}"), || async move {
            Ok(self.key_states().await.is_ok_and(|states| states.contains(wanted)))
        })
        .await
    }

    /// The served JWKS.
    pub async fn jwks(&self) -> Result<String> {
        let answer = reqwest::get(format!("{}/keys", self.ports.issuer_url())).await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// `spiffe_sequence` of the served bundle.
    pub async fn sequence(&self) -> Result<u64> {
        let answer = reqwest::get(format!("{}/spiffe/bundle.json", self.ports.issuer_url())).await?;
        let bundle: Value = answer.error_for_status()?.json().await?;
        bundle
            .get("spiffe_sequence")
            .and_then(Value::as_u64)
            .context("no sequence")
    }
}
