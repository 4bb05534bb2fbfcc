//! `cargo xtask generate`: writes the files under `config/` that are made from types, or tells whether they differ.
//!
//! Today that is `config/crd/`. A unit test runs the check, so a change of the types without a new definition fails.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use serde::Serialize;

const HEADER: &str = "# Written by `cargo xtask generate` from the types in api/. Do not edit.\n";

/// A generated file: its path below the project's root and its text.
struct Generated {
    path: &'static str,
    text: String,
}

/// Writes every generated file; with `check`, writes nothing and fails naming the files that differ.
pub fn generate(check: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = [Generated {
        path: "config/crd/source.toolkit.fluxcd.io_ocirepositories.yaml",
        text: yaml(&mintmark_api::crd::oci_repository())?,
    }];
    let mut differing = Vec::new();
    for file in files {
        let path = root.join(file.path);
        if fs::read_to_string(&path).is_ok_and(|text| text == file.text) {
            continue;
        }
        if check {
            differing.push(file.path);
        } else {
            fs::write(&path, file.text).with_context(|| format!("cannot write {}", file.path))?;
        }
    }
    if !differing.is_empty() {
        bail!("out of date, run `cargo xtask generate`: {}", differing.join(", "));
    }
    Ok(())
}

/// YAML with sorted keys, so that the text does not depend on the order of fields in a library.
fn yaml(object: &impl Serialize) -> Result<String> {
    let value = serde_json::to_value(object).context("a definition does not serialise")?;
    let text = serde_yaml_ng::to_string(&value).context("a definition does not print as YAML")?;
    Ok(format!("{HEADER}{text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_files_are_what_the_types_say() {
        generate(true).unwrap();
    }
}
