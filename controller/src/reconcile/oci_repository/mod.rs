//! One pass over an OCIRepository, from the object in the store to its status, its event and the time of the next pass.
//! Reads the registry and the Secrets that the object refers to; writes the artifact, then the status, each at most once.

mod departed;
mod events;
mod fetch;
mod newest;
mod status;
mod store;
mod takeover;
#[cfg(test)]
mod tests;
mod validate;

use std::{pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt;
use mintmark_api::{
    condition::{READY, reason},
    credential::CredentialStatus,
    oci_repository::{KIND, OciRepository, OciRepositoryStatus, PLURAL},
};
use tokio::sync::Semaphore;

pub use departed::{Departed, run as look_after_departed};
pub use fetch::Pull;
pub use validate::{Reference, ValidatedOciRepository};

use super::{
    Context, Outcome, Pass, Reconciled, StepError, conditions::is_true, pipeline::lost_its_credential, progress,
};
use crate::{
    artifact::{self, AdvertisedAddress, Record, Storage},
    notify::Action,
    watch::{Kind, ObjectKey, prune_metadata},
};

impl Kind for OciRepository {
    const KIND: &'static str = KIND;
    const PLURAL: &'static str = PLURAL;
    const REQUIRED_FIELDS: &'static [&'static str] = &["credential", "audiences"];

    fn pruned(mut self) -> Self {
        prune_metadata(&mut self.metadata);
        if let Some(status) = &mut self.status {
            status.conditions.shrink_to_fit();
        }
        self
    }

    fn same_spec(&self, other: &Self) -> bool {
        self.spec == other.spec
    }

    fn host(&self) -> &str {
        let rest = self.spec.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }

    fn has_credential(&self) -> bool {
        self.spec.credential.is_some()
    }

    fn is_ready(&self) -> Option<bool> {
        Some(is_true(READY, &self.status.as_ref()?.conditions))
    }
}

/// What the passes work with.
pub struct Own {
    /// What is served.
    pub storage: Storage,
    /// Where it is served, as consumers reach it.
    pub address: AdvertisedAddress,
    /// Extractions at a time.
    pub extractions: Arc<Semaphore>,
    /// Objects that left this shard, where there is one.
    pub departed: Option<Departed>,
}

impl Reconciled for OciRepository {
    type Status = OciRepositoryStatus;
    type Own = Own;
    type Found = Option<Arc<Record>>;
    type Kept = Option<Arc<Record>>;

    const ACTION: Action = Action::Reconcile;

    fn status(&self) -> Option<&OciRepositoryStatus> {
        self.status.as_ref()
    }

    fn with_status(&self, status: Option<OciRepositoryStatus>) -> Self {
        Self {
            metadata: self.metadata.clone(),
            spec: self.spec.clone(),
            status,
        }
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.spec.interval.to_std())
    }

    async fn pass(ctx: &Context<Self>, key: &ObjectKey, object: &Self) -> Option<Pass<Self>> {
        match run(ctx, key, object).await {
            Ok(pass) => {
                takeover::take(ctx, key);
                Some(pass)
            }
            Err(Theirs(error)) => {
                takeover::leave(ctx, key, object, &error);
                None
            }
        }
    }

    fn status_of(ctx: &Context<Self>, basis: &Self, pass: &Pass<Self>) -> OciRepositoryStatus {
        status_of(ctx, basis, &pass.outcome, pass.found.as_ref(), pass.credential.clone())
    }

    fn progressing(object: &Self, message: &str, now: Timestamp) -> OciRepositoryStatus {
        status::progressing(object, message, now)
    }

    fn tell(ctx: &Context<Self>, object: &Self, pass: &Pass<Self>) {
        events::tell(ctx, object, pass);
    }

    fn storage(ctx: &Context<Self>) -> Option<&Storage> {
        Some(&ctx.own.storage)
    }

    fn live_uid(ctx: &Context<Self>, key: &artifact::ObjectKey) -> Option<String> {
        departed::live_uid(ctx, key)
    }

    fn keeps_files(ctx: &Context<Self>, key: &ObjectKey, storage_key: &artifact::ObjectKey, uid: &str) -> bool {
        departed::keep(ctx, key, storage_key, uid)
    }

    async fn before_sweeps(ctx: &Arc<Context<Self>>) {
        departed::find(ctx).await;
    }
}

