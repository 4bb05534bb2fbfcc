//! What Masterminds/semver itself says: every version and constraint of a table made by `hack/servers/semver` is judged here
//! in the same way. The table says how it is made.

use super::{Constraint, Version};

const TABLE: &str = include_str!("testdata/masterminds.txt");

/// Verdict and text of the rows that begin with `kind`.
fn rows(kind: &str) -> impl Iterator<Item = (&'static str, String)> {
    let rows = TABLE
        .lines()
        .filter_map(move |line| line.strip_prefix(kind)?.strip_prefix(' '));
    rows.map(|row| {
        let (verdict, text) = row.split_once(' ').unwrap();
        (verdict, serde_json::from_str(text).unwrap())
    })
}

#[test]
fn the_same_texts_are_versions_in_the_same_order() {
    let mut ranked = Vec::new();
    for (verdict, text) in rows("v") {
        let version = Version::of_tag(&text);
        assert_eq!(version.is_none(), verdict == "-", "{text:?}");
        if let Some(version) = version {
            ranked.push((verdict.parse::<usize>().unwrap(), version, text));
        }
    }
    assert!(ranked.len() > 80);
    for (rank, version, text) in &ranked {
        for (other_rank, other, other_text) in &ranked {
            assert_eq!(version.cmp(other), rank.cmp(other_rank), "{text:?} {other_text:?}");
        }
    }
}

#[test]
fn the_same_texts_are_constraints_and_admit_the_same_versions() {
    let versions: Vec<_> = rows("v")
        .filter_map(|(_, text)| Some((Version::of_tag(&text)?, text)))
        .collect();
    let (mut read, mut admitted, mut wrong) = (0, 0, Vec::new());
    for (verdict, text) in rows("c") {
        let constraint = Constraint::parse(&text);
        if constraint.is_err() != (verdict == "-") {
            wrong.push(format!("{text:?}: {constraint:?}, but there {verdict}"));
        }
        let (Ok(constraint), true) = (constraint, verdict != "-") else {
            continue;
        };
        read += 1;
        assert_eq!(verdict.len(), versions.len());
        for (expected, (version, tag)) in verdict.chars().zip(&versions) {
            let admits = constraint.admits(version);
            admitted += usize::from(admits);
            if admits != (expected == '1') {
                wrong.push(format!("{text:?} admits {tag:?}: {admits}"));
            }
        }
    }
    assert!(read > 600 && admitted > 5_000, "{read} {admitted}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
