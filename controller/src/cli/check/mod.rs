//! `mintmark check`: looks at a cluster and reports what would not work there with this controller, before it is installed or
//! takes over. Reads only: definitions, objects, the Secrets (types, never shown content) and accounts they
//! name, and Flux's Deployments. Ends with status 1 if anything would not work.

mod asking;
mod findings;
mod images;
mod inventory;
mod referents;

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::json;

use self::{
    findings::{Level, findings},
    inventory::Inventory,
};
use super::{
    CliError, cluster,
    offline::{Output, print},
};

const EXAMPLE: &str = "Example:
  mintmark check
  mintmark check --kubeconfig admin.conf -o json";

/// Flags of `check`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLE)]
pub(super) struct CheckFlags {
    /// Kubeconfig file of somebody who may read the cluster; default: KUBECONFIG, the Pod's own account, ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// text or json.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// Looks, prints, and fails if something would not work.
pub(super) fn run(flags: &CheckFlags) -> Result<(), CliError> {
    // Installed already only if another command of this process did.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let inventory = runtime.block_on(async {
        let client = cluster::client_of(flags.kubeconfig.as_deref()).await?;
        Ok::<_, CliError>(Inventory::read(&client).await.context("cannot read the cluster")?)
    })?;
    let found = findings(&inventory);
    let problems = found.iter().filter(|finding| finding.level == Level::Problem).count();
    let mut lines: Vec<String> = found.iter().map(ToString::to_string).collect();
    let objects = inventory.objects.len() + inventory.policies.len();
    lines.push(format!("{objects} objects looked at; {problems} problems"));
    let details = json!({"objects": objects, "problems": problems, "findings": found});
    print(flags.output, &lines.join("\n"), &details)?;
    if problems == 0 {
        Ok(())
    } else {
        Err(anyhow!("{problems} of these would not work").into())
    }
}
