//! `mintmark pull`: one pass over an object from a file, without a cluster. The pass is the controller's own; what it would
//! ask an API server for is answered from the same file ([`cluster`]). What would be served is unpacked into a folder.

mod cluster;
mod manifests;
mod unpack;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use clap::Args;
use ipnet::IpNet;
use mintmark_api::oci_repository::{LayerOperation, OciRepository};
use mintmark_issuer::IssuerUrl;
use serde_json::json;
use tokio::sync::{Semaphore, watch};

use self::{cluster::FileCluster, manifests::Manifests, unpack::Target};
use super::{
    CliError, FlagError,
    flags::go_duration,
    offline::{KeyFlags, Output, print, signing_set, trust_domain},
};
use crate::{
    artifact::{AdvertisedAddress, Record, Storage, StorageConfig},
    content::{Limits, MAX_CONCURRENT_EXTRACTIONS},
    credential::{AudiencePolicy, CredentialSettings, Credentials, ServiceAccountTokens},
    issuing::nobody_signs,
    notify::EventRecorder,
    reconcile::{ApiServer, Context, KnownReferents, Settings, Shared, oci_repository},
    registry::{AddressPolicy, HostGlob, RegistryClient, RegistryConfig},
    runtime::{backoff::BackoffPolicy, lease::Leadership, metrics::Metrics},
    watch::CrdWatch,
};

const EXAMPLE: &str = "Examples:
  mintmark pull -f object.yaml --output app
  mintmark pull -f object.yaml --output app --key signing.yaml --spiffe-trust-domain example.org \\
    --spiffe-issuer https://mintmark.example.org
  kubectl get ocirepository,secret -n team-a -o yaml | mintmark pull -f - --name app --output app";

/// Flags of `pull`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct PullFlags {
    /// Manifests, YAML or JSON: one OCIRepository and the Secrets and ServiceAccount it names; `-` is standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Name of the OCIRepository, if there are several.
    #[arg(long)]
    name: Option<String>,
    /// Folder for the content; made when missing, and empty otherwise.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Private key that signs for credential SpiffeJWT and SpiffeCertificate: PEM, or a manifest of the signing Secret.
    #[arg(long, value_name = "FILE", requires = "spiffe_trust_domain")]
    key: Option<PathBuf>,
    /// CA certificate of the key, PEM; part of a Secret manifest already.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Trust domain of the identity.
    #[arg(long, value_name = "TRUST_DOMAIN")]
    spiffe_trust_domain: Option<String>,
    /// Issuer of a minted JWT.
    #[arg(long, value_name = "URL")]
    spiffe_issuer: Option<String>,
    /// Accept an http issuer that is not on loopback.
    #[arg(long)]
    allow_insecure_issuer: bool,
    /// ServiceAccount for an object that names none.
    #[arg(long, value_name = "NAME")]
    default_service_account: Option<String>,
    /// Host to which a token may be sent over plain HTTP, beside loopback (repeatable).
    #[arg(long, value_name = "HOST_GLOB", value_parser = HostGlob::parse)]
    allow_insecure_credentials: Vec<HostGlob>,
    /// Network that is not dialled (repeatable); none by default.
    #[arg(long, value_name = "CIDR")]
    registry_deny_cidrs: Vec<IpNet>,
    /// Upper bound for spec.timeout.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = go_duration)]
    max_timeout: Duration,
    /// How the result is printed.
    #[arg(long, value_enum, default_value = "text")]
    print: Output,
}

/// Pulls, unpacks, and says what it was.
pub(super) fn run(flags: &PullFlags) -> Result<(), CliError> {
    let manifests = Manifests::read(&flags.file)?;
    let object = manifests.object(flags.name.as_deref())?;
    let target = Target::new(&flags.output)?;
    // Installed already only if another command of this process did.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let record = runtime.block_on(async {
        let context = context(flags, manifests, folder.path())?;
        let pulled = oci_repository::pull_once(&context, &object).await;
        Ok::<_, CliError>(pulled.map_err(|error| anyhow!("{}: {}", error.reason, error.message))?)
    })?;
    let archive = folder.path().join(&record.path);
    let files = target
        .fill(&archive, operation(&object))
        .with_context(|| format!("cannot write to {}", flags.output.display()))?;
    tell(flags, &record, files)
}

