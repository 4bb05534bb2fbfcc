//! Settings of the process-wide registry client, with the defaults of the flags behind them.
//!
//! Limits of an object (its timeout, its CA) are not here but in [`super::SessionSpec`].

use std::{sync::Arc, time::Duration};

use hyper_util::client::proxy::matcher::Matcher;
use tokio::sync::Semaphore;

use super::{
    address::AddressPolicy,
    glob::HostGlob,
    observe::{NoObserver, Observer},
    resolver::{Lookup, SystemLookup},
};

/// Settings of a [`super::RegistryClient`].
#[derive(Clone)]
pub struct RegistryConfig {
    /// `User-Agent` of every request.
    pub user_agent: String,
    /// `--registry-deny-cidrs`, `--registry-allow-cidrs`.
    pub addresses: AddressPolicy,
    /// `--allow-insecure-credentials`: hosts that may get a token over plain HTTP though they are not loopback.
    pub insecure_credential_hosts: Vec<HostGlob>,
    /// `--manifest-max-size`, in bytes.
    pub manifest_max_size: u64,
    /// `--tag-list-max-bytes`: all pages of a tag list together, in bytes.
    pub tag_list_max_bytes: u64,
    /// Most pages of a tag list.
    pub tag_list_max_pages: usize,
    /// `--registry-concurrency`: passes at a time per host; one namespace gets at most half of them.
    pub concurrency: usize,
    /// `--registry-idle-connections`: idle connections in all; one namespace gets at most half of them.
    pub idle_connections: usize,
    /// `--registry-max-transports`: distinct CA sets kept; one namespace gets at most half of them.
    pub max_transports: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// Bounds one connection attempt, TLS included.
    pub connect_timeout: Duration,
    /// When and how often a request is repeated within a pass.
    pub retry: RetryPolicy,
    /// Slower transfers fail: bytes per second, on average.
    pub minimum_rate: u64,
    /// The average is looked at after this much waiting for a body.
    pub slow_after: Duration,
    /// Proxies of the process environment (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`).
    pub environment_proxies: Arc<Matcher>,
    /// Name resolution.
    pub lookup: Arc<dyn Lookup>,
    /// Metrics and audit.
    pub observer: Arc<dyn Observer>,
    /// Worker slots (`--concurrent`) that a session takes after its host permit and gives back while it waits.
    pub workers: Option<Arc<Semaphore>>,
}

/// Repetitions of a request that failed for a momentary reason.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// The wait before each repetition; as many repetitions as there are waits.
    pub delays: Vec<Duration>,
    /// Each wait is varied by up to this share of itself, both ways.
    pub jitter: f64,
    /// A longer `Retry-After` fails the pass at once.
    pub retry_after_max: Duration,
    /// Connect failures in a row after which a host is only probed.
    pub circuit_failures: u32,
    /// The first wait between probes; doubles with each failed one.
    pub probe_delay: Duration,
    /// The longest wait between probes.
    pub probe_delay_max: Duration,
    /// Interrupted transfers of one blob that may follow each other without progress.
    pub stalled_resumptions: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            delays: vec![Duration::from_secs(1), Duration::from_secs(3)],
            jitter: 0.1,
            retry_after_max: Duration::from_mins(1),
            circuit_failures: 5,
            probe_delay: Duration::from_secs(1),
            probe_delay_max: Duration::from_mins(1),
            stalled_resumptions: 3,
        }
    }
}

impl RegistryConfig {
    /// The defaults, with the proxies of the process environment.
    pub fn from_environment() -> Self {
        Self {
            environment_proxies: Arc::new(Matcher::from_env()),
            ..Self::default()
        }
    }
}

impl Default for RegistryConfig {
    /// The flags' defaults, and no proxy.
    fn default() -> Self {
        Self {
            user_agent: concat!("mintmark/", env!("CARGO_PKG_VERSION")).to_owned(),
            addresses: AddressPolicy::default(),
            insecure_credential_hosts: Vec::new(),
            manifest_max_size: 4 * 1024 * 1024,
            tag_list_max_bytes: 16 * 1024 * 1024,
            tag_list_max_pages: 2_000,
            concurrency: 16,
            idle_connections: 2048,
            max_transports: 256,
            idle_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            retry: RetryPolicy::default(),
            minimum_rate: 16 * 1024,
            slow_after: Duration::from_secs(30),
            environment_proxies: Arc::new(Matcher::builder().build()),
            lookup: Arc::new(SystemLookup),
            observer: Arc::new(NoObserver),
            workers: None,
        }
    }
}
