//! From flags to settings: what only makes sense together is checked here, once, before anything is started. Every error
//! is one line that names the flag; the process then exits with status 2.

use std::{sync::Arc, time::Duration};

use clap::ValueEnum;
use ipnet::IpNet;
use kube::runtime::watcher;
use mintmark_issuer::{IssuerUrl, TrustDomain};
use tokio::sync::Semaphore;
use url::Url;

use super::{
    flags::{IssuerFlags, RunFlags},
    kinds::EnabledKind,
};
use crate::{
    content::Limits,
    credential::{AuditObserver, CredentialSettings},
    issuing::Which,
    reconcile::Settings,
    registry::{AddressPolicy, RegistryConfig},
    runtime::lease::{LeaseError, LeaseSettings},
};

/// A flag whose value cannot be used, or that lacks a partner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--{flag}: {problem}")]
pub struct FlagError {
    flag: &'static str,
    problem: String,
}

impl FlagError {
    /// A problem with `--flag`.
    pub fn new(flag: &'static str, problem: impl Into<String>) -> Self {
        Self {
            flag,
            problem: problem.into(),
        }
    }
}

/// The Lease that decides who writes the key ring.
pub const ISSUER_LEASE: &str = "mintmark-issuer";
/// The Lease that decides who reconciles, or the beginning of its name.
const RECONCILE_LEASE: &str = "mintmark-leader-election";
/// The Secrets in which the key ring is stored.
const RING_SECRETS: [Which; 2] = [Which::State, Which::Ring];

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// Who mints what, from the issuer's flags.
pub fn credentials(flags: &RunFlags) -> Result<CredentialSettings, FlagError> {
    let issuer = &flags.issuer;
    let trust_domain = issuer
        .spiffe_trust_domain
        .as_deref()
        .map(TrustDomain::parse)
        .transpose()
        .map_err(|error| FlagError::new("spiffe-trust-domain", error.to_string()))?;
    let issuer_url = issuer
        .spiffe_issuer
        .as_deref()
        .map(|url| IssuerUrl::parse(url, issuer.allow_insecure_issuer))
        .transpose()
        .map_err(|error| FlagError::new("spiffe-issuer", error.to_string()))?;
    let needs = |given: bool, flag: &'static str, partner: bool, name: &str| {
        if given && !partner {
            Err(FlagError::new(flag, format!("needs --{name} as well")))
        } else {
            Ok(())
        }
    };
    let has_domain = trust_domain.is_some();
    let has_secret = issuer.spiffe_secret_name.is_some();
    needs(has_secret, "spiffe-secret-name", has_domain, "spiffe-trust-domain")?;
    needs(has_domain, "spiffe-trust-domain", has_secret, "spiffe-secret-name")?;
    needs(issuer_url.is_some(), "spiffe-issuer", has_secret, "spiffe-secret-name")?;
    let copies = issuer.publish_configmap.is_some();
    needs(copies, "publish-configmap", has_secret, "spiffe-secret-name")?;
    needs(
        issuer.spiffe_jwt_secret_name.is_some(),
        "spiffe-jwt-secret-name",
        issuer_url.is_some(),
        "spiffe-issuer",
    )?;
    secret_names(issuer)?;
    within(
        "spiffe-key-overlap",
        issuer.spiffe_key_overlap,
        Duration::ZERO,
        24 * HOUR,
    )?;
    within(
        "spiffe-x509-overlap",
        issuer.spiffe_x509_overlap,
        Duration::ZERO,
        720 * HOUR,
    )?;
    within("spiffe-jwt-ttl", issuer.spiffe_jwt_ttl, MINUTE, HOUR)?;
    within("spiffe-x509-ttl", issuer.spiffe_x509_ttl, MINUTE, 24 * HOUR)?;
    within(
        "service-account-token-ttl",
        flags.credential.service_account_token_ttl,
        10 * MINUTE,
        HOUR,
    )?;
    Ok(CredentialSettings {
        trust_domain,
        issuer: issuer_url,
        secret_name: issuer.spiffe_secret_name.clone(),
        jwt_secret_name: issuer.spiffe_jwt_secret_name.clone(),
        jwt_ttl: issuer.spiffe_jwt_ttl,
        x509_ttl: issuer.spiffe_x509_ttl,
        controller_account: None,
    })
}

