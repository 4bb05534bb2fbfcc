//! What the API server refuses before the controller sees it: contradictions in an object, each with its own message, and
//! token requests of the controller that `config/token-creator` does not allow. Also what the shipped rights leave out. The
//! manifests are those of `config/`, on the real API server.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test fail the test")]

mod tokens;

use std::{fmt::Debug, path::Path};

use k8s_openapi::{
    api::core::v1::{Namespace, Secret, ServiceAccount},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, Status},
};
use mintmark_api::{
    CredentialRule,
    crd::{IMAGE_POLICY_CRD, IMAGE_REPOSITORY_CRD, OCI_REPOSITORY_CRD},
    image_policy::{self, ALWAYS_WITHOUT_INTERVAL, INTERVAL_WITHOUT_ALWAYS, ImagePolicy},
    image_repository::{self, ImageRepository, MAX_EXCLUSIONS},
    oci_repository::{self, OciRepository},
};
use mintmark_hack::{cluster::Cluster, manifests};
use mintmark_tests::admission::{self, with};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn config(folder: &str) -> Vec<DynamicObject> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    manifests::load(&root.join(folder)).unwrap()
}

async fn create_namespace(client: &Client, name: &str) {
    let body = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &body)
        .await
        .unwrap();
}

/// Asks for an object of a kind that has a registry, with these fields in its spec.
async fn admit(client: &Client, kind: &str, fields: &Value) -> Result<Value, Box<Status>> {
    let none = json!({});
    match kind {
        oci_repository::KIND => {
            let base = json!({"url": "oci://registry.example.org/team/web", "interval": "5m"});
            admission::admit::<OciRepository>(client, &none, &with(&base, fields)).await
        }
        image_repository::KIND => {
            let base = json!({"image": "registry.example.org/team/web", "interval": "5m"});
            admission::admit::<ImageRepository>(client, &none, &with(&base, fields)).await
        }
        _ => {
            let base = json!({"imageRepositoryRef": {"name": "web"}, "policy": {"semver": {"range": "1.x"}}});
            admission::admit::<ImagePolicy>(client, &none, &with(&base, fields)).await
        }
    }
}

/// A client of a cluster with our definitions.
async fn defined() -> Client {
    let client = Cluster::shared().await.unwrap().client().await.unwrap();
    manifests::apply(&client, config("crd")).await.unwrap();
    client
}

const WITH_REGISTRY: [&str; 2] = [oci_repository::KIND, image_repository::KIND];

/// Combinations that are refused, and the rule that says so.
fn contradictions() -> Vec<(CredentialRule, Value)> {
    let certificate = "SpiffeCertificate";
    vec![
        (CredentialRule::AudiencesRequired, json!({"credential": "SpiffeJWT"})),
        (
            CredentialRule::AudiencesRequired,
            json!({"credential": "ServiceAccountToken", "serviceAccountName": "a"}),
        ),
        (
            CredentialRule::AudiencesRequired,
            json!({"credential": "SpiffeJWT", "audiences": []}),
        ),
        (CredentialRule::AudiencesWithoutCredential, json!({"audiences": ["a"]})),
        (
            CredentialRule::AudiencesWithCertificate,
            json!({"credential": certificate, "audiences": ["a"]}),
        ),
        (
            CredentialRule::ProviderNotGeneric,
            json!({"credential": certificate, "provider": "aws"}),
        ),
        (
            CredentialRule::SecretRef,
            json!({"credential": certificate, "secretRef": {"name": "s"}}),
        ),
        (
            CredentialRule::ServiceAccountName,
            json!({"credential": certificate, "serviceAccountName": "a"}),
        ),
        (
            CredentialRule::ServiceAccountName,
            json!({"credential": "SpiffeJWT", "audiences": ["a"], "serviceAccountName": "a"}),
        ),
        (
            CredentialRule::Insecure,
            json!({"credential": certificate, "insecure": true}),
        ),
    ]
}

