//! One controller in the cluster of this test process: its own namespace and rights, its own signing CA, its own tenants. It
//! watches only objects with its own label, so that suites run side by side in one cluster.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::{
    core::v1::{Event, Namespace, Secret, ServiceAccount},
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::watcher,
};
use mintmark_api::oci_repository::OciRepository;
use mintmark_hack::{
    cluster::Cluster,
    controller::{Controller, Installation, Ports, SIGNING_SECRET, install, signing_secret},
    pki::TestCa,
    registry::{ClientAuth, ClientCa, Issuer, RegistryOptions, RegistryServer},
};
use serde_json::{Value, json};

pub use crate::objects::condition;
use crate::{
    fault_registry::sha256,
    objects::{Kind, Objects},
    small_disk::SmallDisk,
};

/// The trust domain of all tests.
pub const TRUST_DOMAIN: &str = "cluster.example";
/// The audience of the registry.
pub const AUDIENCE: &str = "registry.example";
/// How long an expected state may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_mins(1);

const LABEL: &str = "mintmark.dev/test";
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A place for one controller and its tenants.
pub struct Env {
    /// The API server of this process.
    pub cluster: &'static Cluster,
    /// The administrator.
    pub client: Client,
    /// The controller's namespace and kubeconfig.
    pub installation: Installation,
    /// The controller's ports, known before it runs.
    pub ports: Ports,
    /// The CA in the signing Secret.
    pub ca: TestCa,
    id: String,
}

impl Env {
    /// Installs the CRD, the rights and a signing Secret (EC P-256 CA) for one more controller.
    pub async fn new() -> Result<Self> {
        let cluster = Cluster::shared().await?;
        Self::in_cluster(cluster).await
    }

