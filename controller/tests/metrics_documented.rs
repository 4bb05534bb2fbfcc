//! Compares `docs/operations.md` with the metrics that are registered: every one has a row, and no other is named.
#![expect(clippy::unwrap_used, reason = "helpers of a test fail the test")]

use std::{collections::BTreeSet, fs, path::Path};

use regex::Regex;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn names(text: &str, pattern: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).unwrap();
    let found = pattern.captures_iter(text);
    found
        .map(|name| name[1].trim_end_matches("_total").to_owned())
        .collect()
}

#[test]
fn every_metric_has_a_row_and_every_row_is_a_metric() {
    // A family without a series is not in the encoded text, so the declarations themselves are read.
    let sources = ["families", "collect", "hosts"].map(|file| read(&format!("src/runtime/metrics/{file}.rs")));
    let declared = names(&sources.concat(), r#""((?:mintmark|gotk)_[a-z0-9_]+)""#);
    let documented = names(&read("../docs/operations.md"), r"((?:mintmark|gotk)_[a-z0-9_]+)");
    assert_eq!(documented, declared);
}
