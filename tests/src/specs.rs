//! Specs as the suites use them: of OCIRepositories with tag `v1` and one credential, the same for the tags of an image, or
//! what a suite puts together.

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

/// A token of ServiceAccount `puller` over plain HTTP on loopback.
pub fn account(url: &str) -> Value {
    json!({"url": url, "insecure": true, "ref": {"tag": "v1"}, "credential": "ServiceAccountToken",
        "audiences": [AUDIENCE], "serviceAccountName": "puller"})
}

/// The `ImageRepository` that asks the same registry, as the same kind of client, for the tags.
pub fn image(mut spec: Value) -> Value {
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("ref");
        let url = fields.remove("url").unwrap_or_default();
        let name = image_name(url.as_str().unwrap_or_default());
        fields.insert("image".to_owned(), name.into());
    }
    spec
}

/// What `spec.image` is for an `oci://` URL.
pub fn image_name(url: &str) -> &str {
    url.strip_prefix("oci://").unwrap_or(url)
}

/// `spec` with the fields of `more` beside or in place of its own.
pub fn with(mut spec: Value, more: Value) -> Value {
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    spec
}