/// One pass over an object that is in no cluster: all of a pass but its status and events.
pub async fn pull_once(ctx: &Context<OciRepository>, object: &OciRepository) -> Result<Arc<Record>, StepError> {
    let pass = run(ctx, &ObjectKey::of(object), object).await;
    match pass.map_err(|Theirs(error)| error)? {
        Pass {
            outcome: Outcome::Failed { error, .. },
            ..
        } => Err(error),
        pass => pass
            .found
            .ok_or_else(|| StepError::storage(reason::ARCHIVE_OPERATION_FAILED, "nothing was stored")),
    }
}

/// Why an object is left to the controller that has served it: nothing of it is written.
struct Theirs(StepError);

async fn run(
    ctx: &Context<OciRepository>,
    key: &ObjectKey,
    object: &OciRepository,
) -> Result<Pass<OciRepository>, Theirs> {
    let mut pass = Pass::begun(ctx);
    let opened = match store::open(ctx, key, object).await {
        Ok(opened) => opened,
        Err(error) => {
            pass.outcome = Outcome::failed(error);
            return Ok(pass);
        }
    };
    pass.previous.clone_from(&opened.record);
    pass.found.clone_from(&opened.record);
    let validated = if lost_its_credential(ctx, key, object) {
        let message = "spec.credential vanished without a change of generation: another CRD pruned it";
        Err(StepError::terminal(reason::CREDENTIAL_INVALID, message))
    } else {
        ValidatedOciRepository::new(object, &ctx.settings)
    };
    if let Err(error) = &validated
        && takeover::is_theirs(ctx, object, error, pass.found.is_some())
    {
        return Err(Theirs(error.clone()));
    }
    if object.spec.suspend {
        return Ok(pass);
    }
    let validated = match validated {
        Ok(validated) => validated,
        Err(error) => {
            pass.outcome = Outcome::failed(error);
            return Ok(pass);
        }
    };
    pass.interval = Some(validated.interval);
    if object.spec.interval.to_std() < validated.interval {
        tracing::info!(
            controllerKind = KIND,
            namespace = &*key.namespace,
            name = &*key.name,
            "spec.interval is shorter than --min-interval, which is used instead"
        );
    }
    let mut pull = Pull::new(ctx, key, object, &validated, opened);
    let (drift, stored) = (pull.drift(), pull.record());
    let failed = |basis: &OciRepository, error: StepError| {
        let outcome = Outcome::failed_while(drift.message(), error);
        status_of(ctx, basis, &outcome, stored.as_ref(), None)
    };
    let pulled = {
        let work = pin!(pull.run());
        progress::watched(ctx, object, &drift, failed, work).await
    };
    pass.outcome = match pulled {
        Ok(()) => Outcome::Ready,
        Err(error) => Outcome::Failed {
            error,
            outdated: pull.outdated(),
            doing: drift.message(),
        },
    };
    pass.found = pull.record();
    pass.credential = pull.credential();
    Ok(pass)
}

/// The status that says `outcome` over what `basis` says now.
fn status_of(
    ctx: &Context<OciRepository>,
    basis: &OciRepository,
    outcome: &Outcome,
    record: Option<&Arc<Record>>,
    credential: Option<CredentialStatus>,
) -> OciRepositoryStatus {
    let key = artifact::ObjectKey::new(&basis.namespace().unwrap_or_default(), &basis.name_any());
    let latest = key.map(|key| ctx.own.storage.latest_path(&key)).unwrap_or_default();
    let stored = record.map(|record| status::Stored {
        record,
        url: ctx.own.address.url(&record.path),
        latest_url: ctx.own.address.url(&latest),
    });
    let findings = status::Findings {
        outcome,
        stored,
        credential,
        address: &ctx.own.address,
    };
    findings.status(basis, Timestamp::now())
}
