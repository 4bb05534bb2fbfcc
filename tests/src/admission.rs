//! Asks the API server whether it takes an object, without storing it.
#![expect(clippy::panic, reason = "a failure is the test's")]

use kube::{
    Api, Client, Resource,
    api::{DynamicObject, PostParams},
    core::{ApiResource, Status},
};
use serde_json::{Value, json};

/// The object of kind `K`, named `web`, with these labels and this spec, as the API server completed it.
///
/// # Panics
///
/// When the API server gives no answer, or the labels are none.
pub async fn admit<K: Resource<DynamicType = ()>>(
    client: &Client,
    labels: &Value,
    spec: &Value,
) -> Result<Value, Box<Status>> {
    let resource = ApiResource::erase::<K>(&());
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let mut object = DynamicObject::new("web", &resource).data(json!({"spec": spec}));
    object.metadata.labels = serde_json::from_value(labels.clone()).unwrap_or_else(|error| panic!("{error}"));
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match objects.create(&dry_run, &object).await {
        Ok(object) => Ok(object.data),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("{error}"),
    }
}

/// `base` with the fields of `changes` added or replaced.
#[must_use]
pub fn with(base: &Value, changes: &Value) -> Value {
    let mut spec = base.clone();
    if let (Value::Object(spec), Value::Object(changes)) = (&mut spec, changes) {
        spec.extend(changes.clone());
    }
    spec
}
