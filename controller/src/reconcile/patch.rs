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

/// Builds the merge patch that makes `status` the object's, where `owned` are the names of all fields it can have.
pub fn merge_patch<S: Serialize>(status: &S, owned: &[&str], resource_version: &str) -> serde_json::Result<Value> {
    let mut fields: Map<String, Value> = owned.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    if let Value::Object(present) = serde_json::to_value(status)? {
        fields.extend(present);
    }
    Ok(json!({"metadata": {"resourceVersion": resource_version}, "status": fields}))
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
        let patch = merge_patch(&json!({"url": "u"}), &["url", "artifact"], "7").unwrap();
        assert_eq!(
            patch,
            json!({"metadata": {"resourceVersion": "7"}, "status": {"url": "u", "artifact": null}})
        );
    }
}
