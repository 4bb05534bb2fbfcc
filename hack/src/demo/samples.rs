//! `config/samples/` as a user would apply it, with the registries' hosts replaced by the demo's own, and what each of
//! its objects must come to.

use anyhow::{Context, Result, bail};
use kube::{ResourceExt, api::DynamicObject};
use mintmark_api::{
    credential::CredentialKind,
    oci_repository::{KIND, OciRepositorySpec},
};
use serde_json::{Value, json};

use crate::{manifests, workspace};

/// The trust domain of the demo.
pub const TRUST_DOMAIN: &str = "example.org";
/// The audience in the samples.
pub const AUDIENCE: &str = "registry.example.org";
/// The host in the samples whose registry takes tokens.
pub const TOKEN_HOST: &str = "registry.example.org";
/// The host in the samples whose registry takes client certificates.
pub const CERTIFICATE_HOST: &str = "registry-mtls.example.org";
/// The Secret in the samples that holds the CA of the registries' certificates.
const CA_SECRET: &str = "registry-ca";

/// One OCIRepository of the samples.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `spec.credential`.
    pub credential: CredentialKind,
    /// Whom the registry must see.
    pub subject: String,
    /// [`TOKEN_HOST`] or [`CERTIFICATE_HOST`].
    pub host: String,
    /// The repository at that host.
    pub repository: String,
    /// `spec.ref.tag`.
    pub tag: String,
}

impl Sample {
    fn of(object: &DynamicObject) -> Result<Self> {
        let namespace = object.namespace().context("a sample without namespace")?;
        let name = object.name_any();
        let spec: OciRepositorySpec = serde_json::from_value(object.data.get("spec").cloned().unwrap_or_default())
            .with_context(|| format!("sample {namespace}/{name}"))?;
        let credential = spec
            .credential
            .with_context(|| format!("sample {name} has no credential"))?;
        let subject = match &spec.service_account_name {
            Some(account) => format!("system:serviceaccount:{namespace}:{account}"),
            None => format!("spiffe://{TRUST_DOMAIN}/ocirepositories/{namespace}/{name}"),
        };
        let place = spec.url.strip_prefix("oci://").and_then(|rest| rest.split_once('/'));
        let (host, repository) = place.with_context(|| format!("sample {name} has the URL {}", spec.url))?;
        let tag = spec.reference.and_then(|reference| reference.tag);
        Ok(Self {
            credential,
            subject,
            host: host.to_owned(),
            repository: repository.to_owned(),
            tag: tag.with_context(|| format!("sample {name} has no tag"))?,
            namespace,
            name,
        })
    }

    /// `<namespace>/<name>`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether it asks for its own repository, which is named after it, and so must get it.
    pub fn is_owner(&self) -> bool {
        self.repository == self.id()
    }
}

/// The objects of the samples, as they are written.
pub struct Samples {
    objects: Vec<DynamicObject>,
    /// The OCIRepositories among them.
    pub repositories: Vec<Sample>,
}

impl Samples {
    /// Reads `config/samples/`.
    pub fn load() -> Result<Self> {
        let objects = manifests::load(&workspace::root().join("config/samples"))?;
        let repositories = objects.iter().filter(|object| is_repository(object));
        Ok(Self {
            repositories: repositories.map(Sample::of).collect::<Result<_>>()?,
            objects,
        })
    }

    /// The objects to apply: with `address(host)` in the place of each host, and the Secret `registry-ca` with these
    /// CAs (PEM) in each namespace, as the samples ask for.
    pub fn placed<'a>(&self, address: impl Fn(&str) -> Option<&'a str>, ca_pem: &str) -> Result<Vec<DynamicObject>> {
        let mut placed = Vec::new();
        for object in &self.objects {
            let mut object = object.clone();
            if is_repository(&object) {
                replace_host(&mut object, &address)?;
            }
            if object.types.as_ref().is_some_and(|types| types.kind == "Namespace") {
                placed.push(ca_secret(&object.name_any(), ca_pem)?);
            }
            placed.push(object);
        }
        Ok(placed)
    }
}

fn is_repository(object: &DynamicObject) -> bool {
    object.types.as_ref().is_some_and(|types| types.kind == KIND)
}

fn replace_host<'a>(object: &mut DynamicObject, address: impl Fn(&str) -> Option<&'a str>) -> Result<()> {
    let host = Sample::of(object)?.host;
    let Some(address) = address(&host) else {
        bail!("config/samples names the host {host}: the demo has registries for {TOKEN_HOST} and {CERTIFICATE_HOST}");
    };
    if let Some(Value::String(url)) = object.data.pointer_mut("/spec/url") {
        *url = url.replacen(&host, address, 1);
    }
    Ok(())
}

fn ca_secret(namespace: &str, ca_pem: &str) -> Result<DynamicObject> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": CA_SECRET, "namespace": namespace },
        "stringData": { "ca.crt": ca_pem },
    }))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_show_each_credential_once_and_one_intruder() {
        let samples = Samples::load().unwrap().repositories;
        let owners: Vec<_> = samples.iter().filter(|it| it.is_owner()).collect();
        for kind in CredentialKind::ALL {
            assert_eq!(owners.iter().filter(|it| it.credential == kind).count(), 1, "{kind}");
        }
        let intruders: Vec<_> = samples.iter().filter(|it| !it.is_owner()).collect();
        assert_eq!(intruders.len(), 1);
        assert!(owners.iter().any(|it| it.repository == intruders[0].repository));
        assert!(
            owners
                .iter()
                .any(|it| it.subject == "system:serviceaccount:team-a:puller")
        );
    }

    #[test]
    fn only_the_hosts_are_replaced() {
        let samples = Samples::load().unwrap();
        let address = |host: &str| {
            Some(if host == TOKEN_HOST {
                "127.0.0.1:1"
            } else {
                "127.0.0.1:2"
            })
        };
        let placed = samples.placed(address, "PEM").unwrap();
        let urls: Vec<_> = placed
            .iter()
            .filter_map(|it| it.data.pointer("/spec/url")?.as_str())
            .collect();
        assert_eq!(
            urls,
            [
                "oci://127.0.0.1:1/team-a/web",
                "oci://127.0.0.1:1/team-b/api",
                "oci://127.0.0.1:2/team-c/jobs",
                "oci://127.0.0.1:1/team-b/api",
            ]
        );
        let audiences = placed
            .iter()
            .filter_map(|it| it.data.pointer("/spec/audiences/0")?.as_str());
        assert!(audiences.into_iter().all(|audience| audience == AUDIENCE));
        let secrets = placed.iter().filter(|it| it.name_any() == CA_SECRET);
        assert_eq!(secrets.count(), 4);
    }

    #[test]
    fn a_host_without_registry_is_an_error() {
        let error = Samples::load().unwrap().placed(|_| None, "PEM").unwrap_err();
        assert!(error.to_string().contains("registry.example.org"), "{error}");
    }
}
