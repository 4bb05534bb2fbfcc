//! Many objects that pull all the time while their signing key changes, and an account of every pull: what each registry
//! took and refused under which key, and every failure that an object showed.

mod group;
mod keys;
mod observer;
mod seen;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use mintmark_hack::{pki::TestCa, registry::Artifact};

pub use group::{Group, Verifier};
pub use keys::{Keys, body};
pub use observer::Observer;
pub use seen::{Seen, Use};

use crate::{
    env::{DEADLINE, Env},
    http::until_within,
};

/// The objects, their registries, and what happened.
pub struct Fleet {
    /// Where the controller runs.
    pub env: Env,
    /// The tenant's namespace.
    pub namespace: String,
    /// One per verifier, in the order given.
    pub groups: Vec<Group>,
    /// What the watch shows.
    pub observer: Observer,
    issuer: String,
}

impl Fleet {
    /// Makes a registry and so many objects per verifier, which pull every `interval` as soon as a controller runs. `issuer`
    /// is where the registries find the documents. Done when the API server has the objects.
    pub async fn new(env: Env, issuer: &str, interval: &str, groups: &[(Verifier, usize)]) -> Result<Self> {
        let namespace = env.tenant("fleet").await?;
        let observer = Observer::new(env.repositories(&namespace));
        let mut made = Vec::new();
        for (index, (verifier, count)) in groups.iter().enumerate() {
            let names = (0..*count).map(|object| format!("g{index}-{object}")).collect();
            made.push(Group::new(&env, issuer, *verifier, names).await?);
        }
        let fleet = Self {
            env,
            namespace,
            groups: made,
            observer,
            issuer: issuer.to_owned(),
        };
        let artifact = artifact("first")?;
        for group in &fleet.groups {
            group.push(&artifact).await?;
            group.create(&fleet.env, &fleet.namespace, interval).await?;
        }
        Ok(fleet)
    }

    /// Reads what the registries saw since the last look.
    pub fn look(&mut self) -> Result<()> {
        self.groups
            .iter_mut()
            .try_for_each(|group| group.seen.look(&group.registry))
    }

    /// Looks until it is as wanted.
    pub async fn until(&mut self, limit: Duration, what: &str, wanted: impl Fn(&Self) -> bool) -> Result<()> {
        let outcome = until_within(limit, what, async || {
            self.look()?;
            Ok(wanted(self))
        })
        .await;
        if let Err(error) = outcome {
            let shown = self.observer.shown();
            let refused = self.refused()?;
            return Err(error.context(format!("failed: {:#?}; refused: {refused:#?}", shown.failed)));
        }
        Ok(())
    }

    /// Waits until every object pulled with these keys.
    pub async fn all_present(&mut self, keys: &Keys) -> Result<()> {
        self.until(DEADLINE, &presentation(keys), |fleet| {
            fleet.groups.iter().all(|group| fleet.is_presented(group, keys))
        })
        .await
    }

    /// The same of one group, with a limit of its own.
    pub async fn group_presents(&mut self, group: usize, keys: &Keys, limit: Duration) -> Result<()> {
        self.until(limit, &presentation(keys), |fleet| {
            let group = fleet.groups.get(group);
            group.is_some_and(|group| fleet.is_presented(group, keys))
        })
        .await
    }

    fn is_presented(&self, group: &Group, keys: &Keys) -> bool {
        let mut subjects = group.names.iter().map(|name| Env::spiffe_id(&self.namespace, name));
        subjects.all(|subject| group.seen.uses(group.key(keys), &subject).is_some())
    }

    /// Waits until every object pulled `times` more.
    pub async fn pulls(&mut self, times: usize) -> Result<()> {
        self.look()?;
        let before = self.counts();
        self.until(DEADLINE, &format!("{times} more pulls of every object"), move |fleet| {
            fleet
                .counts()
                .iter()
                .zip(&before)
                .all(|(now, before)| *now >= before + times)
        })
        .await
    }