    /// The same in a cluster of its own, for suites that change what all share.
    pub async fn in_cluster(cluster: &'static Cluster) -> Result<Self> {
        let id = format!("t{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let installation = install(cluster, &format!("mm-{id}")).await?;
        let env = Self {
            cluster,
            client: cluster.client().await?,
            installation,
            ports: Ports::free()?,
            ca: TestCa::new("mintmark test CA")?,
            id,
        };
        signing_secret(cluster, &env.installation.namespace, env.ca.key_and_certificate()).await?;
        Ok(env)
    }

    /// Starts the controller with the flags of the samples and `more`, and waits until it is ready.
    pub async fn controller(&self, more: &[&str]) -> Result<Controller> {
        let controller = self.start(more)?;
        controller.wait_ready().await?;
        Ok(controller)
    }

    /// Starts a further replica: same objects, signing Secret and issuer URL, its own ports and storage. Does not wait.
    pub fn replica(&self, ports: Ports, more: &[&str]) -> Result<Controller> {
        self.replica_as(&self.ports.issuer_url(), ports, more)
    }

    /// The same as an issuer of another URL, which leads to the port of one of the replicas.
    pub fn replica_as(&self, issuer: &str, ports: Ports, more: &[&str]) -> Result<Controller> {
        let fixed = self.flags(issuer);
        let flags: Vec<&str> = fixed.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Controller::start(&self.installation, ports, &flags)
    }

    /// The name of the Lease that decides which replica reconciles, with the rights that a shard has to be given on it.
    pub async fn leader_lease(&self) -> Result<String> {
        let digest = sha256(self.selector().as_bytes());
        let name = format!("mintmark-leader-election-{}", &digest["sha256:".len()..][..8]);
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name},
            "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": [name],
                "verbs": ["get", "update"]}]});
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "mintmark", "namespace": self.installation.namespace}]});
        let (namespace, params) = (&self.installation.namespace, PatchParams::apply("test").force());
        let roles: Api<Role> = Api::namespaced(self.client.clone(), namespace);
        roles.patch(&name, &params, &Patch::Apply(role)).await?;
        let bindings: Api<RoleBinding> = Api::namespaced(self.client.clone(), namespace);
        bindings.patch(&name, &params, &Patch::Apply(binding)).await?;
        Ok(name)
    }

    fn selector(&self) -> String {
        format!("{LABEL}={}", self.id)
    }

    fn flags(&self, issuer: &str) -> [String; 4] {
        [
            format!("--watch-label-selector={}", self.selector()),
            format!("--spiffe-trust-domain={TRUST_DOMAIN}"),
            format!("--spiffe-issuer={issuer}"),
            format!("--spiffe-secret-name={SIGNING_SECRET}"),
        ]
    }

    /// Starts the controller without waiting.
    pub fn start(&self, more: &[&str]) -> Result<Controller> {
        self.start_as(&self.ports.issuer_url(), more)
    }

    /// The same as an issuer of another URL, which leads to the controller's port somehow.
    pub fn start_as(&self, issuer: &str, more: &[&str]) -> Result<Controller> {
        self.replica_as(issuer, self.ports, more)
    }

    /// Starts the controller with more environment variables, without waiting.
    pub fn start_with(&self, environment: &[(&'static str, String)], more: &[&str]) -> Result<Controller> {
        let fixed = self.flags(&self.ports.issuer_url());
        let flags: Vec<&str> = fixed.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Controller::start_with(environment, &self.installation, self.ports, &flags)
    }

    /// Starts the controller with its storage on a small disk, without waiting.
    pub fn start_on(&self, disk: &SmallDisk, more: &[&str]) -> Result<Controller> {
        let storage = disk.storage_flag();
        let fixed = self.flags(&self.ports.issuer_url());
        let flags = fixed
            .iter()
            .chain([&storage])
            .map(String::as_str)
            .chain(more.iter().copied());
        let flags: Vec<&str> = flags.collect();
        Controller::start_through(disk.launcher(), &[], &self.installation, self.ports, &flags)
    }

    /// Creates a tenant's namespace.
    pub async fn tenant(&self, name: &str) -> Result<String> {
        let name = format!("{name}-{}", self.id);
        let namespace = Namespace {
            metadata: meta(None, &name),
            ..Namespace::default()
        };
        Api::<Namespace>::all(self.client.clone())
            .create(&PostParams::default(), &namespace)
            .await?;
        Ok(name)
    }

    /// Creates a ServiceAccount.
    pub async fn service_account(&self, namespace: &str, name: &str) -> Result<()> {
        let account = ServiceAccount {
            metadata: meta(Some(namespace), name),
            ..ServiceAccount::default()
        };
        Api::<ServiceAccount>::namespaced(self.client.clone(), namespace)
            .create(&PostParams::default(), &account)
            .await?;
        Ok(())
    }

    /// Creates or replaces a Secret.
    pub async fn secret(&self, namespace: &str, name: &str, data: &[(&str, &str)]) -> Result<()> {
        let data: BTreeMap<_, _> = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        self.secrets(namespace)
            .patch(name, &PatchParams::apply("test").force(), &Patch::Apply(secret))
            .await?;
        Ok(())
    }

    /// Creates a Secret of type `kubernetes.io/dockerconfigjson` with these `auths`.
    pub async fn pull_secret(&self, namespace: &str, name: &str, auths: Value) -> Result<()> {
        let secret = Secret {
            metadata: meta(Some(namespace), name),
            type_: Some("kubernetes.io/dockerconfigjson".to_owned()),
            string_data: Some([(".dockerconfigjson".to_owned(), json!({"auths": auths}).to_string())].into()),
            ..Secret::default()
        };
        self.secrets(namespace).create(&PostParams::default(), &secret).await?;
        Ok(())
    }

    /// The service accounts of a namespace.
    pub fn accounts(&self, namespace: &str) -> Api<ServiceAccount> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// The Secrets of a namespace.
    pub fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A registry over plain HTTP that takes JWTs of this controller and of the cluster's service accounts.
    pub fn jwt_registry(&self) -> Result<RegistryServer> {
        RegistryServer::start(RegistryOptions {
            issuers: self.issuers(),
            ..RegistryOptions::default()
        })
    }

    /// The issuers that registries here trust: ours, and the API server.
    pub fn issuers(&self) -> Vec<Issuer> {
        vec![
            Issuer::new(self.ports.issuer_url(), &[AUDIENCE]),
            Issuer::new(self.cluster.url(), &[AUDIENCE]).with_ca(self.cluster.ca_pem()),
        ]
    }

    /// A registry over TLS that takes certificates of `ca`.
    pub fn mtls_registry(&self, ca: &str) -> Result<RegistryServer> {
        RegistryServer::start(RegistryOptions {
            tls: true,
            client_ca: Some(ClientCa {
                pem: ca.to_owned(),
                auth: ClientAuth::Optional,
                reload: false,
            }),
            ..RegistryOptions::default()
        })
    }

    /// The SPIFFE ID of an OCIRepository.
    pub fn spiffe_id(namespace: &str, name: &str) -> String {
        format!("spiffe://{TRUST_DOMAIN}/ocirepositories/{namespace}/{name}")
    }

    /// The objects of a kind in a namespace.
    pub fn objects<K: Kind>(&self, namespace: &str) -> Objects<'_, K> {
        Objects::new(self, namespace)
    }

    /// The labels of objects that the controller watches.
    pub fn labels(&self) -> BTreeMap<String, String> {
        [(LABEL.to_owned(), self.id.clone())].into()
    }

    /// The OCIRepositories of a namespace.
    pub fn repositories(&self, namespace: &str) -> Api<OciRepository> {
        self.objects(namespace).api()
    }

    /// Creates an OCIRepository, see [`Objects::create`].
    pub async fn create(&self, namespace: &str, name: &str, spec: Value) -> Result<OciRepository> {
        self.objects(namespace).create(name, spec).await
    }

    /// Merges into an OCIRepository.
    pub async fn patch(&self, namespace: &str, name: &str, patch: Value) -> Result<OciRepository> {
        self.objects(namespace).patch(name, patch).await
    }

    /// Asks for a pass over an OCIRepository and waits until it was made.
    pub async fn reconcile(&self, namespace: &str, name: &str) -> Result<OciRepository> {
        self.objects(namespace).reconcile(name).await
    }

    /// Waits until an OCIRepository is as wanted, see [`Objects::wait`].
    pub async fn wait(
        &self,
        namespace: &str,
        name: &str,
        what: &str,
        wanted: impl Fn(&OciRepository) -> bool,
    ) -> Result<OciRepository> {
        self.objects(namespace).wait(name, what, wanted).await
    }

    /// Waits until an OCIRepository is Ready, see [`Objects::ready`].
    pub async fn ready(&self, namespace: &str, name: &str) -> Result<OciRepository> {
        self.objects(namespace).ready(name).await
    }

    /// Waits until an OCIRepository has failed, see [`Objects::failed`].
    pub async fn failed(&self, namespace: &str, name: &str, reason: &str, text: &str) -> Result<OciRepository> {
        self.objects(namespace).failed(name, reason, text).await
    }

    /// All Events of a namespace.
    pub async fn events(&self, namespace: &str) -> Result<Vec<Event>> {
        Ok(Api::<Event>::namespaced(self.client.clone(), namespace)
            .list(&ListParams::default())
            .await?
            .items)
    }

    /// Waits until there is an Event with this reason about `name`.
    pub async fn event(&self, namespace: &str, name: &str, reason: &str) -> Result<Event> {
        self.repeated_event(namespace, name, reason, 1).await
    }

    /// Waits until there is an Event with this reason about `name` that stands for `count` occurrences or more.
    pub async fn repeated_event(&self, namespace: &str, name: &str, reason: &str, count: i32) -> Result<Event> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let found = async {
            let config = watcher::Config::default().fields(&format!("involvedObject.name={name},reason={reason}"));
            let mut events = std::pin::pin!(watcher(api, config));
            while let Some(event) = events.next().await {
                if let Ok(watcher::Event::InitApply(event) | watcher::Event::Apply(event)) = event
                    && event.count.unwrap_or(1) >= count
                {
                    return Some(event);
                }
            }
            None
        };
        tokio::time::timeout(DEADLINE, found)
            .await
            .ok()
            .flatten()
            .with_context(|| format!("no Event {reason} for {name}, {count} times"))
    }
}

fn meta(namespace: Option<&str>, name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: namespace.map(str::to_owned),
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}
