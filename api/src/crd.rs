//! The `CustomResourceDefinition`s that are shipped, made from the types.
//!
//! What the derive macro yields is brought into the form that Flux's generator has: optional fields are not nullable,
//! the fields every object has are declared, and `status` has a default, so that an object no pass has seen yet reads
//! as in progress.

use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::CustomResourceExt;
use serde_json::json;

use crate::{image_policy::ImagePolicy, image_repository::ImageRepository, oci_repository::OciRepository};

/// Name of the CRD of [`OciRepository`].
pub const OCI_REPOSITORY_CRD: &str = "ocirepositories.source.toolkit.fluxcd.io";
/// Name of the CRD of [`ImageRepository`].
pub const IMAGE_REPOSITORY_CRD: &str = "imagerepositories.image.toolkit.fluxcd.io";
/// Name of the CRD of [`ImagePolicy`].
pub const IMAGE_POLICY_CRD: &str = "imagepolicies.image.toolkit.fluxcd.io";

/// The definition of the kind `OCIRepository`.
pub fn oci_repository() -> CustomResourceDefinition {
    finished(OciRepository::crd())
}

/// The definition of the kind `ImageRepository`.
pub fn image_repository() -> CustomResourceDefinition {
    finished(ImageRepository::crd())
}

/// The definition of the kind `ImagePolicy`.
pub fn image_policy() -> CustomResourceDefinition {
    finished(ImagePolicy::crd())
}

fn finished(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    crd.metadata = ObjectMeta {
        labels: Some([("app.kubernetes.io/part-of".to_owned(), "mintmark".to_owned())].into()),
        ..crd.metadata
    };
    crd.spec.names.list_kind = Some(format!("{}List", crd.spec.names.kind));
    for version in &mut crd.spec.versions {
        if let Some(root) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        {
            complete(root);
        }
    }
    crd
}

/// Brings the schema of the whole object into its final form.
fn complete(root: &mut JSONSchemaProps) {
    normalise(root);
    let properties = root.properties.get_or_insert_default();
    if let Some(status) = properties.get_mut("status") {
        status.default = Some(JSON(json!({"observedGeneration": -1})));
    }
    // The API server allows no further statement about them than the type.
    for (name, type_) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
        let schema = JSONSchemaProps {
            type_: Some(type_.to_owned()),
            ..JSONSchemaProps::default()
        };
        properties.insert(name.to_owned(), schema);
    }
}

/// Removes `nullable` and `title` everywhere: absent is the only way to leave a field out.
fn normalise(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.title = None;
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
    {
        normalise(property);
    }
    match schema.items.as_mut() {
        Some(JSONSchemaPropsOrArray::Schema(item)) => normalise(item),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(normalise),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = schema.additional_properties.as_mut() {
        normalise(values);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::rules::CredentialRule;

    fn version_schema(crd: &CustomResourceDefinition) -> serde_json::Value {
        let crd = serde_json::to_value(crd).unwrap();
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    #[rstest]
    #[case(oci_repository(), OCI_REPOSITORY_CRD)]
    #[case(image_repository(), IMAGE_REPOSITORY_CRD)]
    #[case(image_policy(), IMAGE_POLICY_CRD)]
    fn every_definition_is_named_starts_unobserved_and_has_nothing_nullable(
        #[case] crd: CustomResourceDefinition,
        #[case] name: &str,
    ) {
        assert_eq!(crd.metadata.name.as_deref(), Some(name));
        let schema = version_schema(&crd);
        assert_eq!(
            schema["properties"]["status"]["default"],
            json!({"observedGeneration": -1})
        );
        assert!(!schema.to_string().contains("nullable"));
    }

    #[rstest]
    #[case(oci_repository())]
    #[case(image_repository())]
    fn every_credential_rule_is_there_with_its_message(#[case] crd: CustomResourceDefinition) {
        let schema = version_schema(&crd);
        let rules = schema["properties"]["spec"]["x-kubernetes-validations"]
            .as_array()
            .unwrap();
        assert_eq!(rules.len(), CredentialRule::CEL.len());
        for (rule, json) in CredentialRule::CEL.into_iter().zip(rules) {
            assert_eq!(json["message"], rule.message());
            assert_eq!(json["rule"], rule.cel().unwrap());
            let field = rule.field_path().trim_start_matches('.');
            assert!(
                schema["properties"]["spec"]["properties"].get(field).is_some(),
                "{field}"
            );
        }
    }
}
