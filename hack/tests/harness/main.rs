//! The harness itself, on the real servers: the cluster answers and audits, the registry knows who asks, the checkers
//! check, and nothing outlives its parent. Whatever else the end-to-end suites find rests on this.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test fail the test")]

mod cluster;
mod controller;
mod issuer;
mod prerequisites;
mod process;
mod registry;
mod state;
