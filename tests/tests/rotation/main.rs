//! Rotation of the issuer's keys under pulls that never stop, and what may happen in the middle of it. These suites wait for
//! minutes and work little, so that `cargo xtask test` runs them beside all others; by hand:
//! `cargo test -p mintmark-tests --test rotation -- --test-threads=8`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where something is not as expected"
)]

mod clocks;
mod faults;
mod outage;
mod revocation;
mod rotations;