/// No Secret serves two purposes.
fn secret_names(issuer: &IssuerFlags) -> Result<(), FlagError> {
    for (flag, name) in [
        ("spiffe-secret-name", &issuer.spiffe_secret_name),
        ("spiffe-jwt-secret-name", &issuer.spiffe_jwt_secret_name),
    ] {
        if RING_SECRETS.iter().any(|taken| name.as_deref() == Some(taken.name())) {
            return Err(FlagError::new(flag, "names a Secret in which the key ring is stored"));
        }
    }
    if issuer.spiffe_jwt_secret_name.is_some() && issuer.spiffe_jwt_secret_name == issuer.spiffe_secret_name {
        let problem = "names the Secret of --spiffe-secret-name, which signs JWTs without this flag";
        return Err(FlagError::new("spiffe-jwt-secret-name", problem));
    }
    Ok(())
}

/// The limits of the reconcile loop.
pub fn reconcile(flags: &RunFlags, namespace: &str) -> Result<Settings, FlagError> {
    let controller = &flags.controller;
    if controller.max_retry_delay < controller.min_retry_delay {
        return Err(FlagError::new("max-retry-delay", "is shorter than --min-retry-delay"));
    }
    if controller.min_retry_delay.is_zero() {
        return Err(FlagError::new("min-retry-delay", "must be longer than 0"));
    }
    if controller.requeue_dependency.is_zero() {
        return Err(FlagError::new("requeue-dependency", "must be longer than 0"));
    }
    EnabledKind::check(flags)?;
    if flags.registry.max_timeout.is_zero() {
        return Err(FlagError::new("max-timeout", "must be longer than 0"));
    }
    Ok(Settings {
        runtime_namespace: namespace.into(),
        issuer_secrets: issuer_secrets(&flags.issuer),
        default_service_account: flags.credential.default_service_account.clone(),
        min_interval: controller.min_interval,
        max_timeout: flags.registry.max_timeout,
        interval_jitter_percent: controller.interval_jitter_percentage,
        requeue_dependency: controller.requeue_dependency,
        no_cross_namespace_refs: controller.no_cross_namespace_refs,
        allow_cross_namespace_credentials: flags.credential.allow_cross_namespace_credentials,
        artifact_max_size: flags.artifact.artifact_max_size,
        extract_limits: extract_limits(flags),
    })
}

/// The Secrets of the issuer, which no object may refer to.
fn issuer_secrets(issuer: &IssuerFlags) -> Vec<String> {
    let named = [
        &issuer.spiffe_secret_name,
        &issuer.spiffe_jwt_secret_name,
        &issuer.issuer_tls_secret_name,
    ];
    let ring = RING_SECRETS.iter().map(|secret| secret.name().to_owned());
    named.into_iter().flatten().cloned().chain(ring).collect()
}

fn extract_limits(flags: &RunFlags) -> Limits {
    let unpacked = flags.artifact.artifact_max_unpacked_size;
    Limits {
        max_unpacked: if unpacked == 0 { u64::MAX } else { unpacked },
        ..Limits::default()
    }
}

/// The registry client's settings. `own` are the addresses of the API server and of this Pod, which no registry is at.
pub fn registry(flags: &RunFlags, own: &[IpNet], observer: AuditObserver) -> RegistryConfig {
    let registry = &flags.registry;
    let deny = if registry.registry_deny_cidrs.is_empty() {
        AddressPolicy::default_denied()
            .into_iter()
            .chain(own.iter().copied())
            .collect()
    } else {
        registry.registry_deny_cidrs.clone()
    };
    let size = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    RegistryConfig {
        addresses: AddressPolicy::new(deny, registry.registry_allow_cidrs.clone()),
        insecure_credential_hosts: flags.credential.allow_insecure_credentials.clone(),
        manifest_max_size: registry.manifest_max_size,
        tag_list_max_bytes: registry.tag_list_max_bytes,
        concurrency: size(registry.registry_concurrency),
        idle_connections: size(registry.registry_idle_connections),
        max_transports: size(registry.registry_max_transports),
        workers: Some(Arc::new(Semaphore::new(size(flags.controller.concurrent)))),
        observer: Arc::new(observer),
        ..RegistryConfig::from_environment()
    }
}

/// Where events are posted to, if anywhere.
pub fn events_addr(flags: &RunFlags) -> Result<Option<Url>, FlagError> {
    let text = flags.serving.events_addr.as_str();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|error| FlagError::new("events-addr", format!("{text:?} is no URL: {error}")))
}

