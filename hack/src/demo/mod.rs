//! `cargo xtask demo`: the whole way once, on real servers, in front of the reader's eyes.
//!
//! Starts a cluster (`site`), two registries (`registries`) and the controller with the rights of `config/`, applies
//! `config/samples/` (`samples`) and compares what came of it with what must (`verdict`). Progress goes to standard
//! error, the table to standard output. Fails when something cannot be started; a deviation is not an error but an
//! [`Outcome`]. Nothing outlives it.

mod interrupt;
mod ledger;
mod registries;
mod samples;
mod site;
mod stage;
mod table;
mod verdict;

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};

pub use registries::Trust;
pub use verdict::{Seen, Verdict};

use crate::{controller, report, servers};
use interrupt::Interrupt;
use stage::Stage;

/// How long an object may take to become what it must, on a machine that also compiles.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How the demo is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Leave everything up until Ctrl-C.
    pub keep: bool,
    /// Use the cluster of this file's current context, as its administrator, instead of starting one.
    pub kubeconfig: Option<PathBuf>,
    /// Whom the registries believe.
    pub trust: Trust,
    /// How long an object may take to become what it must.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep: false,
            kubeconfig: None,
            trust: Trust::Tenants,
            patience: PATIENCE,
        }
    }
}

/// How it ended.
#[derive(Debug)]
pub enum Outcome {
    /// To its end; whether all is as it must be stands in the verdicts.
    Shown(Vec<Verdict>),
    /// By a signal, before its end.
    Interrupted,
}

impl Outcome {
    /// Everything that is not as it must be, one line each.
    pub fn deviations(&self) -> Vec<&str> {
        match self {
            Self::Shown(verdicts) => {
                let all = verdicts.iter().flat_map(|it| &it.deviations);
                all.map(String::as_str).collect()
            }
            Self::Interrupted => Vec::new(),
        }
    }

    /// 0 when all is as it must be, 1 when not, 130 after an interruption (128 plus SIGINT, as shells count).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted => 130,
            Self::Shown(_) => u8::from(!self.deviations().is_empty()),
        }
    }
}

/// Builds what is missing, then runs the demo. Blocks.
pub fn run(options: &Options) -> Result<Outcome> {
    if let Some(file) = options.kubeconfig.as_ref().filter(|file| !file.is_file()) {
        bail!(
            "there is no {}: --kubeconfig takes the kubeconfig of a cluster's administrator",
            file.display()
        );
    }
    report::progress("building or finding the servers and the controller (the first time takes some minutes)");
    // Before signals are taken over, so that Ctrl-C ends the compilers in the usual way.
    servers::ensure()?;
    controller::binary()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(show(options))
}

async fn show(options: &Options) -> Result<Outcome> {
    let mut interrupt = Interrupt::listen()?;
    let mut stage = Stage::new();
    let outcome = tokio::select! {
        biased;
        () = interrupt.wait() => Ok(Outcome::Interrupted),
        outcome = stage.perform(options) => outcome,
    };
    if let Ok(outcome @ Outcome::Shown(verdicts)) = &outcome {
        report::progress("");
        table::lines(verdicts).into_iter().for_each(report::line);
        for deviation in outcome.deviations() {
            report::progress(format!("not as it must be: {deviation}"));
        }
        if options.keep {
            report::line("");
            stage.addresses().into_iter().for_each(report::line);
            report::progress("\neverything stays up until Ctrl-C");
            interrupt.wait().await;
        }
    }
    report::progress("ending what was started");
    // Why it failed matters more than what could not be ended.
    let ended = stage.end().await;
    let outcome = outcome?;
    ended?;
    Ok(outcome)
}
