//! Compares `docs/configuration.md` with the flags of `mintmark run`: every flag has a row with its default and its
//! environment variable, and every row is a flag.
#![expect(clippy::unwrap_used, reason = "helpers of a test fail the test")]

use std::{collections::BTreeSet, fs, path::Path};

use clap::{Arg, Args, Command};
use mintmark::cli::RunFlags;

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md")).unwrap()
}

fn flags() -> Vec<Arg> {
    let command = RunFlags::augment_args(Command::new("run"));
    command
        .get_arguments()
        .filter(|argument| argument.get_long().is_some())
        .cloned()
        .collect()
}

/// The rows of the page's tables that describe a flag: its name and the whole row.
fn rows(page: &str) -> Vec<(&str, &str)> {
    page.lines()
        .filter_map(|row| Some((row.strip_prefix("| `--")?.split_once('`')?.0, row)))
        .collect()
}

#[test]
fn every_row_is_a_flag_and_every_flag_has_a_row() {
    let page = page();
    let documented: BTreeSet<_> = rows(&page).into_iter().map(|(name, _)| name.to_owned()).collect();
    let existing: BTreeSet<_> = flags()
        .iter()
        .filter(|flag| !flag.is_hide_set())
        .filter_map(Arg::get_long)
        .map(str::to_owned)
        .collect();
    assert_eq!(documented, existing);
}

/// What is accepted for Flux's sake has no row; its name stands on the page.
#[test]
fn hidden_flags_are_named() {
    let page = page();
    let flags = flags();
    let hidden: Vec<_> = flags.iter().filter(|flag| flag.is_hide_set()).collect();
    assert!(!hidden.is_empty());
    for flag in hidden {
        let name = format!("`--{}`", flag.get_long().unwrap());
        assert!(page.contains(&name), "{name}");
    }
}

#[test]
fn defaults_and_variables_are_in_the_row() {
    let page = page();
    let rows = rows(&page);
    for flag in flags() {
        let name = flag.get_long().unwrap();
        let Some((_, row)) = rows.iter().find(|(row, _)| *row == name) else {
            continue;
        };
        let defaults = flag.get_default_values().iter().filter_map(|value| value.to_str());
        let variable = flag.get_env().and_then(|variable| variable.to_str());
        for text in defaults.chain(variable).filter(|text| !text.is_empty()) {
            assert!(row.contains(&format!("`{text}`")), "--{name}: {text} is not in: {row}");
        }
    }
}
