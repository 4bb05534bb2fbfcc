//! What `mintmark check` reads of a cluster. Kinds that are not installed count as unused; what may not be read is said.

use std::collections::BTreeMap;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};
use mintmark_api::oci_repository::{GROUP, KIND, OciRepository, VERSION};
use serde_json::Value;

use crate::runtime::api_server::timely;

/// Objects asked for at a time.
const PAGE: u32 = 500;

/// Flux's source kinds that this controller does not serve.
const OTHER_SOURCES: [(&str, &str); 5] = [
    ("GitRepository", "gitrepositories"),
    ("Bucket", "buckets"),
    ("HelmRepository", "helmrepositories"),
    ("HelmChart", "helmcharts"),
    ("ExternalArtifact", "externalartifacts"),
];

/// A referenced Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SecretSeen {
    /// Its type.
    Type(String),
    /// There is none.
    Absent,
    /// We may not look.
    Forbidden,
}

/// Everything that findings are made from.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    /// The definition of OCIRepository.
    pub(super) crd: Option<Value>,
    /// Other source kinds, and how many objects of them there are.
    pub(super) sources: Vec<(&'static str, usize)>,
    /// Every OCIRepository; `Err` holds the name of one that cannot be read.
    pub(super) objects: Vec<Result<OciRepository, String>>,
    /// By namespace and name.
    pub(super) secrets: BTreeMap<(String, String), SecretSeen>,
    /// Flux's controllers.
    pub(super) deployments: Vec<Deployment>,
}

impl Inventory {
    /// Reads all of it.
    pub(super) async fn read(client: &Client) -> kube::Result<Self> {
        let mut inventory = Self {
            crd: crd(client).await?,
            ..Self::default()
        };
        for (kind, plural) in OTHER_SOURCES {
            let count = list(client, kind, plural).await?.len();
            inventory.sources.push((kind, count));
        }
        for object in list(client, KIND, "ocirepositories").await? {
            let meta = &object.metadata;
            let name = format!(
                "{}/{}",
                meta.namespace.as_deref().unwrap_or_default(),
                meta.name.as_deref().unwrap_or_default()
            );
            let object = serde_json::to_value(&object).and_then(serde_json::from_value);
            inventory
                .objects
                .push(object.map_err(|error| format!("{name}: {error}")));
        }
        inventory.read_secrets(client).await?;
        let flux = ListParams::default().labels("app.kubernetes.io/part-of=flux");
        inventory.deployments = timely(Api::all(client.clone()).list(&flux)).await?.items;
        Ok(inventory)
    }

    async fn read_secrets(&mut self, client: &Client) -> kube::Result<()> {
        let objects = self.objects.iter().flatten();
        let wanted: Vec<_> = objects.flat_map(referenced).map(|(_, key)| key).collect();
        for (namespace, name) in wanted {
            let key = (namespace, name);
            if self.secrets.contains_key(&key) {
                continue;
            }
            let api: Api<Secret> = Api::namespaced(client.clone(), &key.0);
            let seen = match timely(api.get_opt(&key.1)).await {
                Ok(Some(secret)) => SecretSeen::Type(secret.type_.unwrap_or_else(|| "Opaque".to_owned())),
                Ok(None) => SecretSeen::Absent,
                Err(kube::Error::Api(status)) if status.code == 403 => SecretSeen::Forbidden,
                Err(error) => return Err(error),
            };
            self.secrets.insert(key, seen);
        }
        Ok(())
    }
}

/// The Secrets that an object names: the field, and namespace and name.
pub(super) fn referenced(object: &OciRepository) -> Vec<(&'static str, (String, String))> {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let spec = &object.spec;
    [
        ("secretRef", &spec.secret_ref),
        ("certSecretRef", &spec.cert_secret_ref),
        ("proxySecretRef", &spec.proxy_secret_ref),
    ]
    .into_iter()
    .filter_map(|(field, reference)| {
        let name = reference.as_ref()?.name.clone();
        Some((field, (namespace.clone(), name)))
    })
    .collect()
}

async fn crd(client: &Client) -> kube::Result<Option<Value>> {
    let gvk = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    let crd = timely(api.get_opt(mintmark_api::crd::OCI_REPOSITORY_CRD)).await?;
    crd.map(|crd| serde_json::to_value(crd).map_err(kube::Error::SerdeError))
        .transpose()
}

/// Every object of a kind; none where the kind is not installed.
async fn list(client: &Client, kind: &str, plural: &str) -> kube::Result<Vec<DynamicObject>> {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind), plural);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = match timely(api.list(&params)).await {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(found),
            Err(error) => return Err(error),
        };
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(found),
        }
    }
}
