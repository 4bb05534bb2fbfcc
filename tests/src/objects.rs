//! Objects of any kind that is reconciled, as tenants work with them: created from JSON, edited, asked for a pass, and
//! waited for on a watch.

use std::{
    fmt::Debug,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use mintmark_api::{
    image_policy::{self, ImagePolicy, ImageRef},
    image_repository::{self, ImageRepository},
    oci_repository::{self, OciRepository},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::env::{DEADLINE, Env, TRUST_DOMAIN};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A kind whose objects have passes.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Its plural name, as in API paths and SPIFFE IDs.
    const PLURAL: &'static str;
    /// What an object without an interval gets.
    const INTERVAL: Option<&'static str> = Some("1h");

    /// `status.conditions`.
    fn conditions(&self) -> &[Condition];
    /// `status.observedGeneration`.
    fn observed_generation(&self) -> Option<i64>;
    /// `status.lastHandledReconcileAt`.
    fn handled(&self) -> Option<&str>;
    /// What the status says was found, in a line.
    fn found(&self) -> String;
    /// The whole status.
    fn status_json(&self) -> Value;
}

macro_rules! common_status {
    () => {
        fn conditions(&self) -> &[Condition] {
            self.status.as_ref().map_or(&[], |status| &status.conditions)
        }

        fn observed_generation(&self) -> Option<i64> {
            self.status.as_ref()?.observed_generation
        }

        fn handled(&self) -> Option<&str> {
            self.status.as_ref()?.last_handled_reconcile_at.as_deref()
        }

        fn status_json(&self) -> Value {
            serde_json::to_value(&self.status).unwrap_or_default()
        }
    };
}

impl Kind for OciRepository {
    const PLURAL: &'static str = oci_repository::PLURAL;

    common_status!();

    fn found(&self) -> String {
        let artifact = self.status.as_ref().and_then(|status| status.artifact.as_ref());
        format!("stored {}", artifact.map_or("nothing", |artifact| &artifact.revision))
    }
}

impl Kind for ImageRepository {
    const PLURAL: &'static str = image_repository::PLURAL;

    common_status!();

    fn found(&self) -> String {
        let status = self.status.clone().unwrap_or_default();
        let Some(result) = status.last_scan_result else {
            return "found nothing".to_owned();
        };
        format!(
            "found {} tags {:?} of {} without {:?}",
            result.tag_count,
            result.latest_tags,
            status.canonical_image_name.unwrap_or_default(),
            status.observed_exclusion_list
        )
    }
}

impl Kind for ImagePolicy {
    const PLURAL: &'static str = image_policy::PLURAL;
    const INTERVAL: Option<&'static str> = None;

    common_status!();

    fn found(&self) -> String {
        let status = self.status.clone().unwrap_or_default();
        let shown = |image: Option<ImageRef>| {
            image.map_or_else(
                || "nothing".to_owned(),
                |image| {
                    let digest = Some(image.digest).filter(|digest| !digest.is_empty());
                    let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
                    format!("{}:{}{digest}", image.name, image.tag)
                },
            )
        };
        format!(
            "selected {}, before {}",
            shown(status.latest_ref),
            shown(status.observed_previous_ref)
        )
    }
}

/// The objects of one kind in one namespace.
pub struct Objects<'a, K: Kind> {
    env: &'a Env,
    namespace: String,
    api: Api<K>,
}

impl<'a, K: Kind> Objects<'a, K> {
    /// Those of `namespace`.
    pub fn new(env: &'a Env, namespace: &str) -> Self {
        Self {
            env,
            namespace: namespace.to_owned(),
            api: Api::namespaced(env.client.clone(), namespace),
        }
    }

    /// The API of these objects.
    pub fn api(&self) -> Api<K> {
        self.api.clone()
    }

