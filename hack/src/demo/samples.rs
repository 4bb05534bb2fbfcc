//! `config/samples/` as a user would apply it, with the registries' hosts replaced by the demo's own, and what each of
//! its objects must come to.

use anyhow::{Context, Result, bail};
use kube::{ResourceExt, api::DynamicObject};
use mintmark_api::{
    credential::CredentialKind,
    image_policy::{self, ImagePolicySpec},
    image_repository::{self, ImageRepositorySpec},
    oci_repository::{self, OciRepositorySpec},
};
use serde::de::DeserializeOwned;
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

/// The folders of the samples.
const FOLDERS: [&str; 2] = ["config/samples", "config/samples/images"];
/// The tags of an image. The last one is what its policy must select, by version, neither by age nor by name.
const IMAGE_TAGS: [&str; 4] = ["1.9.0", "latest", "2.0.0", "1.10.0"];

/// What a sample asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wants {
    /// An artifact: an OCIRepository.
    Artifact,
    /// The tags of an image, and the one that this ImagePolicy selects: an ImageRepository.
    Tags {
        /// Name of the policy.
        policy: String,
    },
}

/// One object of the samples that asks a registry.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What it asks for.
    pub wants: Wants,
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
    /// The tags that its repository must have; the last one is what it must come to.
    pub tags: Vec<String>,
}

impl Sample {
    /// The sample that `object` is, if it is one; `policies` are all of them.
    fn of(object: &DynamicObject, policies: &[DynamicObject]) -> Result<Option<Self>> {
        let id = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
        let sample = match manifests::kind(object) {
            oci_repository::KIND => Self::of_repository(object),
            image_repository::KIND => Self::of_image(object, policies),
            _ => return Ok(None),
        };
        sample.map(Some).with_context(|| format!("sample {id}"))
    }

    fn of_repository(object: &DynamicObject) -> Result<Self> {
        let spec: OciRepositorySpec = spec(object)?;
        let place = spec.url.strip_prefix("oci://").context("no oci:// URL")?;
        let tag = spec.reference.as_ref().and_then(|reference| reference.tag.clone());
        let account = spec.service_account_name.as_deref();
        let sample = Self::new(object, oci_repository::PLURAL, spec.credential, account, place)?;
        Ok(Self {
            tags: vec![tag.context("no tag")?],
            ..sample
        })
    }

    fn of_image(object: &DynamicObject, policies: &[DynamicObject]) -> Result<Self> {
        let ImageRepositorySpec { image, access, .. } = spec(object)?;
        let account = access.service_account_name.as_deref();
        let sample = Self::new(object, image_repository::PLURAL, access.credential, account, &image)?;
        let selects = |policy: &&DynamicObject| {
            let policy_spec = spec::<ImagePolicySpec>(policy);
            let is_named = policy_spec.is_ok_and(|it| it.image_repository_ref.name == sample.name);
            is_named && policy.namespace() == object.namespace()
        };
        let policy = policies.iter().find(selects).context("no policy")?.name_any();
        Ok(Self {
            wants: Wants::Tags { policy },
            tags: IMAGE_TAGS.map(str::to_owned).to_vec(),
            ..sample
        })
    }

