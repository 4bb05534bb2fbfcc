//! The flags of `mintmark run`, with Flux's names and defaults where Flux has them. Parsing ends here: [`RunFlags`] holds
//! typed values, and [`super::settings`] checks what only makes sense together.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{ArgAction, Args};
use ipnet::IpNet;
use mintmark_api::duration::GoDuration;

use super::{flux_flags::FluxFlags, kinds::EnabledKind};
use crate::{
    credential::{AllowedAudience, Audience},
    registry::HostGlob,
    runtime::{
        log::{LogEncoding, LogLevel},
        serve::{ListenAddress, ListenAddressError},
    },
};

/// A listen address; empty switches the listener off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen(pub Option<ListenAddress>);

impl FromStr for Listen {
    type Err = ListenAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            Ok(Self(None))
        } else {
            text.parse().map(|address| Self(Some(address)))
        }
    }
}

/// Bounds of a rate of requests: one in a hundred seconds, and more than any API server takes.
const MIN_RATE: f64 = 0.01;
const MAX_RATE: f64 = 1_000_000.0;

/// Every flag of `mintmark run`.
#[derive(Debug, Clone, Args)]
#[expect(
    missing_docs,
    reason = "each group says what it is; a comment here would become help text"
)]
pub struct RunFlags {
    #[command(flatten)]
    pub issuer: IssuerFlags,
    #[command(flatten)]
    pub credential: CredentialFlags,
    #[command(flatten)]
    pub registry: RegistryFlags,
    #[command(flatten)]
    pub artifact: ArtifactFlags,
    #[command(flatten)]
    pub controller: ControllerFlags,
    #[command(flatten)]
    pub election: ElectionFlags,
    #[command(flatten)]
    pub serving: ServingFlags,
    #[command(flatten)]
    pub flux: FluxFlags,
}

/// Who signs, and what the signed says.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Issuer")]
pub struct IssuerFlags {
    /// SPIFFE trust domain of the minted identities.
    #[arg(long, value_name = "TRUST_DOMAIN")]
    pub spiffe_trust_domain: Option<String>,
    /// Issuer URL of minted JWTs: https, or http on loopback.
    #[arg(long, value_name = "URL")]
    pub spiffe_issuer: Option<String>,
    /// Accept an http issuer that is not on loopback.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub allow_insecure_issuer: bool,
    /// Name of the kubernetes.io/tls Secret that signs, in the controller's namespace.
    #[arg(long, value_name = "NAME")]
    pub spiffe_secret_name: Option<String>,
    /// Name of a second such Secret, which signs the JWTs alone.
    #[arg(long, value_name = "NAME")]
    pub spiffe_jwt_secret_name: Option<String>,
    /// How long a new JWT key is published before it signs (0 to 24h).
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = go_duration)]
    pub spiffe_key_overlap: Duration,
    /// How long a new CA is published before it signs (0 to 720h).
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = go_duration)]
    pub spiffe_x509_overlap: Duration,
    /// Life of a minted JWT (1m to 1h).
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = go_duration)]
    pub spiffe_jwt_ttl: Duration,
    /// Life of a minted certificate (1m to 24h).
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = go_duration)]
    pub spiffe_x509_ttl: Duration,
    /// Publish the root of the signing CA beside it (whoever holds another CA under that root is then trusted too).
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub spiffe_bundle_root: bool,
    /// Where the issuer's documents are served; empty switches them off.
    #[arg(long, value_name = "ADDRESS", default_value = ":9080")]
    pub issuer_addr: Listen,
    /// Name of the kubernetes.io/tls Secret that the documents are served with, in the controller's namespace; without
    /// it, plain HTTP.
    #[arg(long, value_name = "NAME")]
    pub issuer_tls_secret_name: Option<String>,
    /// Keep a copy of the documents in this `ConfigMap` of the controller's namespace, for those who host them elsewhere.
    #[arg(long, value_name = "NAME")]
    pub publish_configmap: Option<String>,
}