    /// Creates one from its spec as JSON; `interval` is an hour unless given, where the kind has one.
    pub async fn create(&self, name: &str, mut spec: Value) -> Result<K> {
        if let (Some(fields), Some(interval)) = (spec.as_object_mut(), K::INTERVAL) {
            fields.entry("interval").or_insert_with(|| interval.into());
        }
        let object = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()),
            "metadata": {"name": name, "labels": self.env.labels()}, "spec": spec});
        let object = serde_json::from_value(object)?;
        Ok(self.api.create(&PostParams::default(), &object).await?)
    }

    /// The object as it is.
    pub async fn get(&self, name: &str) -> Result<K> {
        Ok(self.api.get(name).await?)
    }

    /// Merges into an object.
    pub async fn patch(&self, name: &str, patch: Value) -> Result<K> {
        let params = PatchParams::default();
        Ok(self.api.patch(name, &params, &Patch::Merge(patch)).await?)
    }

    /// Merges into the spec of an object.
    pub async fn edit(&self, name: &str, spec: Value) -> Result<K> {
        self.patch(name, json!({"spec": spec})).await
    }

    /// Deletes an object.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.api.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Asks for a pass and waits until it was made.
    pub async fn reconcile(&self, name: &str) -> Result<K> {
        let token = format!("{}", COUNTER.fetch_add(1, Ordering::Relaxed));
        let patch = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": token}}});
        self.patch(name, patch).await?;
        self.wait(name, "the pass that was asked for", |object| {
            object.handled() == Some(&token)
        })
        .await
    }

    /// Waits on a watch until the object is as wanted; fails with the object as it was last seen.
    pub async fn wait(&self, name: &str, what: &str, wanted: impl Fn(&K) -> bool) -> Result<K> {
        let mut last = None;
        let watched = async {
            let mut objects = std::pin::pin!(watcher::watch_object(self.api(), name));
            while let Some(object) = objects.next().await {
                let Ok(Some(object)) = object else { continue };
                if wanted(&object) {
                    return Ok(object);
                }
                last = Some(object);
            }
            bail!("the watch ended")
        };
        match tokio::time::timeout(DEADLINE, watched).await {
            Ok(result) => result,
            Err(_) => bail!(
                "{}/{name} did not reach: {what}; last seen: {:#}",
                self.namespace,
                last.map(|object| object.status_json()).unwrap_or_default()
            ),
        }
    }

    /// Waits until Ready is True for the current generation.
    pub async fn ready(&self, name: &str) -> Result<K> {
        self.wait(name, "Ready=True", |object| {
            condition(object, "Ready")
                .is_some_and(|ready| ready.status == "True" && ready.observed_generation == object.meta().generation)
        })
        .await
    }

    /// Waits until Ready is False with this reason and a message that contains `text`.
    pub async fn failed(&self, name: &str, reason: &str, text: &str) -> Result<K> {
        self.wait(name, &format!("Ready=False {reason} …{text}…"), |object| {
            condition(object, "Ready")
                .is_some_and(|ready| ready.status == "False" && ready.reason == reason && ready.message.contains(text))
        })
        .await
    }

    /// The SPIFFE ID of the object `name`.
    pub fn spiffe_id(&self, name: &str) -> String {
        format!("spiffe://{TRUST_DOMAIN}/{}/{}/{name}", K::PLURAL, self.namespace)
    }

    /// How many passes over the object the controller has ended.
    pub async fn passes(&self, name: &str) -> Result<usize> {
        let labels = format!(
            "{{kind=\"{}\",name=\"{name}\",namespace=\"{}\"}} ",
            K::kind(&()),
            self.namespace
        );
        let line = format!("gotk_reconcile_duration_seconds_count{labels}");
        let text = self.env.metrics().await?;
        let value = text.lines().find_map(|text| text.strip_prefix(&line));
        value.unwrap_or("0").parse().context("a count of passes")
    }

    /// The value of `mintmark_object_ready` of the object, if there is one.
    pub async fn ready_metric(&self, name: &str) -> Result<Option<String>> {
        let labels = format!(
            "{{kind=\"{}\",name=\"{name}\",namespace=\"{}\"}} ",
            K::kind(&()),
            self.namespace
        );
        let line = format!("mintmark_object_ready{labels}");
        let text = self.env.metrics().await?;
        let value = text.lines().find_map(|text| text.strip_prefix(&line));
        Ok(value.map(str::to_owned))
    }
}

/// The condition of this type.
pub fn condition<'a, K: Kind>(object: &'a K, kind: &str) -> Option<&'a Condition> {
    object.conditions().iter().find(|condition| condition.type_ == kind)
}