#[tokio::test]
async fn contradictions_are_refused_each_with_its_own_message() {
    let client = defined().await;
    let vectors = contradictions();
    for kind in WITH_REGISTRY {
        for (rule, fields) in &vectors {
            let status = admit(&client, kind, fields).await.unwrap_err();
            assert_eq!(status.code, 422, "{kind} {fields}");
            let told = CredentialRule::CEL
                .iter()
                .filter(|rule| status.message.contains(rule.message()));
            assert_eq!(told.collect::<Vec<_>>(), [rule], "{kind} {fields}: {}", status.message);
        }
    }
    for rule in CredentialRule::CEL {
        assert!(
            vectors.iter().any(|(covered, _)| *covered == rule),
            "{rule:?} has no vector"
        );
    }
}

#[tokio::test]
async fn a_policys_interval_goes_with_always_and_with_nothing_else() {
    let client = defined().await;
    let vectors = [
        (INTERVAL_WITHOUT_ALWAYS, json!({"interval": "5m"})),
        (
            INTERVAL_WITHOUT_ALWAYS,
            json!({"interval": "5m", "digestReflectionPolicy": "IfNotPresent"}),
        ),
        (ALWAYS_WITHOUT_INTERVAL, json!({"digestReflectionPolicy": "Always"})),
    ];
    for (rule, fields) in vectors {
        let status = admit(&client, image_policy::KIND, &fields).await.unwrap_err();
        assert_eq!(status.code, 422, "{fields}");
        let rules = [INTERVAL_WITHOUT_ALWAYS, ALWAYS_WITHOUT_INTERVAL];
        let told = rules.iter().filter(|rule| status.message.contains(rule.message));
        assert_eq!(told.collect::<Vec<_>>(), [&rule], "{fields}: {}", status.message);
    }
}

/// The field that a malformed value is refused for.
async fn assert_malformed(client: &Client, kind: &str, field: &str, fields: Value) {
    let status = admit(client, kind, &fields).await.unwrap_err();
    assert!(status.message.contains(field), "{kind} {fields}: {}", status.message);
}

#[tokio::test]
async fn malformed_values_are_refused() {
    let client = defined().await;
    let many: Vec<_> = (0..17).map(|number| number.to_string()).collect();
    let jwt = |audiences: Value| json!({"credential": "SpiffeJWT", "audiences": audiences});
    for kind in WITH_REGISTRY {
        let vectors = [
            ("spec.credential", json!({"credential": "ClientSecret"})),
            ("spec.audiences[1]", jwt(json!(["a", "a"]))),
            ("spec.audiences[0]", jwt(json!([""]))),
            ("spec.audiences[0]", jwt(json!(["a".repeat(256)]))),
            ("spec.audiences", jwt(json!(many))),
            ("spec.interval", json!({"interval": "1d"})),
            ("spec.timeout", json!({"timeout": "1h"})),
        ];
        for (field, fields) in vectors {
            assert_malformed(&client, kind, field, fields).await;
        }
    }
    let patterns = vec!["a"; MAX_EXCLUSIONS + 1];
    let vectors = [
        (
            oci_repository::KIND,
            "spec.url",
            json!({"url": "https://registry.example.org/team/web"}),
        ),
        (
            oci_repository::KIND,
            "spec.layerSelector.operation",
            json!({"layerSelector": {"operation": "link"}}),
        ),
        (image_repository::KIND, "spec.image", json!({"image": null})),
        (
            image_repository::KIND,
            "spec.exclusionList",
            json!({"exclusionList": patterns}),
        ),
        (
            image_repository::KIND,
            "spec.serviceAccountName",
            json!({"serviceAccountName": "a".repeat(254)}),
        ),
        (
            image_repository::KIND,
            "spec.accessFrom.namespaceSelectors",
            json!({"accessFrom": {}}),
        ),
        (image_policy::KIND, "spec.policy", json!({"policy": null})),
        (
            image_policy::KIND,
            "spec.policy.semver.range",
            json!({"policy": {"semver": {}}}),
        ),
        (
            image_policy::KIND,
            "spec.policy.numerical.order",
            json!({"policy": {"numerical": {"order": "ASC"}}}),
        ),
        (
            image_policy::KIND,
            "spec.imageRepositoryRef",
            json!({"imageRepositoryRef": null}),
        ),
        (
            image_policy::KIND,
            "spec.digestReflectionPolicy",
            json!({"digestReflectionPolicy": "Sometimes"}),
        ),
    ];
    for (kind, field, fields) in vectors {
        assert_malformed(&client, kind, field, fields).await;
    }
}

