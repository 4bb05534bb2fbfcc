//! What an observer of one object of any kind sees: every status, every post to the webhook and its metrics, after each
//! thing that happens to it. What is not listed in a step must not be seen in it.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use mintmark_hack::controller::Controller;
use serde_json::{Value, json};

use crate::{
    env::Env,
    fault_registry::FaultRegistry,
    history::{GONE, History},
    http::until,
    objects::{Kind, Objects},
    receiver::{Post, Receiver},
};

/// The object `app` at a registry of its own. A failed pass is not repeated by itself.
pub struct Scene<K: Kind> {
    /// Where the controller runs.
    pub env: Env,
    /// The controller.
    pub controller: Controller,
    /// The object's namespace.
    pub tenant: String,
    /// The registry.
    pub registry: FaultRegistry,
    /// Where posts arrive.
    pub receiver: Receiver,
    history: History,
    posted: usize,
    kind: std::marker::PhantomData<K>,
}

/// A post to the webhook in short.
pub fn post(severity: &str, reason: &str, message: impl Into<String>) -> Post {
    Post {
        severity: severity.to_owned(),
        reason: reason.to_owned(),
        message: message.into(),
    }
}

impl<K: Kind> Scene<K> {
    /// Starts everything; the object does not exist yet.
    pub async fn new(flags: &[&str]) -> Result<Self> {
        let env = Env::new().await?;
        let receiver = Receiver::start().await;
        let flag = receiver.flag();
        let own = [&*flag, "--min-retry-delay=10m"];
        let controller = env.controller(&[&own, flags].concat()).await?;
        let tenant = env.tenant("a").await?;
        let history = History::of(env.objects::<K>(&tenant).api(), "app");
        Ok(Self {
            env,
            controller,
            tenant,
            registry: FaultRegistry::start(None).await,
            receiver,
            history,
            posted: 0,
            kind: std::marker::PhantomData,
        })
    }

    /// The objects of the namespace.
    pub fn objects(&self) -> Objects<'_, K> {
        self.env.objects(&self.tenant)
    }

    /// Creates the object.
    pub async fn create(&self, spec: Value) -> Result<K> {
        self.objects().create("app", spec).await
    }

    /// Merges into its spec.
    pub async fn edit(&self, spec: Value) -> Result<K> {
        self.objects().patch("app", json!({"spec": spec})).await
    }

    /// Asks for a pass and waits until it was made.
    pub async fn reconcile(&self) -> Result<K> {
        self.objects().reconcile("app").await
    }

    /// Starts the controller that was ended again, and waits for a pass.
    pub async fn restart(&self) -> Result<()> {
        self.controller.resume()?;
        self.controller.wait_ready().await?;
        self.reconcile().await.map(drop)
    }

    /// The statuses since the last call are exactly these.
    pub async fn statuses(&mut self, step: &str, expected: &[String]) -> Result<()> {
        let last = expected.last().context("a status")?;
        let seen = self.history.up_to(last).await.with_context(|| step.to_owned())?;
        ensure!(seen == expected, "{step}: {seen:#?} instead of {expected:#?}");
        Ok(())
    }

    /// The posts since the last call are exactly these; one too many is found by the next call at the latest.
    pub async fn posts(&mut self, step: &str, expected: &[Post]) -> Result<()> {
        let wanted = self.posted + expected.len();
        until(&format!("{step}: {wanted} posts"), || async {
            Ok(self.receiver.posts("app").len() >= wanted)
        })
        .await?;
        let seen = self.receiver.posts("app").split_off(self.posted);
        ensure!(seen == expected, "{step}: {seen:#?} instead of {expected:#?}");
        self.posted += seen.len();
        Ok(())
    }

    /// Waits until `mintmark_object_ready` has this value, or is not there.
    pub async fn metric(&self, step: &str, value: Option<&str>) -> Result<()> {
        until(&format!("{step}: mintmark_object_ready is {value:?}"), || async {
            Ok(self.objects().ready_metric("app").await?.as_deref() == value)
        })
        .await
    }

    /// Waits until so many passes are under way.
    pub async fn running(&self, passes: &str) -> Result<()> {
        let line = format!("mintmark_running_passes{{kind=\"{}\"}} {passes}.0", K::kind(&()));
        until(&line, || async { Ok(self.env.metrics().await?.contains(&line)) }).await
    }

    /// The UID of the object.
    pub async fn uid(&self) -> Result<String> {
        let object = self.objects().get("app").await?;
        object.meta().uid.clone().context("a UID")
    }

    /// Where the object's files are.
    pub fn folder(&self) -> PathBuf {
        let kind = K::kind(&()).to_lowercase();
        self.controller.storage().join(kind).join(&self.tenant).join("app")
    }

    /// Deletes the object and waits until it, its files and its metrics are gone.
    pub async fn delete(&mut self) -> Result<()> {
        self.objects().delete("app").await?;
        let seen = self.history.up_to(GONE).await?;
        ensure!(seen == [GONE], "{seen:#?}");
        let folder = self.folder();
        until("the files are gone", || async { Ok(!folder.exists()) }).await?;
        let own = format!("namespace=\"{}\"", self.tenant);
        until("the metrics are gone", || async {
            Ok(!self.env.metrics().await?.contains(&own))
        })
        .await
    }
}