    /// How many requests of each object were answered, in a fixed order.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for group in &self.groups {
            let subjects = group.names.iter().map(|name| Env::spiffe_id(&self.namespace, name));
            counts.extend(subjects.map(|subject| group.seen.count(&subject)));
        }
        counts
    }

    /// Pushes other content everywhere and returns its revision.
    pub async fn push(&self, text: &str) -> Result<String> {
        let (artifact, mut revision) = (artifact(text)?, String::new());
        for group in &self.groups {
            revision = group.push(&artifact).await?;
        }
        Ok(revision)
    }

    /// Waits until every object is ready with this revision.
    pub async fn ready_with(&mut self, revision: &str, limit: Duration) -> Result<()> {
        let count = self.names().len();
        self.until(limit, &format!("every object is ready with {revision}"), |fleet| {
            let shown = fleet.observer.shown();
            shown.ready.len() == count && shown.ready.values().all(|shown| shown == revision)
        })
        .await
    }

    /// Pushes other content everywhere and waits until every object has it.
    pub async fn pull_content(&mut self, text: &str) -> Result<()> {
        let revision = self.push(text).await?;
        self.ready_with(&revision, DEADLINE).await
    }

    /// The names of all objects.
    pub fn names(&self) -> Vec<String> {
        self.groups.iter().flat_map(|group| group.names.clone()).collect()
    }

    /// Puts another CA and its key into the signing Secret. The time is before the write.
    pub async fn rotate(&self, ca: &TestCa) -> Result<(Keys, Timestamp)> {
        let now = Timestamp::now();
        self.env.sign_with(ca.key_and_certificate()).await?;
        Ok((Keys::of(ca)?, now))
    }

    /// The published key set and the published CAs.
    pub async fn documents(&self) -> Result<(String, String)> {
        Ok((
            self.document("/keys").await?,
            self.document("/spiffe/bundle.pem").await?,
        ))
    }

    async fn document(&self, path: &str) -> Result<String> {
        let answer = reqwest::get(format!("{}{path}", self.issuer)).await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    /// Whether these keys are in the documents: for tokens, for certificates.
    pub async fn publishes(&self, keys: &Keys) -> Result<(bool, bool)> {
        let (key_set, bundle) = self.documents().await?;
        Ok((key_set.contains(&keys.kid), body(&bundle).contains(&keys.certificate)))
    }

    /// Waits until both of these keys are in the documents.
    pub async fn published(&self, keys: &Keys) -> Result<()> {
        until_within(DEADLINE, "the new keys are published", async || {
            // The controller may be about to start.
            Ok(self.publishes(keys).await.is_ok_and(|found| found == (true, true)))
        })
        .await
    }

    /// Does what the operator of a registry with a CA file does: takes the published CAs and restarts it with them.
    pub async fn renew_ca_files(&self) -> Result<()> {
        let bundle = self.document("/spiffe/bundle.pem").await?;
        for group in self.groups.iter().filter(|group| group.is_x509()) {
            group.restart_with(&bundle).await?;
        }
        Ok(())
    }

    /// When the first token of these keys was taken, and when the first certificate was.
    pub fn first_uses(&self, keys: &Keys) -> Vec<Timestamp> {
        let groups = self.groups.iter();
        groups
            .filter_map(|group| group.seen.first_use(group.key(keys)))
            .collect()
    }

    /// Fails unless every object pulled with these keys after `time`.
    pub fn all_presented_after(&self, keys: &Keys, time: Timestamp) -> Result<()> {
        for group in &self.groups {
            for name in &group.names {
                let seen = group.seen.uses(group.key(keys), &Env::spiffe_id(&self.namespace, name));
                ensure!(
                    seen.is_some_and(|seen| seen.last >= time),
                    "{name} did not pull after {time} with {keys:?}: {seen:?}"
                );
            }
        }
        Ok(())
    }

    /// Fails if a registry refused anything, or an object failed.
    pub fn no_failed_pull(&mut self) -> Result<()> {
        self.look()?;
        let refused = self.refused()?;
        let shown = self.observer.shown();
        ensure!(
            refused.is_empty() && shown.failed.is_empty(),
            "refused: {refused:#?}; failed: {:#?}",
            shown.failed
        );
        Ok(())
    }

    fn refused(&self) -> Result<Vec<String>> {
        let mut refused = Vec::new();
        for group in &self.groups {
            refused.extend(group.refused()?);
        }
        Ok(refused)
    }
}

fn presentation(keys: &Keys) -> String {
    format!("every object pulls with {} or {}", keys.kid, keys.key_identifier)
}

/// Fails unless every one of `uses` is `overlap` or more after `start`.
pub fn not_before(uses: &[Timestamp], start: Timestamp, overlap: Duration) -> Result<()> {
    let end = start.checked_add(overlap).context("the end of an overlap")?;
    for first in uses {
        ensure!(
            *first >= end,
            "a key signed at {first}, before its overlap of {overlap:?} from {start} was over"
        );
    }
    Ok(())
}

fn artifact(text: &str) -> Result<Artifact> {
    Artifact::from_files(&[("app.yaml", text.as_bytes())])
}
