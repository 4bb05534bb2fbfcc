//! Objects as etcd holds them, written past the API server through etcd's JSON gateway (`/v3/kv/txn`), in transactions of as
//! many puts as etcd takes by default.

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

/// Puts of one transaction; etcd's `--max-txn-ops` is 128.
const PUTS: usize = 128;

/// Where kube-apiserver keeps everything (`--etcd-prefix`).
const PREFIX: &str = "/registry";

/// A custom resource in etcd.
#[derive(Debug, Clone)]
pub struct StoredObject {
    /// `<group>/<plural>/<namespace>/<name>`.
    pub key: String,
    /// The object as JSON, with all that the API server would have added but its resourceVersion.
    pub value: Vec<u8>,
}

/// Writes `objects` into the etcd at this client URL.
pub(super) async fn put(etcd: &str, objects: &[StoredObject]) -> Result<()> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    for chunk in objects.chunks(PUTS) {
        let puts: Vec<Value> = chunk.iter().map(request).collect();
        let transaction = json!({"compare": [], "success": puts, "failure": []});
        http.post(format!("{etcd}/v3/kv/txn"))
            .body(serde_json::to_vec(&transaction)?)
            .send()
            .await?
            .error_for_status()?;
    }
    Ok(())
}

fn request(object: &StoredObject) -> Value {
    let key = BASE64.encode(format!("{PREFIX}/{}", object.key));
    json!({"requestPut": {"key": key, "value": BASE64.encode(&object.value)}})
}
