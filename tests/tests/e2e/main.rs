//! End to end: the controller with the rights of `config/`, the real API server, the real registry. One file per subject;
//! all share the cluster of this process.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test ends where something is not as expected"
)]

mod addresses;
mod annotations;
mod audiences;
mod bad_content;
mod ca_shapes;
mod cert_manager;
mod check_command;
mod command_line;
mod connections;
mod content_rules;
mod crd_guard;
mod credentials;
mod documents;
mod fairness;
mod flood;
mod forged_status;
mod images;
mod issuer_command;
mod kinds;
mod leader_election;
mod leaks;
mod lifecycle;
mod outage;
mod own_settings;
mod publish_configmap;
mod pull_command;
mod pull_secrets;
mod quiet;
mod recreated;
mod redaction;
mod referents;
mod restart;
mod retries;
mod ring_store;
mod semver;
mod sequences;
mod shards;
mod signing_secret;
mod start_errors;
mod structured_authentication;
mod svids;
mod takeover;
mod token_service;
mod trust;
mod webhook;