/// ServiceAccount tokens, and to whom tokens may go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Credentials")]
pub struct CredentialFlags {
    /// Life of a requested ServiceAccount token (10m to 1h).
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = go_duration)]
    pub service_account_token_ttl: Duration,
    /// ServiceAccount, in the object's namespace, for objects that name none.
    #[arg(long, value_name = "NAME")]
    pub default_service_account: Option<String>,
    /// Let objects without any ServiceAccount use the controller's own, for audiences that name their registry.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub allow_controller_identity: bool,
    /// Let image policies of other namespaces use repositories that have a credential, which then speaks for them too.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub allow_cross_namespace_credentials: bool,
    /// Audience that no ServiceAccount token may be requested for, beside the API server's own (repeatable).
    #[arg(long, value_name = "AUDIENCE", value_parser = audience)]
    pub denied_audiences: Vec<Audience>,
    /// If given, only these audiences may be requested, and only for hosts that match (repeatable).
    #[arg(long, value_name = "AUDIENCE[=HOST_GLOB]", value_parser = AllowedAudience::parse)]
    pub allowed_audiences: Vec<AllowedAudience>,
    /// Host to which a token may be sent over plain HTTP, beside loopback (repeatable).
    #[arg(long, value_name = "HOST_GLOB", value_parser = HostGlob::parse)]
    pub allow_insecure_credentials: Vec<HostGlob>,
}

/// The registry client.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Registry")]
pub struct RegistryFlags {
    /// Network that is never dialled, in place of the built-in list (repeatable).
    #[arg(long, value_name = "CIDR")]
    pub registry_deny_cidrs: Vec<IpNet>,
    /// Network that may be dialled although it is denied (repeatable).
    #[arg(long, value_name = "CIDR")]
    pub registry_allow_cidrs: Vec<IpNet>,
    /// Requests to one registry host at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub registry_concurrency: u32,
    /// Idle connections kept in all.
    #[arg(long, value_name = "N", default_value_t = 2048)]
    pub registry_idle_connections: u32,
    /// Distinct CA and proxy settings kept in all.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub registry_max_transports: u32,
    /// Largest accepted manifest in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 4 * 1024 * 1024)]
    pub manifest_max_size: u64,
    /// Largest accepted tag list in bytes, all its pages together.
    #[arg(long, value_name = "BYTES", default_value_t = 16 * 1024 * 1024, value_parser = clap::value_parser!(u64).range(1..))]
    pub tag_list_max_bytes: u64,
    /// Upper bound for spec.timeout.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = go_duration)]
    pub max_timeout: Duration,
}

/// What is stored and served.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Artifacts")]
pub struct ArtifactFlags {
    /// Folder of the artifacts.
    #[arg(long, value_name = "DIR", env = "STORAGE_PATH", default_value = "/data")]
    pub storage_path: PathBuf,
    /// Where the artifacts are served.
    #[arg(long, value_name = "ADDRESS", env = "STORAGE_ADDRESS", default_value = ":9090")]
    pub storage_addr: ListenAddress,
    /// Host (and port) in artifact URLs; default: the storage address.
    #[arg(long, value_name = "HOST", env = "STORAGE_ADV_ADDR")]
    pub storage_adv_addr: Option<String>,
    /// Per cent of the storage volume that stays free.
    #[arg(long, value_name = "PERCENT", default_value_t = 10, value_parser = clap::value_parser!(u8).range(0..=90))]
    pub storage_min_free: u8,
    /// How long a replaced artifact is kept.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = go_duration)]
    pub artifact_retention_ttl: Duration,
    /// How many artifacts of an object are kept.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub artifact_retention_records: u32,
    /// Largest accepted layer in bytes; 0 = no limit.
    #[arg(long, value_name = "BYTES", default_value_t = 256 * 1024 * 1024)]
    pub artifact_max_size: u64,
    /// Largest accepted layer in bytes once unpacked; 0 = no limit.
    #[arg(long, value_name = "BYTES", default_value_t = 512 * 1024 * 1024)]
    pub artifact_max_unpacked_size: u64,
}

