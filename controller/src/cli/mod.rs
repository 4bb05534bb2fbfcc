//! The command line: one file per subcommand. Bad flags end with status 2 and one line that names the flag, a failure
//! while running with status 1.

mod check;
mod cluster;
mod flags;
mod flux_flags;
mod issuer;
mod issuer_port;
mod keys;
mod kinds;
mod listeners;
mod mint;
mod offline;
mod pull;
mod run;
mod settings;
mod tasks;
mod trust;
mod verify;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};

pub use flags::RunFlags;
pub use settings::FlagError;

/// Mints a short-lived identity for each Flux repository object and pulls from registries with it.
#[derive(Debug, Parser)]
#[command(name = "mintmark", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the controller: reconcile OCIRepositories, serve their artifacts and the issuer's documents.
    // As in Flux: a flag that a patch of the manifest appends wins over the one before.
    #[command(args_override_self = true)]
    Run(Box<RunFlags>),
    /// Serve the issuer's documents alone, without any private key, from what the controller has stored.
    #[command(args_override_self = true)]
    Issuer(issuer::IssuerCommandFlags),
    /// Report what would not work in a cluster.
    Check(check::CheckFlags),
    /// Mint one credential from a key in a file, without a cluster.
    #[command(subcommand)]
    Mint(mint::MintCommand),
    /// Pull what one object of a file asks for into a folder, without a cluster.
    Pull(Box<pull::PullFlags>),
    /// Show keys, and export what registries need to trust them.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Verify a credential against a published bundle.
    #[command(subcommand)]
    Verify(verify::VerifyCommand),
    /// Print the configuration by which a verifier trusts this issuer.
    #[command(subcommand)]
    Trust(trust::TrustCommand),
}

/// What ends a command before its work is done.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Nothing was started.
    #[error(transparent)]
    Flag(#[from] FlagError),
    /// Something that was started, or should have been, failed.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

/// The grammar of the command line, to hold documentation against.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses the process's arguments and runs the command.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        Command::Run(flags) => run::run(*flags),
        Command::Issuer(flags) => issuer::run(&flags),
        Command::Check(flags) => check::run(&flags),
        Command::Mint(command) => mint::run(&command),
        Command::Pull(flags) => pull::run(&flags),
        Command::Keys(command) => keys::run(&command),
        Command::Verify(command) => verify::run(&command),
        Command::Trust(command) => trust::run(&command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(if matches!(error, CliError::Flag(_)) { 2 } else { 1 })
        }
    }
}

/// Help and version go to stdout whole; a mistake is told in one line.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A closed stdout leaves nobody to tell.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let line = flux_flags::unsupported(line).unwrap_or_else(|| format!("{line} (see mintmark --help)"));
    complain(&line);
    ExitCode::from(2)
}

#[expect(
    clippy::print_stderr,
    reason = "the command line's last word, when there may be no logger yet"
)]
fn complain(line: &str) {
    eprintln!("mintmark: {line}");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize as _;
    use serde_yaml_ng::Value;

    use super::*;

    #[test]
    fn the_last_of_a_repeated_flag_wins_and_lists_grow() {
        let line = "mintmark run --storage-adv-addr=a --denied-audiences=x --storage-adv-addr=b --denied-audiences=y";
        let Command::Run(flags) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("another command")
        };
        assert_eq!(flags.artifact.storage_adv_addr.as_deref(), Some("b"));
        assert_eq!(flags.credential.denied_audiences.len(), 2);
    }

    /// What containers of a Deployment are started with, and the flags that a JSON patch of one adds to `run`.
    fn command_lines(document: &Value) -> Vec<Vec<String>> {
        let strings = |args: &Value| -> Vec<String> {
            let args = args.as_sequence().into_iter().flatten();
            args.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        if document["kind"] == "Deployment" {
            let containers = document["spec"]["template"]["spec"]["containers"].as_sequence();
            return containers.unwrap().iter().map(|it| strings(&it["args"])).collect();
        }
        let patches = document.as_sequence().into_iter().flatten();
        let values = patches.filter_map(|patch| patch["value"].as_str());
        values
            .filter(|value| value.starts_with("--"))
            .map(|flag| vec!["run".to_owned(), flag.to_owned()])
            .collect()
    }

    #[test]
    fn every_flag_in_config_is_one() {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../config")];
        let mut lines = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "yaml") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let documents = serde_yaml_ng::Deserializer::from_str(&text);
                    let documents = documents.map(|document| Value::deserialize(document).unwrap());
                    lines.extend(documents.flat_map(|document| command_lines(&document)));
                }
            }
        }
        assert!(lines.len() >= 2, "{lines:?}");
        for line in lines {
            let parsed = Cli::try_parse_from(std::iter::once("mintmark".to_owned()).chain(line.clone()));
            assert!(parsed.is_ok(), "{line:?}: {}", parsed.unwrap_err());
        }
    }
}
