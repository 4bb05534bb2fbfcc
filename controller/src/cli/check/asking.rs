//! An object that asks a registry, of either kind, as this command looks at it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mintmark_api::{image_repository::ImageRepository, oci_repository::OciRepository, registry_access::RegistryAccess};

use super::inventory::Place;
use crate::{
    reconcile::{
        Settings, StepError, image_repository::ValidatedImageRepository, oci_repository::ValidatedOciRepository,
    },
    registry::RepositoryUrl,
    tags::ImageName,
};

/// One of them.
#[derive(Debug, Clone)]
pub(super) enum Asking {
    /// Pulls an artifact.
    Artifact(Box<OciRepository>),
    /// Lists the tags of an image.
    Image(Box<ImageRepository>),
}

impl Asking {
    /// What findings about it are about.
    pub(super) fn about(&self) -> &'static str {
        match self {
            Self::Artifact(_) => "object",
            Self::Image(_) => "image",
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        match self {
            Self::Artifact(object) => &object.metadata,
            Self::Image(object) => &object.metadata,
        }
    }

    /// As whom and how it asks.
    pub(super) fn access(&self) -> &RegistryAccess {
        match self {
            Self::Artifact(object) => &object.spec.access,
            Self::Image(object) => &object.spec.access,
        }
    }

    /// Its namespace and name.
    pub(super) fn place(&self) -> Place {
        let metadata = self.metadata();
        (
            metadata.namespace.clone().unwrap_or_default(),
            metadata.name.clone().unwrap_or_default(),
        )
    }

    /// Its name in findings about others.
    pub(super) fn shown(&self) -> String {
        let (namespace, name) = self.place();
        match self {
            Self::Artifact(_) => format!("{namespace}/{name}"),
            Self::Image(_) => format!("image {namespace}/{name}"),
        }
    }

    /// Whether a pass would take its spec.
    pub(super) fn validate(&self, settings: &Settings) -> Result<(), StepError> {
        match self {
            Self::Artifact(object) => ValidatedOciRepository::new(object, settings).map(drop),
            Self::Image(object) => ValidatedImageRepository::new(object, settings).map(drop),
        }
    }

    /// Host and port of its registry; none where the spec names none that can be asked.
    pub(super) fn host_port(&self) -> Option<String> {
        let url = match self {
            Self::Artifact(object) => RepositoryUrl::parse(&object.spec.url, false).ok()?,
            Self::Image(object) => ImageName::parse(&object.spec.image, false).ok()?.url,
        };
        Some(url.origin(self.access().insecure).host_port())
    }

    /// The account whose token or login is presented.
    pub(super) fn account(&self) -> Option<Place> {
        let name = self.access().service_account_name()?.to_owned();
        let (namespace, _) = self.place();
        self.access().secret_ref.is_none().then_some((namespace, name))
    }

    /// The Secrets that it names: the field, and namespace and name.
    pub(super) fn secrets(&self) -> Vec<(&'static str, Place)> {
        let (namespace, _) = self.place();
        let access = self.access();
        [
            ("secretRef", &access.secret_ref),
            ("certSecretRef", &access.cert_secret_ref),
            ("proxySecretRef", &access.proxy_secret_ref),
        ]
        .into_iter()
        .filter_map(|(field, reference)| {
            let name = reference.as_ref()?.name.clone();
            Some((field, (namespace.clone(), name)))
        })
        .collect()
    }
}
