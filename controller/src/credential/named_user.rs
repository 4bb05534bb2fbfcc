//! A token presented as the password of a user name, for registries that know users only.

use std::sync::Arc;

use futures::{FutureExt as _, future::BoxFuture};

use super::{CredentialError, CredentialSource, Presented};

/// Adds a user name to the tokens of another source.
pub struct NamedUser<S> {
    source: Arc<S>,
    username: Option<Arc<str>>,
}

impl<S> NamedUser<S> {
    /// Presents the tokens of `source` as passwords of `username`; without one, as they are.
    pub fn new(source: Arc<S>, username: Option<Arc<str>>) -> Self {
        Self { source, username }
    }

    fn named(&self, mut presented: Presented) -> Presented {
        if let Presented::Jwt(jwt) = &mut presented {
            jwt.username.clone_from(&self.username);
        }
        presented
    }
}

impl<S: CredentialSource> CredentialSource for NamedUser<S> {
    fn current(&self) -> BoxFuture<'_, Result<Presented, CredentialError>> {
        async move { self.source.current().await.map(|presented| self.named(presented)) }.boxed()
    }

    fn renew<'a>(&'a self, refused: &'a Presented) -> BoxFuture<'a, Result<Presented, CredentialError>> {
        async move { self.source.renew(refused).await.map(|presented| self.named(presented)) }.boxed()
    }
}
