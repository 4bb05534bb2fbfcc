//! Keeps what is written for people true: samples and examples decode and break no rule, the specification page quotes
//! every message, reason and condition as the code has it, and the configurations in the README are JSON.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests; a failure is the test's"
)]

use std::{fs, path::PathBuf};

use mintmark_api::{
    CredentialRule, condition, credential_contradictions, image_policy::ImagePolicy, image_repository::ImageRepository,
    oci_repository::OciRepository,
};
use serde::Deserialize;

fn read(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The fenced blocks of a Markdown text in one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence)
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(str::to_owned)
        .collect()
}

/// The OCIRepositories among the documents of a YAML text.
fn repositories(text: &str) -> Vec<OciRepository> {
    serde_yaml_ng::Deserializer::from_str(text)
        .map(|document| serde_json::Value::deserialize(document).unwrap())
        .filter(|object| object["kind"] == "OCIRepository")
        .map(|object| serde_json::from_value(object).unwrap())
        .collect()
}

const SPECIFICATION: &str = "docs/spec/v1/ocirepositories.md";

#[test]
fn samples_decode_and_break_no_rule() {
    let kustomization: serde_json::Value = serde_yaml_ng::from_str(&read("config/samples/kustomization.yaml")).unwrap();
    let files = kustomization["resources"].as_array().unwrap();
    let objects: Vec<_> = files
        .iter()
        .flat_map(|file| repositories(&read(&format!("config/samples/{}", file.as_str().unwrap()))))
        .collect();
    assert_eq!(objects.len(), 4);
    for object in objects {
        assert_eq!(credential_contradictions(&object.spec), Ok(()));
        assert!(object.spec.credential.is_some());
    }
}

#[test]
fn the_samples_of_images_decode_and_belong_together() {
    let repository: ImageRepository =
        serde_yaml_ng::from_str(&read("config/samples/images/image_repository.yaml")).unwrap();
    assert_eq!(credential_contradictions(&repository.spec), Ok(()));
    assert!(repository.spec.credential.is_some());
    let policy: ImagePolicy = serde_yaml_ng::from_str(&read("config/samples/images/image_policy.yaml")).unwrap();
    assert_eq!(policy.spec.interval_contradiction(), None);
    assert_eq!(policy.spec.image_repository_ref.namespace(), None);
    assert_eq!(Some(policy.spec.image_repository_ref.name), repository.metadata.name);
    assert_eq!(policy.metadata.namespace, repository.metadata.namespace);
}

#[test]
fn the_example_of_the_specification_decodes() {
    let examples = blocks(&read(SPECIFICATION), "yaml");
    let objects: Vec<_> = examples.iter().flat_map(|example| repositories(example)).collect();
    assert_eq!(objects.len(), 1);
    assert_eq!(credential_contradictions(&objects[0].spec), Ok(()));
}

#[test]
fn the_specification_quotes_every_message() {
    let page = read(SPECIFICATION);
    for rule in CredentialRule::CEL {
        assert!(page.contains(&format!("`{}`", rule.message())), "{rule:?}");
    }
}

#[test]
fn the_specification_names_every_condition_but_the_unused_one() {
    let page = read(SPECIFICATION);
    for owned in condition::OWNED
        .into_iter()
        .filter(|owned| *owned != condition::SOURCE_VERIFIED)
    {
        assert!(page.contains(&format!("| `{owned}` |")), "{owned}");
    }
}

#[test]
fn the_registry_configurations_are_json() {
    let blocks = blocks(&read("README.md"), "json");
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        let configuration: serde_json::Value = serde_json::from_str(&block).unwrap();
        assert!(configuration["http"]["accessControl"].is_object());
    }
}
