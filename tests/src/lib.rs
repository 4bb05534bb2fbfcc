//! Support for the end-to-end suites: servers that misbehave on order, builders, and what several suites share.

pub mod admission;
pub mod black_hole;
pub mod clock;
pub mod command;
pub mod crowd;
pub mod documents;
pub mod env;
pub mod fault_registry;
pub mod fleet;
pub mod front;
pub mod history;
pub mod http;
pub mod http_front;
pub mod issuer;
pub mod objects;
pub mod observe;
pub mod receiver;
pub mod rights;
pub mod ring;
pub mod secure;
pub mod served;
pub mod small_disk;
pub mod specs;
pub mod stored;
pub mod tls_front;
pub mod token_service;
