//! `cargo xtask generate`: writes the files under `config/` that are made from types, or tells whether they differ.
//!
//! Today that is `config/crd/` and the patches of `config/flux-patch/`. A unit test runs the check, so a change of the types without a new definition fails.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use mintmark_api::crd;
use serde::Serialize;
use serde_json::{Value, json};

const HEADER: &str = "# Written by `cargo xtask generate` from the types in api/. Do not edit.\n";

/// A generated file: its path below the project's root and its text.
struct Generated {
    path: &'static str,
    text: String,
}

/// Writes every generated file; with `check`, writes nothing and fails naming the files that differ.
pub fn generate(check: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let oci_repository = crd::oci_repository();
    let image_repository = crd::image_repository();
    let files = [
        Generated {
            path: "config/crd/source.toolkit.fluxcd.io_ocirepositories.yaml",
            text: yaml(&oci_repository)?,
        },
        Generated {
            path: "config/crd/image.toolkit.fluxcd.io_imagerepositories.yaml",
            text: yaml(&image_repository)?,
        },
        Generated {
            path: "config/crd/image.toolkit.fluxcd.io_imagepolicies.yaml",
            text: yaml(&crd::image_policy())?,
        },
        Generated {
            path: "config/flux-patch/ocirepositories.yaml",
            text: yaml(&our_fields(&oci_repository)?)?,
        },
        Generated {
            path: "config/flux-patch/imagerepositories.yaml",
            text: yaml(&our_fields(&image_repository)?)?,
        },
    ];
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

/// A JSON patch (RFC 6902) that gives Flux's definition of the same kind what ours has more: the fields, their rules and,
/// where ours has one, their column. It fails where the first version is not the one that is meant.
fn our_fields(definition: &CustomResourceDefinition) -> Result<Value> {
    const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema/properties";
    let crd = serde_json::to_value(definition).context("a definition does not serialise")?;
    let at = |path: String| -> Result<Value> {
        let value = crd
            .pointer(&path)
            .with_context(|| format!("no {path} in our definition"))?;
        Ok(json!({"op": "add", "path": path, "value": value}))
    };
    let version = crd
        .pointer("/spec/versions/0/name")
        .context("our definition has no version")?;
    let columns = crd
        .pointer("/spec/versions/0/additionalPrinterColumns")
        .and_then(Value::as_array);
    let column = columns
        .into_iter()
        .flatten()
        .find(|column| column.pointer("/jsonPath").and_then(Value::as_str) == Some(".spec.credential"));
    let column = column
        .map(|column| json!({"op": "add", "path": "/spec/versions/0/additionalPrinterColumns/-", "value": column}));
    let operations = [
        json!({"op": "test", "path": "/spec/versions/0/name", "value": version}),
        at(format!("{SCHEMA}/spec/properties/credential"))?,
        at(format!("{SCHEMA}/spec/properties/audiences"))?,
        at(format!("{SCHEMA}/spec/x-kubernetes-validations"))?,
        at(format!("{SCHEMA}/status/properties/credential"))?,
    ];
    Ok(operations.into_iter().chain(column).collect())
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
