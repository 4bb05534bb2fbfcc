//! Compares the shipped definition with the facts of Flux's own one (1.9.1, descriptions left out): everything of
//! Flux's must be there unchanged, and everything beyond it must be on the list of additions below.

use serde_json::Value;

/// JSON pointers of what this project adds. A pointer stands for everything below it.
const ADDED: [&str; 10] = [
    // Flux carries the first of these from 1.10 on.
    "/metadata/annotations/kustomize.toolkit.fluxcd.io~1substitute",
    "/metadata/annotations/kustomize.toolkit.fluxcd.io~1ssa",
    "/metadata/labels",
    // A spec is required: an object without one can only fail.
    "/spec/versions/0/schema/openAPIV3Schema/required",
    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/credential",
    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/audiences",
    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations",
    "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/credential",
    // Flux has it from 1.10 on.
    "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/sourceVerificationFingerprint",
    "/spec/versions/0/additionalPrinterColumns/4",
];

/// The generator's own annotation is the only fact of Flux's that is not taken over.
const LEFT_OUT: [&str; 1] = ["/metadata/annotations/controller-gen.kubebuilder.io~1version"];

fn differences(flux: &Value, ours: &Value, path: &str, found: &mut Vec<String>) {
    match (flux, ours) {
        (Value::Object(flux), Value::Object(ours)) => {
            for (key, value) in flux {
                let path = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                match ours.get(key) {
                    Some(other) => differences(value, other, &path, found),
                    None => found.push(path),
                }
            }
            for key in ours.keys().filter(|key| !flux.contains_key(*key)) {
                found.push(format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")));
            }
        }
        (Value::Array(flux), Value::Array(ours)) => {
            for index in 0..flux.len().max(ours.len()) {
                let path = format!("{path}/{index}");
                match (flux.get(index), ours.get(index)) {
                    (Some(flux), Some(ours)) => differences(flux, ours, &path, found),
                    _ => found.push(path),
                }
            }
        }
        // The Kubernetes types hold every bound as a float: 0 became 0.0.
        (Value::Number(flux), Value::Number(ours))
            if flux.as_f64().map(f64::to_bits) == ours.as_f64().map(f64::to_bits) => {}
        (flux, ours) if flux == ours => {}
        _ => found.push(path.to_owned()),
    }
}

/// Removes the descriptions of schemas; `properties` may have a field of that name.
fn without_descriptions(value: &mut Value, names: bool) {
    match value {
        Value::Object(object) => {
            if !names {
                object.remove("description");
            }
            for (key, value) in object.iter_mut() {
                without_descriptions(value, key == "properties");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| without_descriptions(item, false)),
        _ => {}
    }
}

#[test]
fn ours_is_fluxs_and_the_listed_additions() {
    let flux: Value = serde_json::from_str(include_str!("flux-1.9.1.json")).unwrap();
    let mut ours = serde_json::to_value(mintmark_api::crd::oci_repository()).unwrap();
    without_descriptions(&mut ours, false);

    let mut found = Vec::new();
    differences(&flux, &ours, "", &mut found);
    found.sort();
    let mut expected: Vec<String> = ADDED.iter().chain(&LEFT_OUT).map(ToString::to_string).collect();
    expected.sort();
    assert_eq!(found, expected);
}
