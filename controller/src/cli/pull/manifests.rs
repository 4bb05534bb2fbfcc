//! The manifests that `mintmark pull` is given: several documents, lists of `kubectl get -o yaml` among them. Parse errors do
//! not quote the text, for it may hold Secrets.

use std::{io::Read, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use mintmark_api::oci_repository::{KIND, OciRepository};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::{FlagError, offline::read};

/// The namespace of what names none.
const NAMESPACE: &str = "default";

/// Objects by kind, namespace and name.
#[derive(Default)]
pub(super) struct Manifests(Vec<Value>);

impl Manifests {
    /// Reads a file, or standard input for `-`.
    pub(super) fn read(path: &Path) -> Result<Self, FlagError> {
        let bytes = if path == Path::new("-") {
            let mut bytes = Vec::new();
            let read = std::io::stdin().read_to_end(&mut bytes);
            read.map_err(|error| FlagError::new("file", format!("standard input: {error}")))?;
            bytes
        } else {
            read("file", &path.to_owned())?
        };
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self, FlagError> {
        let refuse = || FlagError::new("file", "is not YAML");
        let mut objects = Vec::new();
        for document in serde_yaml_ng::Deserializer::from_slice(bytes) {
            let document = Value::deserialize(document).map_err(|_| refuse())?;
            match document.get("items").and_then(Value::as_array) {
                Some(items) => objects.extend(items.iter().cloned()),
                None if document.is_null() => {}
                None => objects.push(document),
            }
        }
        objects.iter_mut().for_each(complete);
        Ok(Self(objects))
    }

    /// The one OCIRepository, or the one of this name. It is taken as if it were new and not suspended.
    pub(super) fn object(&self, name: Option<&str>) -> Result<OciRepository, FlagError> {
        let mut found = self.0.iter().filter(|object| {
            let is_named = name.is_none_or(|name| text(object, "/metadata/name") == Some(name));
            text(object, "/kind") == Some(KIND) && is_named
        });
        let object = found
            .next()
            .ok_or_else(|| FlagError::new("file", format!("has no such {KIND}")))?;
        if found.next().is_some() {
            return Err(FlagError::new("name", format!("is needed: there are several {KIND}s")));
        }
        let invalid = |error: serde_json::Error| FlagError::new("file", format!("{KIND}: {error}"));
        let mut object: OciRepository = serde_json::from_value(object.clone()).map_err(invalid)?;
        object.status = None;
        object.spec.suspend = false;
        Ok(object)
    }

    /// The object of a namespaced kind.
    pub(super) fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        self.0.iter().find(|object| {
            text(object, "/kind") == Some(kind)
                && text(object, "/metadata/namespace") == Some(namespace)
                && text(object, "/metadata/name") == Some(name)
        })
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

/// Does what an API server does on creation, as far as a pass looks at it.
fn complete(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    let strings = fields.remove("stringData");
    if let Some(strings) = strings.as_ref().and_then(Value::as_object) {
        let data = fields.entry("data").or_insert_with(|| Map::new().into());
        for (key, value) in strings {
            if let (Some(data), Some(value)) = (data.as_object_mut(), value.as_str()) {
                data.insert(key.clone(), STANDARD.encode(value).into());
            }
        }
    }
    let meta = fields.entry("metadata").or_insert_with(|| Map::new().into());
    if let Some(meta) = meta.as_object_mut() {
        meta.entry("namespace").or_insert_with(|| NAMESPACE.into());
        meta.entry("uid").or_insert_with(|| "none".into());
        meta.entry("generation").or_insert_with(|| 1.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: &str = "kind: OCIRepository
apiVersion: source.toolkit.fluxcd.io/v1
metadata: {name: app}
spec: {url: 'oci://r.example/app', interval: 1m, suspend: true}
status: {url: forged}
";

    #[test]
    fn documents_and_lists_are_read_as_an_api_server_would_store_them() {
        let list = "kind: List\nitems:\n- {kind: Secret, metadata: {name: s, namespace: a}, stringData: {k: v}}\n";
        let manifests = Manifests::parse(format!("---\n{APP}---\n{list}---\n").as_bytes()).unwrap();
        let object = manifests.object(None).unwrap();
        assert_eq!(object.metadata.namespace.as_deref(), Some("default"));
        assert!(object.status.is_none() && !object.spec.suspend);
        assert_eq!(manifests.get("Secret", "a", "s").unwrap()["data"]["k"], "dg==");
        assert!(manifests.get("Secret", "b", "s").is_none());
    }

    #[test]
    fn one_object_is_meant() {
        let two = format!("{APP}---\n{}", APP.replace("name: app", "name: other"));
        let manifests = Manifests::parse(two.as_bytes()).unwrap();
        let error = manifests.object(None).unwrap_err().to_string();
        assert!(error.starts_with("--name: is needed"), "{error}");
        assert!(manifests.object(Some("other")).is_ok());
        let error = manifests.object(Some("third")).unwrap_err().to_string();
        assert!(error.starts_with("--file: has no such"), "{error}");
    }

    #[test]
    fn what_is_no_manifest_is_not_quoted() {
        let error = Manifests::parse(b"kind: Secret\ndata: {k: planted\n")
            .err()
            .unwrap()
            .to_string();
        assert_eq!(error, "--file: is not YAML");
    }
}
