//! Runs the commands of `mintmark` that need no cluster, as somebody at a desk does.

use anyhow::{Result, bail};
use mintmark_hack::controller;

/// The standard output of `mintmark <words>`; its error when it fails.
pub fn mintmark(words: &[&str]) -> Result<String> {
    let output = std::process::Command::new(controller::binary()?).args(words).output()?;
    if !output.status.success() {
        bail!(
            "mintmark {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
