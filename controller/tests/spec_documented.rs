//! Compares `docs/spec/v1/ocirepositories.md` with the kind: every field, condition and reason is there, and the page names
//! no condition or reason that the code does not know.
#![expect(clippy::unwrap_used, reason = "helpers of a test fail the test")]

use std::{collections::BTreeSet, fs, path::Path};

use mintmark_api::crd;
use regex::Regex;
use serde_json::Value;

/// The action of a webhook post, which looks like a reason.
const ACTION: &str = "Reconcile";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn page() -> String {
    read("../docs/spec/v1/ocirepositories.md")
}

fn found(text: &str, pattern: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).unwrap();
    pattern.captures_iter(text).map(|word| word[1].to_owned()).collect()
}

/// Every type and reason that is declared.
fn declared() -> BTreeSet<String> {
    let mut words = found(
        &read("../api/src/condition.rs"),
        r#"pub const [A-Z_]+: &str =\s+"([A-Za-z]+)""#,
    );
    for status in ["True", "False", "Unknown"] {
        words.remove(status);
    }
    words
}

/// The part of the page from this heading to the next one of its level.
fn section(page: &str, heading: &str) -> String {
    let begin = page.find(&format!("\n{heading}\n")).unwrap() + 1;
    let rest = &page[begin + heading.len()..];
    let level = heading.split(' ').next().unwrap();
    let end = rest.find(&format!("\n{level} ")).unwrap_or(rest.len());
    rest[..end].to_owned()
}

#[test]
fn conditions_and_reasons_are_those_of_the_code() {
    let declared = declared();
    assert!(declared.len() > 25, "the declarations were found: {declared:?}");
    let page = page();
    let told = [section(&page, "### Conditions"), section(&page, "## Events")].concat();
    let mut documented = found(&told, "`([A-Z][A-Za-z]+)`");
    documented.remove(ACTION);
    assert_eq!(documented, declared);
}

/// The names of all properties below `schema`.
fn properties(schema: &Value, names: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        names.insert(name.clone());
        properties(property, names);
        properties(&property["items"], names);
    }
}

#[test]
fn every_field_is_documented() {
    let definition = serde_json::to_value(crd::oci_repository()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let mut fields = BTreeSet::new();
    for part in ["spec", "status"] {
        properties(&schema[part], &mut fields);
    }
    // Every Kubernetes condition has the same; only our words in them are the page's subject.
    let of_conditions = ["lastTransitionTime", "message", "reason", "status"];
    fields.retain(|field| !of_conditions.contains(&field.as_str()));
    assert!(fields.len() > 40, "the schema was found: {fields:?}");
    let page = page();
    let spans = found(&page, "`([^`\n]+)`");
    let words: BTreeSet<_> = spans
        .iter()
        .flat_map(|span| span.split(|letter: char| !letter.is_ascii_alphanumeric()))
        .collect();
    let missing: Vec<_> = fields.iter().filter(|field| !words.contains(field.as_str())).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
}
