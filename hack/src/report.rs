//! What `cargo xtask` prints: progress on standard error, results on standard output.
//!
//! The only module of the harness that writes to the terminal.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this module is the terminal of a command line tool"
)]

/// Prints a line of a result to standard output.
pub fn line(text: impl AsRef<str>) {
    println!("{}", text.as_ref());
}

/// Prints a line of progress to standard error.
pub fn progress(text: impl AsRef<str>) {
    eprintln!("{}", text.as_ref());
}

/// Prints the heading of a step to standard error, with a blank line before it.
pub fn heading(text: impl AsRef<str>) {
    eprintln!("\n=== {}", text.as_ref());
}

/// Prints why a command failed: the error and its causes.
pub fn failure(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}
