//! Finds the Go toolchain and says in one line what to install when it is missing or too old.

use std::{io, process::Command};

use anyhow::{Context, Result, anyhow, bail};

use super::module_dir;

/// The oldest Go that builds the modules: what their `go` lines say.
const MINIMUM: (u32, u32) = (1, 26);

const INSTALL: &str = "install Go 1.26 or later (https://go.dev/dl/) and put `go` on the PATH";

/// The command `go`, run in the folder of one of our modules and independent of what the caller's `GOFLAGS` say.
pub fn go_command(module: &str) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(module_dir(module))
        .env("GOFLAGS", "-mod=readonly -buildvcs=false")
        .env("GOWORK", "off");
    command
}

/// Returns what identifies the toolchain: `go version`'s answer, with system and architecture.
pub(super) fn check() -> Result<String> {
    let output = match go_command("tools").arg("version").output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("there is no `go`: {INSTALL}"),
        other => other.context("cannot run `go version`")?,
    };
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`go version` failed ({}): {INSTALL}",
            reason.lines().next().unwrap_or_default()
        );
    }
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (major, minor) = parse(&version).ok_or_else(|| anyhow!("cannot read `{version}`: {INSTALL}"))?;
    if (major, minor) < MINIMUM {
        bail!("this is {version}: {INSTALL}");
    }
    Ok(version)
}

/// Reads `go version go1.26.8 linux/amd64`.
fn parse(version: &str) -> Option<(u32, u32)> {
    let number = version.split_whitespace().nth(2)?.strip_prefix("go")?;
    let mut parts = number.split(['.', 'r', 'b', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse("go version go1.26.8 linux/amd64"), Some((1, 26)));
        assert_eq!(parse("go version go1.27rc1 darwin/arm64"), Some((1, 27)));
        assert_eq!(parse("go version devel"), None);
    }
}
