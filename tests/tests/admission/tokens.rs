//! Token requests of the controller: RBAC and the policy of `config/token-creator` decide, on the real API server.

use std::time::{Duration, Instant};

use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
    core::Status,
};
use mintmark_hack::{
    cluster::{self, Cluster},
    manifests::{self, Placement},
};
use serde_json::json;

use super::config;

/// Bound of the wait for an admission policy to be in force.
const DEADLINE: Duration = Duration::from_secs(30);

/// A token request for the account `puller`, as `client`.
async fn request(
    client: &Client,
    namespace: &str,
    audiences: &[&str],
    seconds: i64,
) -> Result<TokenRequest, Box<Status>> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    let spec = TokenRequestSpec {
        audiences: audiences.iter().map(ToString::to_string).collect(),
        expiration_seconds: Some(seconds),
        ..TokenRequestSpec::default()
    };
    let body = TokenRequest {
        spec,
        ..TokenRequest::default()
    };
    match accounts
        .create_token_request("puller", &PostParams::default(), &body)
        .await
    {
        Ok(answer) => Ok(answer),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("{error}"),
    }
}

/// Installs objects of `config/` under a namespace of their own, and an account `puller` in it; returns a client of the
/// controller's account.
pub async fn install(cluster: &Cluster, namespace: &str, objects: Vec<DynamicObject>) -> Client {
    let admin = cluster.client().await.unwrap();
    let objects = Placement::new(namespace).place(objects).unwrap();
    manifests::apply(&admin, objects).await.unwrap();
    let body = serde_json::from_value(json!({"metadata": {"name": "puller"}})).unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(admin, namespace);
    accounts.create(&PostParams::default(), &body).await.unwrap();
    let kubeconfig = cluster
        .service_account_kubeconfig(namespace, "mintmark", Duration::from_mins(10))
        .await
        .unwrap();
    cluster::client(&kubeconfig).await.unwrap()
}

/// Asks until the policy refuses: it is in force some time after it was stored, and nothing tells when.
async fn first_refusal(client: &Client, namespace: &str, audiences: &[&str]) -> Box<Status> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match request(client, namespace, audiences, 600).await {
            Err(refusal) => return refusal,
            Ok(_) => assert!(Instant::now() < deadline, "the policy is not in force"),
        }
    }
}

const AUDIENCE_REFUSED: &str =
    "mintmark may only request tokens for named audiences, none of which is the API server's";

#[tokio::test]
async fn token_requests_are_narrowed_to_foreign_audiences_and_an_hour() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = "admission-tokens";
    let objects = [config("rbac"), config("token-creator")].concat();
    let client = install(cluster, namespace, objects).await;

    let refusal = first_refusal(&client, namespace, &["https://kubernetes.default.svc.cluster.local"]).await;
    assert_eq!(refusal.code, 403);
    assert!(refusal.message.contains(AUDIENCE_REFUSED), "{}", refusal.message);
    let both = ["registry", "https://kubernetes.default.svc"];
    let refusal = request(&client, namespace, &both, 600).await.unwrap_err();
    assert!(refusal.message.contains(AUDIENCE_REFUSED), "{}", refusal.message);
    let refusal = request(&client, namespace, &["registry"], 3601).await.unwrap_err();
    let life = "mintmark may not request tokens that live longer than an hour";
    assert!(refusal.message.contains(life), "{}", refusal.message);

    let granted = request(&client, namespace, &["registry"], 3600).await.unwrap();
    assert_eq!(granted.spec.audiences, ["registry"]);
    // Other accounts are none of the policy's business.
    let admin = cluster.client().await.unwrap();
    request(&admin, namespace, &["https://kubernetes.default.svc"], 7200)
        .await
        .unwrap();
}

/// The API server fills absent audiences in before the policy looks: what it fills in must be on the list.
#[tokio::test]
async fn with_the_clusters_own_issuer_on_the_list_no_audience_is_refused() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = "admission-no-audience";
    let mut objects = [config("rbac"), config("token-creator")].concat();
    let policy = objects
        .iter_mut()
        .find(|object| object.data.pointer("/spec/variables/0/name") == Some(&json!("denied")))
        .unwrap();
    policy.data["spec"]["variables"][0]["expression"] = json!(format!("['{}']", cluster.url()));
    let client = install(cluster, namespace, objects).await;

    let refusal = first_refusal(&client, namespace, &[]).await;
    assert!(refusal.message.contains(AUDIENCE_REFUSED), "{}", refusal.message);
}

#[tokio::test]
async fn without_token_creator_no_token_is_granted() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = "admission-no-tokens";
    let client = install(cluster, namespace, config("rbac")).await;
    let refusal = request(&client, namespace, &["registry"], 600).await.unwrap_err();
    assert_eq!(refusal.code, 403);
    assert!(refusal.message.contains("serviceaccounts/token"), "{}", refusal.message);
}
