//! Compares the pages below `docs/spec/v1` with their kinds: every field, condition and reason is there, and no page names a
//! condition or reason that its kind does not know. Which reasons a kind has is read from the sources of its passes.
#![expect(clippy::unwrap_used, reason = "helpers of a test fail the test")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use mintmark_api::{condition, crd};
use regex::Regex;
use rstest::rstest;
use serde_json::Value;

/// A kind, its page, and where its passes are written.
struct Documented {
    page: &'static str,
    definition: fn() -> CustomResourceDefinition,
    conditions: &'static [&'static str],
    /// Files and folders below `src/reconcile`.
    sources: &'static [&'static str],
    /// Reasons that stand in no source of a pass.
    more: &'static [&'static str],
    /// Actions of webhook posts and values of fields, which look like reasons.
    others: &'static [&'static str],
}

const CREDENTIALS: [&str; 3] = ["ServiceAccountToken", "SpiffeJWT", "SpiffeCertificate"];

const OCI_REPOSITORY: Documented = Documented {
    page: "ocirepositories.md",
    definition: crd::oci_repository,
    conditions: &condition::OWNED,
    sources: &["oci_repository", "access", "events.rs", "step.rs"],
    // Of signatures, which are not verified yet.
    more: &[condition::reason::VERIFICATION_ERROR],
    others: &["Reconcile"],
};

const IMAGE_REPOSITORY: Documented = Documented {
    page: "imagerepositories.md",
    definition: crd::image_repository,
    conditions: &condition::OWNED_BY_IMAGES,
    sources: &["image_repository", "access", "conditions.rs", "events.rs"],
    more: &[],
    others: &["Scan"],
};

const IMAGE_POLICY: Documented = Documented {
    page: "imagepolicies.md",
    definition: crd::image_policy,
    conditions: &condition::OWNED_BY_IMAGES,
    sources: &["image_policy", "conditions.rs", "events.rs"],
    more: &[],
    others: &["SelectImage", "Always", "Never", "IfNotPresent"],
};

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn found(text: &str, pattern: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).unwrap();
    pattern.captures_iter(text).map(|word| word[1].to_owned()).collect()
}

/// Every constant of a reason, and the reason.
fn constants() -> Vec<(String, String)> {
    let text = read(&source("../api/src/condition.rs"));
    let reasons = text.split_once("pub mod reason {").unwrap().1;
    let pattern = Regex::new(r#"pub const ([A-Z_]+): &str =\s+"([A-Za-z]+)""#).unwrap();
    let constants = pattern.captures_iter(reasons);
    constants.map(|it| (it[1].to_owned(), it[2].to_owned())).collect()
}

/// The text of a file, or of all files of a folder, without tests.
fn sources(path: &Path) -> String {
    if path.is_file() {
        return read(path);
    }
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let entries = entries.filter(|path| path.file_stem().is_some_and(|name| name != "tests"));
    entries.map(|path| sources(&path)).collect()
}

impl Documented {
    fn text(&self) -> String {
        read(&source("../docs/spec/v1").join(self.page))
    }

    /// The reasons that its passes name.
    fn reasons(&self) -> BTreeSet<String> {
        let text: String = self
            .sources
            .iter()
            .map(|path| sources(&source("src/reconcile").join(path)))
            .collect();
        let named = found(&text, r"\breason::([A-Z_]+)\b");
        let constants = constants().into_iter();
        let reasons = constants.filter(|(constant, _)| named.contains(constant));
        let more = self.more.iter().map(|&reason| reason.to_owned());
        reasons.map(|(_, reason)| reason).chain(more).collect()
    }
}

/// The part of the page from this heading to the next one of its level.
fn section(page: &str, heading: &str) -> String {
    let begin = page.find(&format!("\n{heading}\n")).unwrap() + 1;
    let rest = &page[begin + heading.len()..];
    let level = heading.split(' ').next().unwrap();
    let end = rest.find(&format!("\n{level} ")).unwrap_or(rest.len());
    rest[..end].to_owned()
}

#[rstest]
#[case::oci_repository(OCI_REPOSITORY)]
#[case::image_repository(IMAGE_REPOSITORY)]
#[case::image_policy(IMAGE_POLICY)]
fn conditions_and_reasons_are_those_of_the_code(#[case] kind: Documented) {
    let mut known = kind.reasons();
    assert!(known.len() > 8, "the sources were found: {known:?}");
    known.extend(kind.conditions.iter().map(|&condition| condition.to_owned()));
    let page = kind.text();
    let told = [section(&page, "### Conditions"), section(&page, "## Events")].concat();
    let mut documented = found(&told, "`([A-Z][A-Za-z]+)`");
    documented.retain(|word| !kind.others.contains(&word.as_str()) && !CREDENTIALS.contains(&word.as_str()));
    assert_eq!(documented, known);
}

#[test]
fn every_reason_belongs_to_a_kind() {
    let used: BTreeSet<_> = [OCI_REPOSITORY, IMAGE_REPOSITORY, IMAGE_POLICY]
        .iter()
        .flat_map(Documented::reasons)
        .collect();
    let declared: BTreeSet<_> = constants().into_iter().map(|(_, reason)| reason).collect();
    assert!(declared.len() > 25, "the declarations were found: {declared:?}");
    assert_eq!(used, declared);
}

/// The names of all properties below `schema`. Those of conditions are the same in all of Kubernetes; only our words in them
/// are a page's subject.
fn properties(schema: &Value, names: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        names.insert(name.clone());
        if name == "conditions" {
            continue;
        }
        properties(property, names);
        properties(&property["items"], names);
    }
}

#[rstest]
#[case::oci_repository(OCI_REPOSITORY, 40)]
#[case::image_repository(IMAGE_REPOSITORY, 25)]
#[case::image_policy(IMAGE_POLICY, 20)]
fn every_field_is_documented(#[case] kind: Documented, #[case] least: usize) {
    let definition = serde_json::to_value((kind.definition)()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let mut fields = BTreeSet::new();
    for part in ["spec", "status"] {
        properties(&schema[part], &mut fields);
    }
    assert!(fields.len() > least, "the schema was found: {fields:?}");
    let page = kind.text();
    let spans = found(&page, "`([^`\n]+)`");
    let words: BTreeSet<_> = spans
        .iter()
        .flat_map(|span| span.split(|letter: char| !letter.is_ascii_alphanumeric()))
        .collect();
    let missing: Vec<_> = fields.iter().filter(|field| !words.contains(field.as_str())).collect();
    assert!(missing.is_empty(), "not on the page: {missing:?}");
}
