//! `cargo xtask`: the one entry point for building the servers, testing, and showing the project.
//!
//! Each subcommand is a module of `mintmark_hack`; this file only parses arguments. Fails with exit code 1 and the chain
//! of causes on one line each.

use clap::{Parser, Subcommand};
use mintmark_hack::{bench, generate, report, servers, suite};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds the real servers, runs the tests", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// One variant per module with a `run` function, in alphabetical order.
#[derive(Subcommand)]
enum Command {
    /// Measure a fleet of OCIRepositories and the mint rates with release builds; print a table and JSON.
    Bench(bench::BenchOptions),
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

fn main() -> std::process::ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Bench(options) => bench::run(&options),
        Command::Generate { check } => generate::generate(check),
        Command::Servers => servers::run(),
        Command::Test => suite::run(),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            report::failure(&error);
            std::process::ExitCode::FAILURE
        }
    }
}
