//! What objects refer to: Secrets and service accounts of their namespaces. An index says who refers to what, and a watch on
//! metadata alone tells it what changed. No data of a Secret passes through here.

mod follow;
mod index;
mod metadata;
#[cfg(test)]
mod tests;

use super::ObjectKey;

pub use follow::ReferentFollower;
pub use index::{ReferentIndex, Version};
pub use metadata::ReferentWatch;

/// What an object may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReferentKind {
    /// A login, certificates, or a proxy.
    Secret,
    /// A login or a token, by its imagePullSecrets or annotations.
    ServiceAccount,
}

/// A Secret or ServiceAccount, whether it exists or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReferentKey {
    /// Which of the two.
    pub kind: ReferentKind,
    /// Namespace and name.
    pub key: ObjectKey,
}