/// The Lease that decides who reconciles: one per shard and choice of kinds, so that processes with nothing in common do not
/// wait for each other.
pub fn reconcile_lease(flags: &RunFlags) -> String {
    let kinds = EnabledKind::of(flags);
    let is_all = EnabledKind::value_variants().iter().all(|kind| kinds.contains(kind));
    let mut share = label_selector(flags).unwrap_or_default().to_owned();
    if !is_all {
        // No selector has a line feed.
        share.extend(kinds.into_iter().flat_map(|kind| ["\n", kind.name()]));
    }
    if share.is_empty() {
        return RECONCILE_LEASE.to_owned();
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, share.as_bytes());
    let head = digest.as_ref().iter().take(4);
    head.fold(format!("{RECONCILE_LEASE}-"), |name, byte| {
        name + &format!("{byte:02x}")
    })
}

/// Lease `name` in `namespace`, held as `identity`; `None` without leader election.
pub fn lease(
    flags: &RunFlags,
    namespace: &str,
    name: &str,
    identity: &str,
) -> Result<Option<LeaseSettings>, FlagError> {
    let election = &flags.election;
    let settings = LeaseSettings {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        identity: identity.to_owned(),
        lease_duration: election.leader_election_lease_duration,
        renew_deadline: election.leader_election_renew_deadline,
        retry_period: election.leader_election_retry_period,
        release_on_cancel: election.leader_election_release_on_cancel,
    };
    settings.check().map_err(|error| {
        let flag = match error {
            LeaseError::LeaseDuration(_) => "leader-election-lease-duration",
            LeaseError::RenewDeadline(_) => "leader-election-renew-deadline",
            LeaseError::RetryPeriod => "leader-election-retry-period",
        };
        FlagError::new(flag, error.to_string())
    })?;
    Ok(election.enable_leader_election.then_some(settings))
}

/// The label selector of this shard, if it is one.
pub fn label_selector(flags: &RunFlags) -> Option<&str> {
    let selector = flags.controller.watch_label_selector.as_deref();
    selector.filter(|selector| !selector.is_empty())
}

/// Which objects are watched.
pub fn watch_config(flags: &RunFlags) -> Result<watcher::Config, FlagError> {
    let config = watcher::Config::default();
    let Some(selector) = label_selector(flags) else {
        return Ok(config);
    };
    if selector.chars().any(char::is_control) {
        return Err(FlagError::new("watch-label-selector", "contains a control character"));
    }
    Ok(config.labels(selector))
}

