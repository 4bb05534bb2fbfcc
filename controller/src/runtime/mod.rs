//! What every part of the process runs on: the bounded HTTP server, logs, metrics, probes, supervision, leases,
//! backoff, jitter.
//!
//! Nothing here knows a kind of object or a registry. A module may be used by any other; it uses none of them.

pub mod api_server;
pub mod backoff;
pub mod health;
pub mod jitter;
pub mod lease;
pub mod log;
pub mod metrics;
pub mod serve;
pub mod supervise;
pub mod throttle;
