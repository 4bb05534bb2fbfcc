//! End to end: the controller with the rights of `config/`, the real API server, the real registry. One file per subject;
//! all share the cluster of this process.

mod audiences;
mod crd_guard;
mod credentials;