fn operation(object: &OciRepository) -> LayerOperation {
    let selector = object.spec.layer_selector.as_ref();
    selector
        .map(mintmark_api::oci_repository::LayerSelector::operation)
        .unwrap_or_default()
}

fn tell(flags: &PullFlags, record: &Record, files: usize) -> Result<(), CliError> {
    let text = format!(
        "{}\n{files} files written to {}",
        record.revision,
        flags.output.display()
    );
    let details = json!({
        "revision": record.revision,
        "digest": record.file.digest,
        "size": record.file.size,
        "metadata": record.metadata,
        "files": files,
        "output": flags.output,
    });
    print(flags.print, &text, &details)
}

/// Everything that a pass works with, as `mintmark run` would have it: only the cluster is a file, and nothing is written.
fn context(
    flags: &PullFlags,
    manifests: Manifests,
    folder: &std::path::Path,
) -> Result<Context<OciRepository>, CliError> {
    let metrics = Metrics::new(false, 0);
    let (identities, signing) = identities(flags)?;
    let client = kube::Client::new(FileCluster::new(manifests), "default");
    let tokens = ServiceAccountTokens::new(client.clone(), Duration::from_mins(10));
    let credentials = Credentials::new(identities, signing.clone(), tokens, metrics.clone());
    credentials.set_audience_policy(AudiencePolicy::default());
    let storage = StorageConfig {
        min_free_percent: 0,
        ..StorageConfig::new(folder)
    };
    let (events, _) = EventRecorder::new(None, "mintmark", metrics.clone()).context("no events")?;
    let shared = Shared {
        client,
        api_server: ApiServer::default(),
        settings: settings(flags),
        leadership: Leadership::always(),
        signing,
        credentials: Arc::new(credentials),
        registry: RegistryClient::new(RegistryConfig {
            addresses: AddressPolicy::new(flags.registry_deny_cidrs.clone(), Vec::new()),
            insecure_credential_hosts: flags.allow_insecure_credentials.clone(),
            ..RegistryConfig::from_environment()
        }),
        events,
        metrics,
        backoff: BackoffPolicy::new(Duration::from_secs(1), Duration::from_secs(1)).context("no backoff")?,
    };
    let own = oci_repository::Own {
        departed: None,
        storage: Storage::open(storage).context("no storage")?,
        address: AdvertisedAddress::new(Some("localhost"), "", || None).context("no address")?,
        extractions: Arc::new(Semaphore::new(MAX_CONCURRENT_EXTRACTIONS)),
    };
    let guard = CrdWatch::new::<OciRepository>().1;
    Ok(Context::new(Arc::new(shared), guard, KnownReferents::default(), own))
}

fn settings(flags: &PullFlags) -> Settings {
    Settings {
        runtime_namespace: "".into(),
        issuer_secrets: Vec::new(),
        default_service_account: flags.default_service_account.clone(),
        min_interval: Duration::ZERO,
        max_timeout: flags.max_timeout,
        interval_jitter_percent: 0,
        requeue_dependency: Duration::ZERO,
        no_cross_namespace_refs: false,
        allow_cross_namespace_credentials: false,
        artifact_max_size: 0,
        extract_limits: Limits::default(),
    }
}

/// Who mints, and with what.
fn identities(flags: &PullFlags) -> Result<(CredentialSettings, crate::credential::SigningReceiver), CliError> {
    let domain = flags.spiffe_trust_domain.as_deref().map(trust_domain).transpose()?;
    let issuer = flags.spiffe_issuer.as_deref();
    let issuer = issuer
        .map(|url| IssuerUrl::parse(url, flags.allow_insecure_issuer))
        .transpose()
        .map_err(|error| FlagError::new("spiffe-issuer", error.to_string()))?;
    let signing = match (&flags.key, &domain) {
        (Some(key), Some(domain)) => {
            let key = KeyFlags {
                key: key.clone(),
                cert: flags.cert.clone(),
            };
            signing_set(&key.read()?, domain)?
        }
        _ => nobody_signs(),
    };
    let identities = CredentialSettings {
        trust_domain: domain,
        issuer,
        secret_name: flags.key.as_ref().map(|key| key.display().to_string()),
        jwt_secret_name: None,
        jwt_ttl: Duration::from_mins(5),
        x509_ttl: Duration::from_hours(1),
        controller_account: None,
    };
    // The receiver keeps the last value though nobody sends any more.
    let (_, receiver) = watch::channel(Arc::new(signing));
    Ok((identities, receiver))
}