fn within(flag: &'static str, value: Duration, min: Duration, max: Duration) -> Result<(), FlagError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(FlagError::new(
        flag,
        format!("must be between {} s and {} s", min.as_secs(), max.as_secs()),
    ))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use rstest::rstest;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: RunFlags,
    }

    fn flags(line: &str) -> RunFlags {
        Line::parse_from(std::iter::once("run").chain(line.split_whitespace())).flags
    }

    #[rstest]
    #[case(
        "--spiffe-trust-domain=Example.org --spiffe-secret-name=s",
        "--spiffe-trust-domain: "
    )]
    #[case("--spiffe-trust-domain=a..b --spiffe-secret-name=s", "--spiffe-trust-domain: ")]
    #[case("--spiffe-trust-domain=a.b", "--spiffe-trust-domain: needs --spiffe-secret-name")]
    #[case("--spiffe-secret-name=s", "--spiffe-secret-name: needs --spiffe-trust-domain")]
    #[case("--spiffe-issuer=https://a.b", "--spiffe-issuer: needs --spiffe-secret-name")]
    #[case(
        "--spiffe-issuer=https://a.b?x=1 --spiffe-trust-domain=a.b --spiffe-secret-name=s",
        "--spiffe-issuer: "
    )]
    #[case(
        "--spiffe-issuer=http://a.b --spiffe-trust-domain=a.b --spiffe-secret-name=s",
        "--spiffe-issuer: "
    )]
    #[case("--publish-configmap=c", "--publish-configmap: needs --spiffe-secret-name")]
    #[case("--spiffe-jwt-secret-name=j", "--spiffe-jwt-secret-name: needs --spiffe-issuer")]
    #[case(
        "--spiffe-jwt-secret-name=s --spiffe-secret-name=s --spiffe-trust-domain=a.b --spiffe-issuer=https://a.b",
        "--spiffe-jwt-secret-name: names the Secret of --spiffe-secret-name"
    )]
    #[case(
        "--spiffe-secret-name=mintmark-issuer-ring --spiffe-trust-domain=a.b",
        "--spiffe-secret-name: names a Secret in which the key ring is stored"
    )]
    #[case("--spiffe-key-overlap=25h", "--spiffe-key-overlap: must be between 0 s and 86400 s")]
    #[case("--spiffe-x509-overlap=721h", "--spiffe-x509-overlap: must be between")]
    #[case("--spiffe-jwt-ttl=10s", "--spiffe-jwt-ttl: must be between 60 s and 3600 s")]
    #[case("--spiffe-x509-ttl=48h", "--spiffe-x509-ttl: must be between")]
    fn bad_values_name_their_flag(#[case] line: &str, #[case] message: &str) {
        let error = credentials(&flags(line)).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
        assert!(!error.contains('\n'));
    }

    #[test]
    fn booleans_come_bare_or_with_a_value() {
        assert!(flags("--allow-insecure-issuer").issuer.allow_insecure_issuer);
        assert!(!flags("--watch-all-namespaces=false").controller.watch_all_namespaces);
        assert!(flags("--spiffe-bundle-root=true").issuer.spiffe_bundle_root);
    }

    #[rstest]
    #[case("", "mintmark-leader-election")]
    #[case("--watch-label-selector=", "mintmark-leader-election")]
    // printf %s sharding.fluxcd.io/key=mintmark | sha256sum
    #[case(
        "--watch-label-selector=sharding.fluxcd.io/key=mintmark",
        "mintmark-leader-election-f05d3bed"
    )]
    #[case(
        "--enable-kinds=ImagePolicy,ImageRepository,OCIRepository",
        "mintmark-leader-election"
    )]
    // printf 'sharding.fluxcd.io/key=mintmark\nOCIRepository' | sha256sum
    #[case(
        "--watch-label-selector=sharding.fluxcd.io/key=mintmark --enable-kinds=OCIRepository",
        "mintmark-leader-election-88b44b81"
    )]
    fn each_shard_has_a_lease_of_its_own(#[case] line: &str, #[case] name: &str) {
        assert_eq!(reconcile_lease(&flags(line)), name);
    }

    /// The file of `config/beside`.
    fn beside(file: &str) -> serde_yaml_ng::Value {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/beside");
        serde_yaml_ng::from_slice(&std::fs::read(path.join(file)).unwrap()).unwrap()
    }

    #[test]
    fn the_shard_beside_flux_may_have_its_lease() {
        let patch = beside("deployment.yaml");
        let added = patch
            .as_sequence()
            .unwrap()
            .iter()
            .filter_map(|patch| patch["value"].as_str());
        let line = added
            .filter(|value| value.starts_with("--"))
            .collect::<Vec<_>>()
            .join(" ");
        assert_eq!(label_selector(&flags(&line)), Some("sharding.fluxcd.io/key=mintmark"));
        let role = beside("lease_role.yaml");
        let granted = role["rules"][0]["resourceNames"].as_sequence().unwrap();
        let granted: Vec<_> = granted.iter().filter_map(serde_yaml_ng::Value::as_str).collect();
        assert_eq!(granted, [reconcile_lease(&flags(&line))]);
    }

    #[rstest]
    #[case("--leader-election-retry-period=0s", "--leader-election-retry-period: must be")]
    #[case(
        "--leader-election-renew-deadline=6s",
        "--leader-election-renew-deadline: must be longer than 1.2"
    )]
    #[case(
        "--leader-election-lease-duration=30s",
        "--leader-election-lease-duration: must be longer than the renew"
    )]
    fn bad_lease_durations_name_their_flag(#[case] line: &str, #[case] message: &str) {
        let error = lease(&flags(line), "ns", ISSUER_LEASE, "me").unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
    }

    #[test]
    fn leader_election_is_off_unless_asked_for() {
        assert!(lease(&flags(""), "ns", ISSUER_LEASE, "me").unwrap().is_none());
        let settings = lease(&flags("--enable-leader-election"), "ns", ISSUER_LEASE, "me").unwrap();
        assert!(settings.is_some_and(|settings| settings.release_on_cancel));
    }

    #[test]
    fn no_object_may_refer_to_a_secret_of_the_issuer() {
        let settings = reconcile(
            &flags("--spiffe-secret-name=s --spiffe-jwt-secret-name=j --issuer-tls-secret-name=t"),
            "ns",
        )
        .unwrap();
        assert_eq!(
            settings.issuer_secrets,
            ["s", "j", "t", "mintmark-issuer", "mintmark-issuer-ring"]
        );
    }

    #[test]
    fn retry_delays_must_be_ordered() {
        let error = reconcile(&flags("--min-retry-delay=2s --max-retry-delay=1s"), "ns").unwrap_err();
        assert!(error.to_string().starts_with("--max-retry-delay"));
    }
}
