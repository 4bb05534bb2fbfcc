//! What a controller did, as others saw it: the API server's audit log, Events, its own count of passes.

use anyhow::{Result, ensure};
use kube::api::ListParams;
use mintmark_api::{image_policy::ImagePolicy, image_repository::ImageRepository, oci_repository::OciRepository};
use mintmark_hack::{
    cluster::{AuditEvent, AuditMark},
    controller::Controller,
};

use crate::{env::Env, objects::Kind};

impl Env {
    /// The controller's user name at the API server.
    pub fn user(&self) -> String {
        format!("system:serviceaccount:{}:mintmark", self.installation.namespace)
    }

    /// The end of the audit log now.
    pub fn mark(&self) -> Result<AuditMark> {
        self.cluster.audit().mark()
    }

    /// What the controller asked of the API server since `mark`: no watches, and not whether it may list, which it asks now
    /// and then where the opt-in rights are missing.
    pub fn requests(&self, mark: AuditMark) -> Result<Vec<AuditEvent>> {
        let mut events = self.cluster.audit().events_of(&self.user(), mark)?;
        events.retain(|event| event.verb != "watch" && (event.verb != "list" || event.code() != 403));
        Ok(events)
    }

    /// How often the controller got this Secret or ServiceAccount since `mark`.
    pub fn reads(&self, mark: AuditMark, resource: &str, namespace: &str, name: &str) -> Result<usize> {
        let requests = self.requests(mark)?;
        let objects = requests.iter().filter_map(|event| event.object_ref.as_ref());
        let read = objects.filter(|object| object.resource == resource && object.namespace == namespace);
        Ok(read.filter(|object| object.name == name).count())
    }

    /// Verb and subresource of every request since `mark` about the object `name` of a reconciled kind.
    pub fn requests_about(&self, mark: AuditMark, name: &str) -> Result<Vec<String>> {
        let kinds = [OciRepository::PLURAL, ImageRepository::PLURAL, ImagePolicy::PLURAL];
        let about = self.requests(mark)?.into_iter().filter_map(|event| {
            let object = event.object_ref?;
            (kinds.contains(&&*object.resource) && object.name == name)
                .then(|| format!("{} {}", event.verb, object.subresource))
        });
        Ok(about.collect())
    }

    /// How often something was told about `name` with this reason.
    pub async fn told(&self, namespace: &str, name: &str, reason: &str) -> Result<i32> {
        let events = self.events(namespace).await?;
        let about = events.iter().filter(|event| {
            event.involved_object.name.as_deref() == Some(name) && event.reason.as_deref() == Some(reason)
        });
        Ok(about.map(|event| event.count.unwrap_or(1)).sum())
    }

    /// How many passes over the OCIRepository the controller has ended.
    pub async fn passes(&self, namespace: &str, name: &str) -> Result<usize> {
        self.objects::<OciRepository>(namespace).passes(name).await
    }

    /// Checks that none of `secrets` stands in the log, the metrics, or the Events and statuses of the tenant.
    pub async fn never_written(&self, controller: &Controller, tenant: &str, secrets: &[&str]) -> Result<()> {
        let written = [
            controller.log()?,
            self.metrics().await?,
            serde_json::to_string(&self.events(tenant).await?)?,
            self.statuses::<OciRepository>(tenant).await?,
            self.statuses::<ImageRepository>(tenant).await?,
            self.statuses::<ImagePolicy>(tenant).await?,
        ];
        for text in written {
            for secret in secrets {
                ensure!(!text.contains(secret), "{secret} in {text}");
            }
        }
        Ok(())
    }

    async fn statuses<K: Kind>(&self, tenant: &str) -> Result<String> {
        let objects = self.objects::<K>(tenant).api().list(&ListParams::default()).await?;
        let status: Vec<_> = objects.items.iter().map(Kind::status_json).collect();
        Ok(serde_json::to_string(&status)?)
    }
}
