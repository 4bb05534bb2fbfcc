//! `cargo xtask`: the one entry point for building the servers, testing, and showing the project.
//!
//! Each subcommand is a module of `mintmark_hack`; this file only parses arguments. Fails with exit code 1 and the chain
//! of causes on one line each.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use mintmark_hack::{bench, demo, generate, report, servers, suite};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds the real servers, runs the tests", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// One variant per module with a `run` function, in alphabetical order.
#[derive(Subcommand)]
enum Command {
    /// Measure fleets, scans, policies and mint rates with release builds; print a table and JSON.
    Bench(bench::BenchOptions),
    /// Show three tenants that pull as themselves, one that is refused, and one whose image is scanned, on real servers.
    Demo {
        /// Leave everything up, and say where it is, until Ctrl-C.
        #[arg(long)]
        keep: bool,
        /// Use the cluster of this file's current context, as its administrator, instead of starting one.
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
    },
    /// Write `config/crd/` from the API types.
    Generate {
        /// Change nothing, fail if a file differs.
        #[arg(long)]
        check: bool,
    },
    /// Build etcd, kube-apiserver, the test registry and the SVID checker into the cache, and print where they are.
    Servers,
    /// Check formatting and lints, build the servers and the controller, and run every test.
    Test,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Bench(options) => bench::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Demo { keep, kubeconfig } => show(keep, kubeconfig),
        Command::Generate { check } => generate::generate(check).map(|()| ExitCode::SUCCESS),
        Command::Servers => servers::run().map(|()| ExitCode::SUCCESS),
        Command::Test => suite::run().map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|error| {
        report::failure(&error);
        ExitCode::FAILURE
    })
}

fn show(keep: bool, kubeconfig: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let options = demo::Options {
        keep,
        kubeconfig,
        ..demo::Options::default()
    };
    Ok(demo::run(&options)?.exit_code().into())
}
