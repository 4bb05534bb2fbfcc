//! The newest reading of each signing Secret, and what their annotations ask for together.

use std::{collections::BTreeSet, sync::Arc};

use mintmark_issuer::{Authority, AuthorityError};

use super::Annotations;
use crate::watch::SigningReading;

/// One reading per signing Secret: at most two.
#[derive(Debug, Default)]
pub(super) struct SigningSecrets(Vec<SigningReading>);

impl SigningSecrets {
    /// Takes the place of the Secret's earlier reading, which is given back.
    pub(super) fn take(&mut self, reading: SigningReading) -> Option<SigningReading> {
        let earlier = self.0.iter().position(|held| held.uses == reading.uses);
        let earlier = earlier.map(|index| self.0.swap_remove(index));
        self.0.push(reading);
        earlier
    }

    /// What became of each.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = &Result<Arc<Authority>, AuthorityError>> + Clone {
        self.0.iter().map(|reading| &reading.outcome)
    }

    /// What is revoked by annotation.
    pub(super) fn revoked(&self) -> BTreeSet<String> {
        self.all(|annotations| &annotations.revoked)
    }

    /// What is activated by annotation.
    pub(super) fn activated(&self) -> BTreeSet<String> {
        self.all(|annotations| &annotations.activated)
    }

    fn all(&self, of: impl Fn(&Annotations) -> &BTreeSet<String>) -> BTreeSet<String> {
        let ids = self.0.iter().flat_map(|reading| of(&reading.annotations));
        ids.cloned().collect()
    }
}