    fn new(
        object: &DynamicObject,
        plural: &str,
        credential: Option<CredentialKind>,
        account: Option<&str>,
        place: &str,
    ) -> Result<Self> {
        let namespace = object.namespace().context("no namespace")?;
        let name = object.name_any();
        let subject = match account {
            Some(account) => format!("system:serviceaccount:{namespace}:{account}"),
            None => format!("spiffe://{TRUST_DOMAIN}/{plural}/{namespace}/{name}"),
        };
        let (host, repository) = place.split_once('/').context("no repository")?;
        Ok(Self {
            wants: Wants::Artifact,
            credential: credential.context("no credential")?,
            subject,
            host: host.to_owned(),
            repository: repository.to_owned(),
            tags: Vec::new(),
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

fn spec<T: DeserializeOwned>(object: &DynamicObject) -> Result<T> {
    Ok(serde_json::from_value(
        object.data.get("spec").cloned().unwrap_or_default(),
    )?)
}

/// The objects of the samples, as they are written.
pub struct Samples {
    objects: Vec<DynamicObject>,
    /// Those among them that ask a registry.
    pub askers: Vec<Sample>,
}

impl Samples {
    /// Reads `config/samples/` and `config/samples/images/`.
    pub fn load() -> Result<Self> {
        let mut objects = Vec::new();
        for folder in FOLDERS {
            objects.extend(manifests::load(&workspace::root().join(folder))?);
        }
        let policies = objects
            .iter()
            .filter(|object| manifests::kind(object) == image_policy::KIND);
        let policies: Vec<_> = policies.cloned().collect();
        let askers = objects
            .iter()
            .filter_map(|object| Sample::of(object, &policies).transpose());
        Ok(Self {
            askers: askers.collect::<Result<_>>()?,
            objects,
        })
    }

    /// The objects to apply: with `address(host)` in the place of each host, and the Secret `registry-ca` with these
    /// CAs (PEM) in each namespace, as the samples ask for.
    pub fn placed<'a>(&self, address: impl Fn(&str) -> Option<&'a str>, ca_pem: &str) -> Result<Vec<DynamicObject>> {
        let mut placed = Vec::new();
        for object in &self.objects {
            let mut object = object.clone();
            replace_host(&mut object, &address)?;
            if manifests::kind(&object) == "Namespace" {
                placed.push(ca_secret(&object.name_any(), ca_pem)?);
            }
            placed.push(object);
        }
        Ok(placed)
    }
}

/// In the fields that name a repository.
fn replace_host<'a>(object: &mut DynamicObject, address: impl Fn(&str) -> Option<&'a str>) -> Result<()> {
    for field in ["/spec/url", "/spec/image"] {
        let Some(Value::String(place)) = object.data.pointer_mut(field) else {
            continue;
        };
        let host = place.trim_start_matches("oci://").split('/').next().unwrap_or_default();
        let host = host.to_owned();
        let Some(address) = address(&host) else {
            bail!(
                "config/samples names the host {host}: the demo has registries for {TOKEN_HOST} and {CERTIFICATE_HOST}"
            );
        };
        *place = place.replacen(&host, address, 1);
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
        let (pulls, images): (Vec<_>, Vec<_>) = Samples::load()
            .unwrap()
            .askers
            .into_iter()
            .partition(|it| it.wants == Wants::Artifact);
        let owners: Vec<_> = pulls.iter().filter(|it| it.is_owner()).collect();
        for kind in CredentialKind::ALL {
            assert_eq!(owners.iter().filter(|it| it.credential == kind).count(), 1, "{kind}");
        }
        let intruders: Vec<_> = pulls.iter().filter(|it| !it.is_owner()).collect();
        assert_eq!(intruders.len(), 1);
        assert!(owners.iter().any(|it| it.repository == intruders[0].repository));
        assert!(
            owners
                .iter()
                .any(|it| it.subject == "system:serviceaccount:team-a:puller")
        );
        assert_eq!(images.len(), 1);
        assert!(images[0].is_owner());
        assert_eq!(images[0].subject, "spiffe://example.org/imagerepositories/team-e/web");
        let policy = "web".to_owned();
        assert_eq!(images[0].wants, Wants::Tags { policy });
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
            .filter_map(|it| {
                it.data
                    .pointer("/spec/url")
                    .or(it.data.pointer("/spec/image"))?
                    .as_str()
            })
            .collect();
        assert_eq!(
            urls,
            [
                "oci://127.0.0.1:1/team-a/web",
                "oci://127.0.0.1:1/team-b/api",
                "oci://127.0.0.1:2/team-c/jobs",
                "oci://127.0.0.1:1/team-b/api",
                "127.0.0.1:1/team-e/web",
            ]
        );
        let audiences = placed
            .iter()
            .filter_map(|it| it.data.pointer("/spec/audiences/0")?.as_str());
        assert!(audiences.into_iter().all(|audience| audience == AUDIENCE));
        let secrets = placed.iter().filter(|it| it.name_any() == CA_SECRET);
        assert_eq!(secrets.count(), 5);
    }

    #[test]
    fn a_host_without_registry_is_an_error() {
        let error = Samples::load().unwrap().placed(|_| None, "PEM").unwrap_err();
        assert!(error.to_string().contains("registry.example.org"), "{error}");
    }
}
