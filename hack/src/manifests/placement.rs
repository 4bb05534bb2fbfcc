//! Puts the objects of `config/` under other names, so that several controllers can live in one cluster.

use std::collections::BTreeSet;

use anyhow::Result;
use kube::api::DynamicObject;
use serde_json::Value;

/// The namespace that `config/` is written for.
const CONFIG_NAMESPACE: &str = "mintmark-system";

/// Cluster-scoped kinds that exist once per controller. CRDs exist once per cluster and keep their names.
const SUFFIXED: &[&str] = &[
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

/// Where the controller's objects go.
#[derive(Debug, Clone)]
pub struct Placement {
    /// Takes the place of `mintmark-system` in every string, CEL expressions and arguments included.
    pub namespace: String,
    /// Appended, after a hyphen, to the names of cluster-scoped RBAC and admission objects and to what refers to them.
    pub suffix: String,
}

impl Placement {
    /// A placement named after its namespace.
    pub fn new(namespace: impl Into<String>) -> Self {
        let namespace = namespace.into();
        Self {
            suffix: namespace.clone(),
            namespace,
        }
    }

    /// Rewrites a complete set of objects. References to cluster-scoped objects outside the set stay as they are.
    pub fn place(&self, objects: Vec<DynamicObject>) -> Result<Vec<DynamicObject>> {
        let ours: BTreeSet<_> = objects.iter().filter_map(suffixed_name).collect();
        objects
            .into_iter()
            .map(|object| {
                let mut value = serde_json::to_value(object)?;
                replace(&mut value, &self.namespace);
                let kind = text(&value, "/kind");
                if SUFFIXED.contains(&kind.as_str()) {
                    self.rename(&mut value, "/metadata/name");
                }
                // A Role keeps its name, a ClusterRole and a policy of ours do not.
                for (pointer, referent) in [
                    ("/roleRef/name", text(&value, "/roleRef/kind")),
                    ("/spec/policyName", "ValidatingAdmissionPolicy".to_owned()),
                ] {
                    if ours.contains(&(referent, text(&value, pointer))) {
                        self.rename(&mut value, pointer);
                    }
                }
                Ok(serde_json::from_value(value)?)
            })
            .collect()
    }

    fn rename(&self, value: &mut Value, pointer: &str) {
        if let Some(Value::String(name)) = value.pointer_mut(pointer) {
            name.push('-');
            name.push_str(&self.suffix);
        }
    }
}

fn suffixed_name(object: &DynamicObject) -> Option<(String, String)> {
    let kind = object.types.as_ref()?.kind.clone();
    SUFFIXED
        .contains(&kind.as_str())
        .then_some((kind, object.metadata.name.clone()?))
}

fn text(value: &Value, pointer: &str) -> String {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn replace(value: &mut Value, namespace: &str) {
    match value {
        Value::String(text) => *text = text.replace(CONFIG_NAMESPACE, namespace),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, namespace)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, namespace)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn place(values: Value) -> Value {
        let objects = serde_json::from_value(values).unwrap();
        serde_json::to_value(Placement::new("team-a").place(objects).unwrap()).unwrap()
    }

    #[test]
    fn own_cluster_roles_are_suffixed_and_foreign_ones_are_not() {
        let placed = place(json!([
            { "apiVersion": "rbac/v1", "kind": "ClusterRole", "metadata": { "name": "manager" } },
            {
                "apiVersion": "rbac/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "manager" },
                "roleRef": { "kind": "ClusterRole", "name": "manager" },
                "subjects": [{ "kind": "ServiceAccount", "name": "m", "namespace": "mintmark-system" }],
            },
            {
                "apiVersion": "rbac/v1", "kind": "RoleBinding",
                "metadata": { "name": "manager", "namespace": "mintmark-system" },
                "roleRef": { "kind": "ClusterRole", "name": "view" },
            },
        ]));
        assert_eq!(placed[0]["metadata"]["name"], "manager-team-a");
        assert_eq!(placed[1]["roleRef"]["name"], "manager-team-a");
        assert_eq!(placed[1]["subjects"][0]["namespace"], "team-a");
        assert_eq!(
            placed[2]["metadata"],
            json!({ "name": "manager", "namespace": "team-a" })
        );
        assert_eq!(placed[2]["roleRef"]["name"], "view");
    }

    #[test]
    fn expressions_follow_the_namespace() {
        let placed = place(json!([
            {
                "apiVersion": "a/v1", "kind": "ValidatingAdmissionPolicy", "metadata": { "name": "tokens" },
                "spec": { "matchConditions": [{ "expression": "user == 'system:serviceaccount:mintmark-system:m'" }] },
            },
            {
                "apiVersion": "a/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": { "name": "tokens" },
                "spec": { "policyName": "tokens" },
            },
        ]));
        assert_eq!(
            placed[0]["spec"]["matchConditions"][0]["expression"],
            "user == 'system:serviceaccount:team-a:m'"
        );
        assert_eq!(placed[1]["spec"]["policyName"], "tokens-team-a");
    }
}
