//! Reads a kustomization folder, as far as `config/` uses kustomize: `resources`, `namespace` and `labels`.
//!
//! Any other field is an error, so that what the tests apply never differs silently from what `kubectl apply -k` does.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use kube::api::DynamicObject;
use serde::Deserialize;
use serde_json::{Value, json};

/// Kinds of `config/` that have no namespace.
const CLUSTER_SCOPED: &[&str] = &[
    "APIService",
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "Namespace",
    "PriorityClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Kustomization {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    #[serde(rename = "kind")]
    _kind: Option<String>,
    #[serde(default)]
    resources: Vec<PathBuf>,
    namespace: Option<String>,
    #[serde(default)]
    labels: Vec<Labels>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Labels {
    pairs: BTreeMap<String, String>,
    #[serde(default)]
    include_templates: bool,
}

/// Loads the objects of a folder with a `kustomization.yaml`, or of one YAML file, in the order they are written in.
pub fn load(path: &Path) -> Result<Vec<DynamicObject>> {
    values(path)?
        .into_iter()
        .map(|value| serde_json::from_value(value).with_context(|| format!("not an object in {}", path.display())))
        .collect()
}

fn values(path: &Path) -> Result<Vec<Value>> {
    if !path.is_dir() {
        return documents(path);
    }
    let file = path.join("kustomization.yaml");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let kustomization: Kustomization = serde_yaml_ng::from_str(&text)
        .with_context(|| format!("{}: a field the harness does not support", file.display()))?;
    let mut objects = Vec::new();
    for resource in &kustomization.resources {
        objects.extend(values(&path.join(resource))?);
    }
    for object in &mut objects {
        if let Some(namespace) = &kustomization.namespace {
            set_namespace(object, namespace);
        }
        for labels in &kustomization.labels {
            set_labels(object, labels);
        }
    }
    Ok(objects)
}

fn documents(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut objects = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(&text) {
        let value = Value::deserialize(document).with_context(|| format!("{} is not YAML", path.display()))?;
        match value {
            Value::Null => {}
            Value::Object(_) => objects.push(value),
            _ => bail!("{} holds something that is not an object", path.display()),
        }
    }
    Ok(objects)
}

/// As kustomize does: every namespaced object moves. (It moves the subject `default` of bindings, too: not used here.)
fn set_namespace(object: &mut Value, namespace: &str) {
    let kind = object
        .get("kind")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    if kind == "Namespace" {
        set(object, "metadata", "name", json!(namespace));
    } else if !CLUSTER_SCOPED.contains(&kind.as_str()) {
        set(object, "metadata", "namespace", json!(namespace));
    }
}

fn set_labels(object: &mut Value, labels: &Labels) {
    for (key, value) in &labels.pairs {
        for parent in [
            Some("/metadata"),
            labels.include_templates.then_some("/spec/template/metadata"),
        ] {
            if let Some(metadata) = parent.and_then(|pointer| object.pointer_mut(pointer)) {
                set(metadata, "labels", key, json!(value));
            }
        }
    }
}

/// Sets `object[parent][key]`, making the parent if it is not there.
fn set(object: &mut Value, parent: &str, key: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        let parent = fields.entry(parent).or_insert_with(|| json!({}));
        if let Some(fields) = parent.as_object_mut() {
            fields.insert(key.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn resources_are_followed_and_namespaced() {
        let folder = folder(&[
            (
                "top/kustomization.yaml",
                "namespace: here\nlabels:\n- pairs: {a: b}\nresources: [../rbac, x.yaml]\n",
            ),
            (
                "top/x.yaml",
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n---\n# nothing\n",
            ),
            ("rbac/kustomization.yaml", "resources: [role.yaml]\n"),
            (
                "rbac/role.yaml",
                "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: r}\n",
            ),
        ]);
        let objects = load(&folder.path().join("top")).unwrap();
        let found: Vec<_> = objects
            .iter()
            .map(|object| {
                (
                    object.metadata.name.as_deref().unwrap(),
                    object.metadata.namespace.as_deref(),
                )
            })
            .collect();
        assert_eq!(found, [("r", None), ("x", Some("here"))]);
        assert_eq!(objects[1].metadata.labels.as_ref().unwrap()["a"], "b");
    }

    #[test]
    fn an_unsupported_field_is_an_error() {
        let folder = folder(&[("kustomization.yaml", "namePrefix: x\n")]);
        let error = format!("{:#}", load(folder.path()).unwrap_err());
        assert!(
            error.contains("does not support") && error.contains("namePrefix"),
            "{error}"
        );
    }
}
