//! Mint rates: what the issuer's own bench prints, one rate per line.

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::table::{Row, Target};
use crate::workspace::cargo;

/// One rate.
#[derive(Debug, Serialize)]
pub struct MintRate {
    /// The key that signs, or whose cryptography it is.
    pub key: String,
    /// What is made.
    pub what: String,
    /// Per second of one core.
    pub per_second: u32,
}

/// Runs the issuer's bench.
pub fn rates() -> Result<Vec<MintRate>> {
    let mut command = cargo();
    let output = command
        .args(["bench", "--package", "mintmark-issuer"])
        .output()
        .context("cannot run cargo bench")?;
    if !output.status.success() {
        bail!(
            "cargo bench -p mintmark-issuer failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(rate).collect())
}

/// `<key> <what> <rate>/s`; a key may have blanks.
fn rate(line: &str) -> Option<MintRate> {
    let (rest, rate) = line.trim_end().strip_suffix("/s")?.rsplit_once(char::is_whitespace)?;
    let (key, what) = rest.trim_end().rsplit_once(char::is_whitespace)?;
    Some(MintRate {
        key: key.trim().to_owned(),
        what: what.to_owned(),
        per_second: rate.parse().ok()?,
    })
}

/// As lines of the table.
pub fn rows(rates: &[MintRate]) -> Vec<Row> {
    rates
        .iter()
        .map(|rate| {
            let row = Row::new(
                format!("{}, {}", rate.what, rate.key),
                f64::from(rate.per_second),
                0,
                "/s per core",
            );
            match target(rate) {
                Some(target) => row.with(target),
                None => row,
            }
        })
        .collect()
}

fn target(rate: &MintRate) -> Option<Target> {
    match (rate.key.starts_with("ec-p256"), rate.what.as_str()) {
        (true, "JWT-SVID") => Some(Target::AtLeast(35_000.0)),
        (true, "X.509-SVID") => Some(Target::AtLeast(8_000.0)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_of_the_issuer_bench() {
        let rate = rate("ring alone           key+sign+verify     7600/s").expect("a rate");
        assert_eq!(
            (rate.key.as_str(), rate.what.as_str(), rate.per_second),
            ("ring alone", "key+sign+verify", 7600)
        );
        assert!(super::rate("running 0 tests").is_none());
    }
}