#[tokio::test]
async fn what_is_allowed_is_admitted_with_defaults() {
    let client = defined().await;
    let vectors = [
        json!({}),
        json!({"credential": "ServiceAccountToken", "audiences": ["a", "b"], "serviceAccountName": "a"}),
        json!({"credential": "ServiceAccountToken", "audiences": ["a"], "insecure": true}),
        json!({"credential": "SpiffeJWT", "audiences": ["a".repeat(255)], "certSecretRef": {"name": "ca"}}),
        json!({"credential": "SpiffeCertificate", "insecure": false, "provider": "generic"}),
        json!({"secretRef": {"name": "s"}, "serviceAccountName": "a", "provider": "aws", "insecure": true}),
    ];
    for (kind, fields) in WITH_REGISTRY
        .iter()
        .flat_map(|kind| vectors.iter().map(move |fields| (kind, fields)))
    {
        let object = admit(&client, kind, fields)
            .await
            .unwrap_or_else(|status| panic!("{kind} {fields}: {}", status.message));
        assert_eq!(object["status"]["observedGeneration"], -1);
        if fields.get("provider").is_none() {
            assert_eq!(object["spec"]["provider"], "generic");
        }
        let (field, value) = match *kind {
            oci_repository::KIND => ("timeout", json!("60s")),
            _ => ("exclusionList", json!(["^.*\\.sig$"])),
        };
        assert_eq!(object["spec"][field], value, "{kind}");
    }
    let fields = json!({"policy": {"alphabetical": {}}});
    let policy = admit(&client, image_policy::KIND, &fields).await.unwrap();
    assert_eq!(policy["spec"]["policy"]["alphabetical"]["order"], "asc");
    assert_eq!(policy["spec"]["digestReflectionPolicy"], "Never");
    let fields = json!({"digestReflectionPolicy": "Always", "interval": "10m"});
    admit(&client, image_policy::KIND, &fields).await.unwrap();
}

fn code<T>(outcome: Result<T, kube::Error>) -> u16 {
    match outcome {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn referents_are_read_by_name_and_nothing_is_listed_that_need_not_be() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = "admission-rights";
    let client = tokens::install(cluster, namespace, [config("crd"), config("rbac")].concat()).await;
    let tenant = "admission-tenant";
    create_namespace(&cluster.client().await.unwrap(), tenant).await;

    let secrets: Api<Secret> = Api::namespaced(client.clone(), tenant);
    assert_eq!(code(secrets.get("any").await), 404);
    assert_eq!(code(secrets.list(&ListParams::default()).await), 403);
    assert_eq!(
        code(secrets.create(&PostParams::default(), &Secret::default()).await),
        403
    );
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), tenant);
    assert_eq!(code(accounts.get("any").await), 404);
    assert_eq!(code(accounts.list(&ListParams::default()).await), 403);

    let own: Api<Secret> = Api::namespaced(client.clone(), namespace);
    assert_eq!(
        code(
            own.list(&ListParams::default().fields("metadata.name=mintmark-signing"))
                .await
        ),
        200
    );
    assert_eq!(code(own.list(&ListParams::default()).await), 403);

    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in [OCI_REPOSITORY_CRD, IMAGE_REPOSITORY_CRD, IMAGE_POLICY_CRD] {
        let by_name = ListParams::default().fields(&format!("metadata.name={name}"));
        assert_eq!(code(definitions.list(&by_name).await), 200);
    }
    assert_eq!(code(definitions.list(&ListParams::default()).await), 403);

    assert_rights::<OciRepository>(&client).await;
    assert_rights::<ImageRepository>(&client).await;
    assert_rights::<ImagePolicy>(&client).await;
}

/// All objects of the kind may be listed, and their status may be written; none may be created or deleted.
async fn assert_rights<K>(client: &Client)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let objects: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &ApiResource::erase::<K>(&()));
    assert_eq!(
        code(Api::<K>::all(client.clone()).list(&ListParams::default()).await),
        200
    );
    let patch = Patch::Merge(json!({"status": {"observedGeneration": 1}}));
    let params = PatchParams::default();
    assert_eq!(code(objects.patch("absent", &params, &patch).await), 404);
    assert_eq!(code(objects.patch_status("absent", &params, &patch).await), 404);
    assert_eq!(code(objects.delete("absent", &DeleteParams::default()).await), 403);
}
