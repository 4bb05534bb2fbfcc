//! Log lines as Flux's controllers write them, so that `flux logs` and existing pipelines read them: JSON on stderr with
//! `ts`, lower-case `level`, `msg`, `error`, `controllerKind`, `name`, `namespace` and all other fields flat.
//!
//! The audit target is written at every level. Libraries (HTTP, TLS, Kubernetes client) are heard from `warn` or `error`
//! up only: their debug output holds headers and URLs. Nothing reads `RUST_LOG`. As a last line of defence, text that has
//! the shape of a token, a key or a URL's secret part is replaced before it is written.

mod layer;
mod redact;
#[cfg(test)]
mod tests;

use std::io;

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{Layer, Registry, filter::Targets, fmt::MakeWriter, layer::SubscriberExt};

use self::layer::LineLayer;
pub use self::redact::redact;

/// The target of audit lines: `tracing::info!(target: AUDIT, …)`. Independent of the log level.
pub const AUDIT: &str = "mintmark::audit";

/// `--log-level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogLevel {
    /// Everything of our own, most detailed.
    Trace,
    /// Each request and decision.
    Debug,
    /// What changed.
    #[default]
    Info,
    /// Failures only.
    Error,
}

/// `--log-encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogEncoding {
    /// One JSON object per line.
    #[default]
    Json,
    /// `time LEVEL message key=value …`, for people.
    Console,
}

/// Logging was already set up in this process.
#[derive(Debug, thiserror::Error)]
#[error("logging is already set up")]
pub struct LogError(#[from] tracing::subscriber::SetGlobalDefaultError);

/// Libraries whose warnings are about single connections of peers, or could quote a request.
const QUIET: [&str; 9] = [
    "h2",
    "hyper",
    "hyper_util",
    "kube_client",
    "reqwest",
    "rustls",
    "tokio_rustls",
    "tokio_util",
    "tower",
];

impl LogLevel {
    const fn filter(self) -> LevelFilter {
        match self {
            Self::Trace => LevelFilter::TRACE,
            Self::Debug => LevelFilter::DEBUG,
            Self::Info => LevelFilter::INFO,
            Self::Error => LevelFilter::ERROR,
        }
    }

    fn targets(self) -> Targets {
        Targets::new()
            .with_default(self.filter().min(LevelFilter::WARN))
            .with_targets(QUIET.map(|target| (target, LevelFilter::ERROR)))
            .with_target("mintmark", self.filter())
            .with_target(AUDIT, LevelFilter::INFO)
    }
}

/// Sets up logging to stderr for the whole process, panics included. Once per process.
pub fn init(level: LogLevel, encoding: LogEncoding) -> Result<(), LogError> {
    tracing::subscriber::set_global_default(subscriber(level, encoding, io::stderr))?;
    std::panic::set_hook(Box::new(|panic| {
        let error = crate::runtime::supervise::panic_text(panic.payload());
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(error, location, "panic");
    }));
    Ok(())
}

/// The subscriber of [`init`], writing elsewhere; for tests that read their own lines.
pub fn subscriber<W>(level: LogLevel, encoding: LogEncoding, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    Registry::default().with(LineLayer::new(encoding, writer).with_filter(level.targets()))
}
