//! What `mintmark check` reads of a cluster. Kinds that are not installed count as unused; what may not be read is said.

use std::{collections::BTreeMap, fmt::Debug};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{Secret, ServiceAccount},
    },
};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};
use mintmark_api::oci_repository::{GROUP, KIND, OciRepository, VERSION};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    reconcile::{Account, Referent},
    runtime::api_server::timely,
};

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

/// Namespace and name.
pub(super) type Place = (String, String);

/// A referenced Secret or ServiceAccount.
#[derive(Debug, Clone)]
pub(super) enum Seen<T> {
    /// What of it is of interest.
    Found(T),
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
    /// The accounts that objects name.
    pub(super) accounts: BTreeMap<Place, Seen<Account>>,
    /// Types of the Secrets that objects and their accounts name.
    pub(super) secrets: BTreeMap<Place, Seen<String>>,
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
        inventory.read_referents(client).await?;
        let flux = ListParams::default().labels("app.kubernetes.io/part-of=flux");
        inventory.deployments = timely(Api::all(client.clone()).list(&flux)).await?.items;
        Ok(inventory)
    }

    async fn read_referents(&mut self, client: &Client) -> kube::Result<()> {
        for object in self.objects.iter().flatten() {
            if let Some(place) = account_of(object) {
                see(&mut self.accounts, client, place, |account: &ServiceAccount| {
                    // No account is invalid.
                    Account::parse(account).unwrap_or_default()
                })
                .await?;
            }
        }
        for object in self.objects.iter().flatten() {
            let named = referenced(object).into_iter().map(|(_, place)| place);
            for place in named.chain(self.pull_secrets_of(object)) {
                see(&mut self.secrets, client, place, |secret: &Secret| {
                    secret.type_.clone().unwrap_or_else(|| "Opaque".to_owned())
                })
                .await?;
            }
        }
        Ok(())
    }

    /// The account that logs the object in, if it was found.
    pub(super) fn login_account(&self, object: &OciRepository) -> Option<(Place, &Account)> {
        let place = account_of(object).filter(|_| object.spec.credential.is_none())?;
        match self.accounts.get(&place)? {
            Seen::Found(account) => Some((place, account)),
            Seen::Absent | Seen::Forbidden => None,
        }
    }

    fn pull_secrets_of(&self, object: &OciRepository) -> Vec<Place> {
        let Some(((namespace, _), account)) = self.login_account(object) else {
            return Vec::new();
        };
        let names = account.pull_secrets.iter();
        names.map(|name| (namespace.clone(), name.clone())).collect()
    }
}

/// Looks at one referent, unless that was done.
async fn see<K, T>(
    seen: &mut BTreeMap<Place, Seen<T>>,
    client: &Client,
    place: Place,
    read: impl FnOnce(&K) -> T,
) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    if seen.contains_key(&place) {
        return Ok(());
    }
    let api: Api<K> = Api::namespaced(client.clone(), &place.0);
    let found = match timely(api.get_opt(&place.1)).await {
        Ok(Some(referent)) => Seen::Found(read(&referent)),
        Ok(None) => Seen::Absent,
        Err(kube::Error::Api(status)) if status.code == 403 => Seen::Forbidden,
        Err(error) => return Err(error),
    };
    seen.insert(place, found);
    Ok(())
}

/// The account whose token or login is presented.
pub(super) fn account_of(object: &OciRepository) -> Option<Place> {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let name = object.spec.service_account_name()?.to_owned();
    object.spec.secret_ref.is_none().then_some((namespace, name))
}

/// The Secrets that an object names: the field, and namespace and name.
pub(super) fn referenced(object: &OciRepository) -> Vec<(&'static str, Place)> {
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
