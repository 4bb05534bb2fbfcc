//! Faults under load: the process killed, the disk full, the API server or a registry ill, thousands of objects that fail
//! or hang, a clock that steps. Nothing is lost, nothing is served torn, and everything mends by itself.
//!
//! `cargo xtask test` runs these after all others; by hand: `cargo test -p mintmark-tests --test faults -- --nocapture`.
//! `MINTMARK_FAULTS_SEED` repeats the random choices of a run, `MINTMARK_KILL_SECONDS` and `MINTMARK_CROWD` make it longer
//! and larger.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a test ends where something is not as expected, and tells the figures that it saw"
)]

mod api_server;
mod clock;
mod disk;
mod kill;
mod many_cas;
mod registry;
mod starve;

use std::{env, str::FromStr};

use anyhow::{Context, Result};

/// The value of an environment variable, or `default` where it is not set.
fn setting<T: FromStr>(name: &str, default: T) -> Result<T> {
    match env::var(name) {
        Ok(text) => text
            .parse()
            .ok()
            .with_context(|| format!("{name}={text} cannot be read")),
        Err(_) => Ok(default),
    }
}
