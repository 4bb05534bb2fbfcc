use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
};
use mintmark_hack::{
    cluster::{self, AuditMark, Cluster, ClusterOptions},
    controller::{self, SIGNING_SECRET},
    manifests::{self, Placement},
    pki::TestCa,
    svid, workspace,
};
use serde_json::json;

const AUTHENTICATION: &str = "apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: 'https://127.0.0.1:1', audiences: [kubernetes]}
  claimMappings: {username: {claim: sub, prefix: ''}}
";

const TEN_MINUTES: Duration = Duration::from_mins(10);

pub(crate) async fn create_account(cluster: &Cluster, namespace: &str, name: &str) {
    let client = cluster.client().await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let body = serde_json::from_value(json!({ "metadata": { "name": namespace } })).unwrap();
    namespaces.create(&PostParams::default(), &body).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
    let body = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    accounts.create(&PostParams::default(), &body).await.unwrap();
}

#[tokio::test]
async fn a_service_account_has_exactly_its_rights_and_is_audited() {
    let cluster = Cluster::shared().await.unwrap();
    create_account(cluster, "rights", "reader").await;
    let kubeconfig = cluster
        .service_account_kubeconfig("rights", "reader", TEN_MINUTES)
        .await
        .unwrap();
    let client = cluster::client(&kubeconfig).await.unwrap();

    let config_maps: Api<ConfigMap> = Api::namespaced(client, "rights");
    let mark = cluster.audit().mark().unwrap();
    let error = config_maps.list(&ListParams::default()).await.unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(status) if status.code == 403),
        "{error}"
    );

    let events = cluster
        .audit()
        .events_of("system:serviceaccount:rights:reader", mark)
        .unwrap();
    let [event] = events.as_slice() else {
        panic!("{events:?}")
    };
    assert_eq!((event.verb.as_str(), event.code()), ("list", 403));
    assert_eq!(event.object_ref.as_ref().unwrap().resource, "configmaps");
    assert!(
        cluster
            .audit()
            .events_of("nobody", AuditMark::default())
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn service_account_tokens_verify_by_discovery() {
    let cluster = Cluster::shared().await.unwrap();
    create_account(cluster, "discovery", "puller").await;
    let token = cluster
        .service_account_token("discovery", "puller", &["registry"], TEN_MINUTES)
        .await
        .unwrap();
    let ca = cluster.folder().join("ca.crt");

    let verdict = svid::verify_oidc(cluster.url(), Some(&ca), &token, "registry")
        .await
        .unwrap();
    assert_eq!(verdict.subject, "system:serviceaccount:discovery:puller");
    assert_eq!(verdict.audiences, ["registry"]);
    let error = svid::verify_oidc(cluster.url(), Some(&ca), &token, "another")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("expected audience"), "{error}");
}

#[tokio::test]
async fn manifests_are_applied_in_an_order_that_works() {
    let cluster = Cluster::shared().await.unwrap();
    let client = cluster.client().await.unwrap();
    // Written in the wrong order: the instance before its CRD, the account before its namespace.
    let objects = json!([
        {
            "apiVersion": "example.com/v1", "kind": "Mark",
            "metadata": { "name": "first", "namespace": "mintmark-system" },
        },
        {
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": { "name": "mintmark", "namespace": "mintmark-system" },
        },
        {
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": "marks.example.com" },
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": { "plural": "marks", "kind": "Mark" },
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": { "type": "object" } },
                }],
            },
        },
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "mintmark-system" } },
    ]);
    let objects = Placement::new("placed")
        .place(serde_json::from_value(objects).unwrap())
        .unwrap();
    manifests::apply(&client, objects.clone()).await.unwrap();
    manifests::apply(&client, objects).await.unwrap();

    let accounts: Api<ServiceAccount> = Api::namespaced(client, "placed");
    accounts.get("mintmark").await.unwrap();
}

#[tokio::test]
async fn two_controllers_of_config_fit_into_one_cluster() {
    let cluster = Cluster::shared().await.unwrap();
    let client = cluster.client().await.unwrap();
    let default = manifests::load(&workspace::root().join("config/default")).unwrap();
    let default = Placement::new("controller-a").place(default).unwrap();
    manifests::apply(&client, default).await.unwrap();
    let ca = TestCa::new("signer").unwrap();
    for namespace in ["controller-a", "controller-b"] {
        let installation = controller::install(cluster, namespace).await.unwrap();
        controller::signing_secret(cluster, namespace, ca.key_and_certificate())
            .await
            .unwrap();
        let client = cluster::client(&installation.kubeconfig).await.unwrap();
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        assert!(secrets.get(SIGNING_SECRET).await.is_ok());
        let namespaces: Api<Namespace> = Api::all(client);
        assert!(namespaces.delete("default", &DeleteParams::default()).await.is_err());
    }
}

#[tokio::test]
async fn an_outage_keeps_address_and_data() {
    // Also the proof that structured authentication is taken.
    let authentication_config = Some(AUTHENTICATION.to_owned());
    let cluster = Cluster::start(ClusterOptions {
        authentication_config,
        ..Default::default()
    })
    .await
    .unwrap();
    create_account(&cluster, "outage", "survivor").await;
    cluster.stop_api_server().unwrap();
    let error = cluster.client().await.unwrap().apiserver_version().await.unwrap_err();
    assert!(!matches!(error, kube::Error::Api(_)), "{error}");

    cluster.start_api_server().await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client().await.unwrap(), "outage");
    accounts.get("survivor").await.unwrap();
}
