//! Compares the shipped definitions with the facts of Flux's own ones (source-controller 1.9.1, image-reflector-controller
//! 1.2, descriptions left out): everything of Flux's must be there unchanged, and everything beyond it must be on a list
//! of additions below.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use mintmark_api::crd;
use rstest::rstest;
use serde_json::Value;

/// JSON pointers of what every definition has beyond Flux's. A pointer stands for everything below it.
const ADDED_TO_ALL: [&str; 4] = [
    // Flux carries the first of these from 1.10 on.
    "/metadata/annotations/kustomize.toolkit.fluxcd.io~1substitute",
    "/metadata/annotations/kustomize.toolkit.fluxcd.io~1ssa",
    "/metadata/labels",
    // A spec is required: an object without one can only fail.
    "/spec/versions/0/schema/openAPIV3Schema/required",
];

/// What the kinds have that ask a registry.
const ADDED_WITH_CREDENTIAL: [&str; 4] = [
    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/credential",
    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/audiences",
    "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations",
    "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/credential",
];

const ADDED_TO_OCI_REPOSITORY: [&str; 2] = [
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

#[rstest]
#[case::oci_repository(
    include_str!("flux-1.9.1.json"),
    crd::oci_repository(),
    [ADDED_WITH_CREDENTIAL.as_slice(), &ADDED_TO_OCI_REPOSITORY].concat(),
)]
#[case::image_repository(
    include_str!("flux-1.2-imagerepositories.json"),
    crd::image_repository(),
    ADDED_WITH_CREDENTIAL.to_vec(),
)]
#[case::image_policy(include_str!("flux-1.2-imagepolicies.json"), crd::image_policy(), vec![])]
fn ours_is_fluxs_and_the_listed_additions(
    #[case] flux: &str,
    #[case] ours: CustomResourceDefinition,
    #[case] added: Vec<&str>,
) {
    let flux: Value = serde_json::from_str(flux).unwrap();
    let mut ours = serde_json::to_value(ours).unwrap();
    without_descriptions(&mut ours, false);

    let mut found = Vec::new();
    differences(&flux, &ours, "", &mut found);
    found.sort();
    let mut expected: Vec<&str> = [added.as_slice(), &ADDED_TO_ALL, &LEFT_OUT].concat();
    expected.sort_unstable();
    assert_eq!(found, expected);
}
