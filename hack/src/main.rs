//! `cargo xtask`: development tasks.

fn main() -> anyhow::Result<()> {
    mintmark_hack::generate::generate(std::env::args().any(|argument| argument == "--check"))
}
