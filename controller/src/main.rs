//! mintmark.
fn main() {}
