//! What `mintmark check` reads of a cluster. Kinds that are not installed count as unused; what may not be read is said.

use std::{collections::BTreeMap, fmt::Debug};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Secret, ServiceAccount},
};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, ListParams},
    core::GroupVersionKind,
};
use mintmark_api::{
    crd::{IMAGE_POLICY_CRD, IMAGE_REPOSITORY_CRD, OCI_REPOSITORY_CRD},
    image_policy::ImagePolicy,
    image_repository::ImageRepository,
    oci_repository::{GROUP, OciRepository, VERSION},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::asking::Asking;
use crate::{
    reconcile::{Account, Referent},
    runtime::api_server::timely,
    watch::{CrdState, definition_state},
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
    /// The definition of ImageRepository.
    pub(super) image_crd: Option<Value>,
    /// The definition of ImagePolicy.
    pub(super) policy_crd: Option<Value>,
    /// Other source kinds, and how many objects of them there are.
    pub(super) sources: Vec<(&'static str, usize)>,
    /// Every OCIRepository, and every ImageRepository if its definition has our fields: without them, it is another
    /// controller's. `Err` tells of one that cannot be read.
    pub(super) objects: Vec<Result<Asking, String>>,
    /// Every ImagePolicy, if ImageRepositories are looked at.
    pub(super) policies: Vec<Result<ImagePolicy, String>>,
    /// Labels of the namespaces whose policies refer to another one.
    pub(super) namespaces: BTreeMap<String, Seen<BTreeMap<String, String>>>,
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
            crd: crd(client, OCI_REPOSITORY_CRD).await?,
            image_crd: crd(client, IMAGE_REPOSITORY_CRD).await?,
            policy_crd: crd(client, IMAGE_POLICY_CRD).await?,
            ..Self::default()
        };
        for (kind, plural) in OTHER_SOURCES {
            let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind), plural);
            let count = list(client, &resource).await?.len();
            inventory.sources.push((kind, count));
        }
        let artifacts = objects::<OciRepository>(client).await?.into_iter();
        inventory
            .objects
            .extend(artifacts.map(|object| object.map(|it| Asking::Artifact(Box::new(it)))));
        if inventory.serves_images() {
            let images = objects::<ImageRepository>(client).await?.into_iter();
            inventory
                .objects
                .extend(images.map(|object| object.map(|it| Asking::Image(Box::new(it)))));
            inventory.policies = objects(client).await?;
        }
        inventory.read_referents(client).await?;
        inventory.read_namespaces(client).await?;
        let flux = ListParams::default().labels("app.kubernetes.io/part-of=flux");
        inventory.deployments = timely(Api::all(client.clone()).list(&flux)).await?.items;
        Ok(inventory)
    }

    /// Whether ImageRepositories would be reconciled, were the kind not switched off.
    pub(super) fn serves_images(&self) -> bool {
        let state = self.image_crd.as_ref().map(definition_state::<ImageRepository>);
        state == Some(CrdState::Complete)
    }

    /// The ImageRepository at this place.
    pub(super) fn image(&self, place: &Place) -> Option<&ImageRepository> {
        self.objects.iter().flatten().find_map(|object| match object {
            Asking::Image(image) if object.place() == *place => Some(&**image),
            _ => None,
        })
    }

    async fn read_namespaces(&mut self, client: &Client) -> kube::Result<()> {
        for policy in self.policies.iter().flatten() {
            let namespace = policy.metadata.namespace.clone().unwrap_or_default();
            let other = policy.spec.image_repository_ref.namespace();
            if other.is_none_or(|other| other == namespace) {
                continue;
            }
            let api: Api<Namespace> = Api::all(client.clone());
            see(&mut self.namespaces, api, &namespace.clone(), namespace, |found| {
                found.metadata.labels.clone().unwrap_or_default()
            })
            .await?;
        }
        Ok(())
    }

    async fn read_referents(&mut self, client: &Client) -> kube::Result<()> {
        for object in self.objects.iter().flatten() {
            if let Some(place) = object.account() {
                let api: Api<ServiceAccount> = Api::namespaced(client.clone(), &place.0);
                see(&mut self.accounts, api, &place.1.clone(), place, |account| {
                    // No account is invalid.
                    Account::parse(account).unwrap_or_default()
                })
                .await?;
            }
        }
        for object in self.objects.iter().flatten() {
            let named = object.secrets().into_iter().map(|(_, place)| place);
            for place in named.chain(self.pull_secrets_of(object)) {
                let api: Api<Secret> = Api::namespaced(client.clone(), &place.0);
                see(&mut self.secrets, api, &place.1.clone(), place, |secret| {
                    secret.type_.clone().unwrap_or_else(|| "Opaque".to_owned())
                })
                .await?;
            }
        }
        Ok(())
    }

    /// The account that logs the object in, if it was found.
    pub(super) fn login_account(&self, object: &Asking) -> Option<(Place, &Account)> {
        let place = object.account().filter(|_| object.access().credential.is_none())?;
        match self.accounts.get(&place)? {
            Seen::Found(account) => Some((place, account)),
            Seen::Absent | Seen::Forbidden => None,
        }
    }

    fn pull_secrets_of(&self, object: &Asking) -> Vec<Place> {
        let Some(((namespace, _), account)) = self.login_account(object) else {
            return Vec::new();
        };
        let names = account.pull_secrets.iter();
        names.map(|name| (namespace.clone(), name.clone())).collect()
    }
}

/// Looks at what is called `name`, unless that was done; `place` is where it is written down.
async fn see<P: Ord, K, T>(
    seen: &mut BTreeMap<P, Seen<T>>,
    api: Api<K>,
    name: &str,
    place: P,
    read: impl FnOnce(&K) -> T,
) -> kube::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    if seen.contains_key(&place) {
        return Ok(());
    }
    let found = match timely(api.get_opt(name)).await {
        Ok(Some(referent)) => Seen::Found(read(&referent)),
        Ok(None) => Seen::Absent,
        Err(kube::Error::Api(status)) if status.code == 403 => Seen::Forbidden,
        Err(error) => return Err(error),
    };
    seen.insert(place, found);
    Ok(())
}

async fn crd(client: &Client, name: &str) -> kube::Result<Option<Value>> {
    let gvk = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
    let crd = timely(api.get_opt(name)).await?;
    crd.map(|crd| serde_json::to_value(crd).map_err(kube::Error::SerdeError))
        .transpose()
}

/// Every object of a kind of ours; `Err` tells of one that cannot be read.
async fn objects<K>(client: &Client) -> kube::Result<Vec<Result<K, String>>>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let found = list(client, &ApiResource::erase::<K>(&())).await?;
    let read = |object: DynamicObject| {
        let meta = &object.metadata;
        let name = format!(
            "{}/{}",
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default()
        );
        let object = serde_json::to_value(&object).and_then(serde_json::from_value);
        object.map_err(|error| format!("{name}: {error}"))
    };
    Ok(found.into_iter().map(read).collect())
}

/// Every object of a kind; none where the kind is not installed.
async fn list(client: &Client, resource: &ApiResource) -> kube::Result<Vec<DynamicObject>> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
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
