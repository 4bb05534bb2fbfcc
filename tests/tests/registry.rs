//! The registry client against a registry that misbehaves on order: what it sends to whom, and what it makes of the answers.
//!
//! Everything runs in process on loopback, with waits of milliseconds in place of seconds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and their helpers stop at the first surprise"
)]

#[path = "registry/blobs.rs"]
mod blobs;
#[path = "registry/bounds.rs"]
mod bounds;
#[path = "registry/certificate.rs"]
mod certificate;
#[path = "registry/content.rs"]
mod content;
#[path = "registry/limits.rs"]
mod limits;
#[path = "registry/login.rs"]
mod login;
#[path = "registry/own_settings.rs"]
mod own_settings;
#[path = "registry/redirect.rs"]
mod redirect;
#[path = "registry/support.rs"]
mod support;
#[path = "registry/tags.rs"]
mod tags;
#[path = "registry/token.rs"]
mod token;
