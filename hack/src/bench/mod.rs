//! `cargo xtask bench`: what a fleet and a minting cost, as a table and as JSON. Numbers are compared, never asserted: they
//! belong to the machine they were measured on.

mod documents;
mod fleet;
mod usage;

use std::{env, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::{
    cluster::{Cluster, ClusterOptions},
    controller::{self, install},
    report, servers,
    workspace::{cargo, execute, root},
};
use documents::{DocumentsReport, Load};
use fleet::FleetReport;

/// What is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchOptions {
    /// Objects of the fleet.
    #[arg(long, default_value_t = 1000)]
    objects: usize,
    /// Interval of the objects in seconds.
    #[arg(long, default_value_t = 10)]
    interval: u64,
    /// Seconds of steady state to observe.
    #[arg(long, default_value_t = 30)]
    steady: u64,
    /// Measure this controller instead of building one, for a comparison.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Leave the mint rates out.
    #[arg(long)]
    no_mint: bool,
    /// Measure only the document server, at a fixed rate.
    #[arg(long)]
    documents: bool,
    /// Requests per second that are offered to the document server.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Connections that they come over.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
}

#[derive(Debug, Serialize)]
struct Report {
    fleet: FleetReport,
    /// Rates per CPU second, by key and kind.
    mint: Vec<MintRate>,
}

#[derive(Debug, Serialize)]
struct MintRate {
    key: String,
    what: String,
    per_second: u64,
}

/// Builds the controller for release, measures, and prints.
pub fn run(options: &BenchOptions) -> Result<()> {
    report::heading("building");
    servers::ensure()?;
    let binary = options.binary.clone().map_or_else(release_binary, Ok)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if options.documents {
        report::heading("documents");
        let measured = runtime.block_on(measure_documents(binary, options))?;
        report::heading("result");
        documents::print(&measured);
        report::line(serde_json::to_string(&measured)?);
        return Ok(());
    }
    let mint = if options.no_mint { Vec::new() } else { mint_rates()? };
    report::heading("fleet");
    let fleet = runtime.block_on(measure(binary, options))?;
    print(&Report { fleet, mint })
}

fn release_binary() -> Result<PathBuf> {
    execute(cargo().args(["build", "--release", "--package", "mintmark", "--bin", "mintmark"]))?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder));
    Ok(target.join("release").join("mintmark"))
}

async fn measure_documents(binary: PathBuf, options: &BenchOptions) -> Result<DocumentsReport> {
    controller::use_binary(binary);
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let installation = install(&cluster, "mintmark-system").await?;
    let load = Load {
        rate: options.rate,
        connections: options.connections,
        duration: Duration::from_secs(options.steady),
    };
    documents::run(&cluster, &installation, load).await
}

async fn measure(binary: PathBuf, options: &BenchOptions) -> Result<FleetReport> {
    controller::use_binary(binary);
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let installation = install(&cluster, "mintmark-system").await?;
    let (interval, steady) = (
        Duration::from_secs(options.interval),
        Duration::from_secs(options.steady),
    );
    fleet::run(&cluster, &installation, options.objects, interval, steady).await
}

/// The issuer's own bench prints one rate per line: key, kind, `N/s`.
fn mint_rates() -> Result<Vec<MintRate>> {
    let mut command: Command = cargo();
    let output = command
        .args(["bench", "--package", "mintmark-issuer"])
        .output()
        .context("cannot run cargo bench")?;
    if !output.status.success() {
        bail!(
            "cargo bench -p mintmark-issuer failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(mint_rate).collect())
}

fn mint_rate(line: &str) -> Option<MintRate> {
    let (rest, rate) = line.trim_end().strip_suffix("/s")?.rsplit_once(char::is_whitespace)?;
    let (key, what) = rest.trim_end().rsplit_once(char::is_whitespace)?;
    Some(MintRate {
        key: key.trim().to_owned(),
        what: what.to_owned(),
        per_second: rate.parse().ok()?,
    })
}

fn print(bench: &Report) -> Result<()> {
    let fleet = &bench.fleet;
    report::heading("result");
    report::line(format!(
        "{} objects until all Ready       {:>9.2} s",
        fleet.objects, fleet.cold_start_seconds
    ));
    report::line(format!(
        "  of which creating them         {:>9.2} s",
        fleet.create_seconds
    ));
    for (name, seconds) in &fleet.cold_start_cpu_seconds {
        report::line(format!("  CPU of {name:<22}    {seconds:>9.2} s"));
    }
    report::line(format!(
        "  resident afterwards            {:>9.1} MiB",
        fleet.resident_mib
    ));
    let steady = &fleet.steady;
    report::line(format!(
        "steady state: passes in {:>4.0} s     {:>9}",
        steady.seconds, steady.passes
    ));
    report::line(format!(
        "  CPU per pass                   {:>9.3} ms",
        steady.cpu_ms_per_pass
    ));
    report::line(format!(
        "  API requests per pass          {:>9.4}",
        steady.api_requests_per_pass
    ));
    report::line(format!(
        "  resident at the end            {:>9.1} MiB",
        steady.resident_mib
    ));
    for rate in &bench.mint {
        report::line(format!(
            "{:<20} {:<12}{:>9}/s per core",
            rate.key, rate.what, rate.per_second
        ));
    }
    report::line(serde_json::to_string(bench)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_of_the_issuer_bench() {
        let rate = mint_rate("ring alone           key+sign+verify     7600/s").expect("a rate");
        assert_eq!(
            (rate.key.as_str(), rate.what.as_str(), rate.per_second),
            ("ring alone", "key+sign+verify", 7600)
        );
        assert!(mint_rate("running 0 tests").is_none());
    }
}
