//! Specs of OCIRepositories as the suites use them: tag `v1` and one credential, or what a suite puts together.

use serde_json::{Value, json};

use crate::env::AUDIENCE;

/// Name of the Secret with the registry's CA in [`secure_jwt`] and [`certificate`].
pub const REGISTRY_CA: &str = "registry-ca";

/// A minted JWT over plain HTTP on loopback.
pub fn jwt(url: &str) -> Value {
    json!({"url": url, "insecure": true, "ref": {"tag": "v1"}, "credential": "SpiffeJWT", "audiences": [AUDIENCE]})
}

/// A minted JWT over TLS.
pub fn secure_jwt(url: &str) -> Value {
    json!({"url": url, "ref": {"tag": "v1"}, "credential": "SpiffeJWT", "audiences": [AUDIENCE],
        "certSecretRef": {"name": REGISTRY_CA}})
}

/// A minted client certificate.
pub fn certificate(url: &str) -> Value {
    json!({"url": url, "ref": {"tag": "v1"}, "credential": "SpiffeCertificate", "certSecretRef": {"name": REGISTRY_CA}})
}

/// `spec` with the fields of `more` beside or in place of its own.
pub fn with(mut spec: Value, more: Value) -> Value {
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    spec
}
