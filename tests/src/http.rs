//! Waiting for what HTTP endpoints say. Endpoints cannot be watched: they are asked again until a deadline.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::env::DEADLINE;

const INTERVAL: Duration = Duration::from_millis(50);

/// Asks `probe` until it says yes.
pub async fn until<F: Future<Output = Result<bool>>>(what: &str, mut probe: impl FnMut() -> F) -> Result<()> {
    until_within(DEADLINE, what, async || probe().await).await
}

/// The same with a limit of its own.
pub async fn until_within(limit: Duration, what: &str, mut probe: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let asking = async {
        let mut ticks = tokio::time::interval(INTERVAL);
        // A slow answer is not made up for by asking more often.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if probe().await? {
                return Ok(());
            }
        }
    };
    match tokio::time::timeout(limit, asking).await {
        Ok(result) => result,
        Err(_) => bail!("not within {} s: {what}", limit.as_secs()),
    }
}

/// Waits until a GET of `url` answers with `status`.
pub async fn until_status(url: &str, status: u16) -> Result<()> {
    until(&format!("{url} answers {status}"), || async move {
        Ok(reqwest::get(url).await.is_ok_and(|answer| answer.status() == status))
    })
    .await
}

/// GETs `target` exactly as it is written, where a client library would resolve its dots. The answer without its date.
pub async fn get_verbatim(origin: &str, target: &str) -> Result<String> {
    let address = origin.strip_prefix("http://").context("plain HTTP only")?;
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await??;
    let lines: Vec<_> = String::from_utf8_lossy(&answer)
        .split("\r\n")
        .filter(|line| !line.to_ascii_lowercase().starts_with("date:"))
        .map(str::to_owned)
        .collect();
    Ok(lines.join("\n"))
}
