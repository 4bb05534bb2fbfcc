//! The harness behind `cargo xtask` and the end-to-end suites: real servers, built once, started on loopback, ended
//! with the process that started them.
//!
//! [`servers`] builds etcd, kube-apiserver, the test registry and the SVID checker into a cache folder; [`cluster`] and
//! [`registry`] start them, [`zot`] and [`distribution`] others' registries; [`manifests`] applies `config/` to a cluster, [`controller`] installs and runs ours there;
//! [`svid`] asks go-spiffe and go-oidc for their opinion. [`demo`], [`mod@bench`], [`suite`] (`cargo xtask test`) and
//! [`generate`] are the subcommands. Never part of the product.

pub mod bench;
pub mod cluster;
pub mod controller;
pub mod demo;
pub mod digest;
pub mod distribution;
pub mod generate;
pub mod manifests;
pub mod pki;
pub mod place;
pub mod process;
pub mod registry;
pub mod report;
pub mod servers;
pub mod suite;
pub mod svid;
pub mod workspace;
pub mod zot;
