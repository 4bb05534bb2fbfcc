//! What the demo puts into a cluster that is not its own: recognised by a label, never in the place of somebody else's
//! object, and deleted at the end.

use anyhow::{Context, Result, bail};
use kube::{
    Client, ResourceExt,
    api::{DeleteParams, DynamicObject},
};

use crate::manifests;

/// The label on everything the demo applies. On objects of our kinds it is also the shard of the demo's controller, so that no
/// other controller takes them and it takes no others (Flux's sharding key).
pub const LABEL: (&str, &str) = ("sharding.fluxcd.io/key", "mintmark-demo");

/// Objects in the order in which they were applied.
#[derive(Default)]
pub struct Ledger(Vec<DynamicObject>);

impl Ledger {
    /// Labels objects as the demo's.
    pub fn mark(objects: &mut [DynamicObject]) {
        for object in objects {
            object.labels_mut().insert(LABEL.0.to_owned(), LABEL.1.to_owned());
        }
    }

    /// Writes down what will be applied. Fails when one of them exists and is not the demo's; a definition of a kind of ours
    /// is taken over, since it can exist only once, and stays.
    pub async fn note(&mut self, client: &Client, objects: &[DynamicObject]) -> Result<()> {
        let mut noted = Vec::new();
        for object in objects {
            let (kind, name) = (manifests::kind(object), object.name_any());
            // A kind that is not served yet has no objects.
            let existing = match manifests::api(client, object).await {
                Ok(api) => api
                    .get_opt(&name)
                    .await
                    .with_context(|| format!("cannot read {kind} {name}"))?,
                Err(_) => None,
            };
            let foreign = existing.is_some_and(|it| it.labels().get(LABEL.0).map(String::as_str) != Some(LABEL.1));
            if foreign && kind != "CustomResourceDefinition" {
                let place = object
                    .namespace()
                    .map(|it| format!(" in namespace {it}"))
                    .unwrap_or_default();
                bail!("{kind} {name} exists{place} and is not the demo's: use another cluster");
            }
            if !foreign {
                noted.push(object.clone());
            }
        }
        self.0.append(&mut noted);
        Ok(())
    }

    /// Deletes everything, what came last first. Tries each object and returns the first error.
    pub async fn clear(self, client: &Client) -> Result<()> {
        let mut objects = self.0;
        manifests::sort(&mut objects);
        let mut outcome = Ok(());
        for object in objects.iter().rev() {
            let deleted = delete(client, object).await;
            outcome = outcome.and(deleted);
        }
        outcome
    }
}

async fn delete(client: &Client, object: &DynamicObject) -> Result<()> {
    let (kind, name) = (manifests::kind(object), object.name_any());
    // A failed or interrupted start has not applied all.
    let Ok(api) = manifests::api(client, object).await else {
        return Ok(());
    };
    match api.delete(&name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot delete {kind} {name}")),
    }
}
