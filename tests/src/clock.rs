//! A wall clock that a test steps for one process: a few lines of C, preloaded, that add to the system's clock what stands in
//! a file. The monotonic clock stays as it is. Linux only; needs the C compiler that ring's build needs too.

use std::{fs, os::unix::fs::FileExt, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

const SOURCE: &str = include_str!("clock.c");

/// The clock of the processes that run with its [`WallClock::environment`].
#[derive(Debug)]
pub struct WallClock {
    folder: TempDir,
}

impl WallClock {
    /// A clock that is right.
    pub fn new() -> Result<Self> {
        let clock = Self {
            folder: tempfile::Builder::new().prefix("mintmark-clock-").tempdir()?,
        };
        let source = clock.path("clock.c");
        fs::write(&source, SOURCE)?;
        fs::write(clock.path("offset"), 0i64.to_ne_bytes())?;
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(clock.path("clock.so"))
            .arg(source)
            .status()
            .context("cannot run cc")?;
        ensure!(compiled.success(), "cc ended with {compiled}");
        Ok(clock)
    }

    /// The variables that a process needs to go by this clock.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let text = |name| self.path(name).display().to_string();
        [
            ("LD_PRELOAD", text("clock.so")),
            ("MINTMARK_TEST_CLOCK", text("offset")),
        ]
    }

    /// Steps the clock to so many seconds before (negative) or after the right time.
    pub fn step_to(&self, seconds: i64) -> Result<()> {
        // In place: the process has mapped the file.
        let file = fs::OpenOptions::new().write(true).open(self.path("offset"))?;
        Ok(file.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
