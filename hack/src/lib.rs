//! What `cargo xtask` does, as a library: one module per subcommand.

pub mod generate;
