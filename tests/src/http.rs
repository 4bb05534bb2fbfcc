//! Waiting for what HTTP endpoints say. Endpoints cannot be watched: they are asked again until a deadline.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::env::DEADLINE;

const INTERVAL: Duration = Duration::from_millis(50);

/// Asks `probe` until it says yes.
pub async fn until<F: Future<Output = Result<bool>>>(what: &str, mut probe: impl FnMut() -> F) -> Result<()> {
    let asking = async {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            if probe().await? {
                return Ok(());
            }
        }
    };
    match tokio::time::timeout(DEADLINE, asking).await {
        Ok(result) => result,
        Err(_) => bail!("not within {} s: {what}", DEADLINE.as_secs()),
    }
}

/// Waits until a GET of `url` answers with `status`.
pub async fn until_status(url: &str, status: u16) -> Result<()> {
    until(&format!("{url} answers {status}"), || async move {
        Ok(reqwest::get(url).await.is_ok_and(|answer| answer.status() == status))
    })
    .await
}
