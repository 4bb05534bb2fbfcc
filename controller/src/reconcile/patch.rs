//! Writes a complete owned status, once: a JSON merge patch on `/status` with the resourceVersion it was computed from, and
//! an explicit null for every owned field that is absent. Server-side apply would leave another controller's fields behind.
//! Needs patch on the kind's `/status`.

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{
    runtime::api_server::timely,
    watch::{FIELD_MANAGER, Kind},
};

/// Builds the merge patch that makes `status` the object's in place of `held`, where `owned` are the names of all fields it
/// can have. A merge keeps what it does not name, within fields as well.
pub fn merge_patch<S: Serialize>(
    status: &S,
    held: Option<&S>,
    owned: &[&str],
    resource_version: &str,
) -> serde_json::Result<Value> {
    let mut fields: Map<String, Value> = owned.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    if let Value::Object(present) = serde_json::to_value(status)? {
        fields.extend(present);
    }
    if let Value::Object(held) = serde_json::to_value(held)? {
        remove_absent(&mut fields, &held);
    }
    Ok(json!({"metadata": {"resourceVersion": resource_version}, "status": fields}))
}

/// An explicit null for everything that is in `held` and not in `wanted`.
fn remove_absent(wanted: &mut Map<String, Value>, held: &Map<String, Value>) {
    for (name, held) in held {
        match (wanted.get_mut(name), held) {
            (None, _) => {
                wanted.insert(name.clone(), Value::Null);
            }
            (Some(Value::Object(wanted)), Value::Object(held)) => remove_absent(wanted, held),
            (Some(_), _) => {}
        }
    }
}

/// Writes the patch; `Ok(None)` means that the object has changed meanwhile or is gone.
pub async fn write<K: Kind>(api: &Api<K>, name: &str, patch: Value) -> kube::Result<Option<K>> {
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match timely(api.patch_status(name, &params, &Patch::Merge(patch))).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_owned_fields_become_null() {
        let patch = merge_patch(&json!({"url": "u"}), None, &["url", "artifact"], "7").unwrap();
        assert_eq!(
            patch,
            json!({"metadata": {"resourceVersion": "7"}, "status": {"url": "u", "artifact": null}})
        );
    }

    #[test]
    fn what_is_absent_within_a_field_becomes_null() {
        let held =
            json!({"artifact": {"size": 1, "metadata": {"a": "1", "b": "2"}}, "conditions": [{"type": "Ready"}]});
        let wanted = json!({"artifact": {"metadata": {"b": "3"}}, "conditions": []});
        let patch = merge_patch(&wanted, Some(&held), &["artifact", "conditions"], "7").unwrap();
        assert_eq!(
            patch["status"],
            json!({"artifact": {"size": null, "metadata": {"a": null, "b": "3"}}, "conditions": []})
        );
    }
}