/// The reconcile loop.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Controller")]
pub struct ControllerFlags {
    /// Kubeconfig file; default: KUBECONFIG, the Pod's own account, ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The controller's namespace; default: the mounted one.
    #[arg(long, value_name = "NAMESPACE", env = "RUNTIME_NAMESPACE")]
    pub runtime_namespace: Option<String>,
    /// Passes that compute or talk to the API server at a time.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub concurrent: u32,
    /// Requests per second to the API server, leases apart; -1 leaves that to the API server's own fairness.
    #[arg(long, value_name = "N", default_value_t = -1.0, allow_negative_numbers = true, value_parser = requests_per_second)]
    pub kube_api_qps: f64,
    /// Requests that may go at once after a pause, with --kube-api-qps.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    pub kube_api_burst: u32,
    /// Watch every namespace, not only the controller's own.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    pub watch_all_namespaces: bool,
    /// Kinds to reconcile, separated by commas.
    #[arg(
        long,
        value_name = "KINDS",
        value_delimiter = ',',
        default_value = "OCIRepository,ImageRepository,ImagePolicy"
    )]
    pub enable_kinds: Vec<EnabledKind>,
    /// Watch only objects with matching labels.
    #[arg(long, value_name = "SELECTOR")]
    pub watch_label_selector: Option<String>,
    /// Shortest effective spec.interval.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = go_duration)]
    pub min_interval: Duration,
    /// Random spread of the interval.
    #[arg(long, value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub interval_jitter_percentage: u8,
    /// First delay after a failed pass; doubles with each.
    #[arg(long, value_name = "DURATION", default_value = "750ms", value_parser = go_duration)]
    pub min_retry_delay: Duration,
    /// Longest delay after a failed pass.
    #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = go_duration)]
    pub max_retry_delay: Duration,
    /// Delay after a pass that found another object not ready; a change of that object is noticed at once.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = go_duration)]
    pub requeue_dependency: Duration,
    /// Let no object refer to one of another namespace.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub no_cross_namespace_refs: bool,
}

/// Which of several replicas works.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Leader election")]
pub struct ElectionFlags {
    /// Reconcile, and write the key ring, only as the holder of a Lease.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub enable_leader_election: bool,
    /// Give the leases back when the process stops, so that another replica takes over at once.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    pub leader_election_release_on_cancel: bool,
    /// How long other replicas wait after the last renewal that they saw.
    #[arg(long, value_name = "DURATION", default_value = "35s", value_parser = go_duration)]
    pub leader_election_lease_duration: Duration,
    /// How long the leader leads on after its last renewal.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = go_duration)]
    pub leader_election_renew_deadline: Duration,
    /// Time between attempts to acquire or renew.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = go_duration)]
    pub leader_election_retry_period: Duration,
}

/// Logs, metrics, probes, notifications.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Operation")]
pub struct ServingFlags {
    /// Where Prometheus metrics are served; empty switches them off.
    #[arg(long, value_name = "ADDRESS", env = "METRICS_ADDR", default_value = ":8080")]
    pub metrics_addr: Listen,
    /// Where /healthz and /readyz are served; empty switches them off.
    #[arg(long, value_name = "ADDRESS", default_value = ":9440")]
    pub health_addr: Listen,
    /// URL of the notification-controller's event receiver.
    #[arg(long, value_name = "URL", env = "EVENTS_ADDR", default_value = "")]
    pub events_addr: String,
    /// Metrics with a series per object; off above 5,000 objects.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    pub per_object_metrics: bool,
    /// trace, debug, info or error.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,
    /// json or console.
    #[arg(long, value_name = "ENCODING", default_value = "json")]
    pub log_encoding: LogEncoding,
}

/// A duration as Go writes it.
pub(super) fn go_duration(value: &str) -> Result<Duration, String> {
    value
        .parse::<GoDuration>()
        .map(mintmark_api::duration::GoDuration::to_std)
        .map_err(|error| error.to_string())
}

/// A rate, or a negative number for none.
fn requests_per_second(value: &str) -> Result<f64, String> {
    match value.parse::<f64>() {
        Ok(rate) if rate < 0.0 || (MIN_RATE..=MAX_RATE).contains(&rate) => Ok(rate),
        Ok(_) => Err(format!("must be -1 or between {MIN_RATE} and {MAX_RATE}")),
        Err(error) => Err(error.to_string()),
    }
}

fn audience(value: &str) -> Result<Audience, String> {
    Audience::new(value).map_err(|error| error.to_string())
}
