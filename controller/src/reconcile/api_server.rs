//! Whether the API server is known to be away. Every failed request to it is told here; whoever waits to write asks
//! whether it is back.

use tokio::sync::watch;

use crate::runtime::api_server::{is_down, is_unreachable};

/// What is known of the API server; one for all kinds.
#[derive(Debug)]
pub struct ApiServer(watch::Sender<bool>);

impl Default for ApiServer {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl ApiServer {
    /// A request to the API server failed. Returns whether it may be good, and is to be tried again soon: also when it was
    /// forbidden, for an API server that has just started does not know our rights yet.
    pub fn note(&self, error: &kube::Error) -> bool {
        if is_down(error) && !self.0.send_replace(true) {
            tracing::error!(%error, "the API server cannot be reached; pulls go on, status is written when it is back");
        }
        is_unreachable(error) || matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403))
    }

    /// Whether it is known to be away.
    pub fn is_down(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is known to be away.
    pub async fn down(&self) {
        // The sender is here, so that the wait does not fail.
        let _ = self.0.subscribe().wait_for(|is_down| *is_down).await;
    }

    /// It answered, and says that it is ready.
    pub(super) fn answered(&self) {
        if self.0.send_replace(false) {
            tracing::info!("the API server is back");
        }
    }
}
