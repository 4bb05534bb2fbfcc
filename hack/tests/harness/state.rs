//! The Secrets that the key ring lives in, as `config/state` ships them.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use mintmark_hack::{
    cluster::{self, Cluster},
    controller::{self, RING_SECRET, STATE_SECRET, TLS_SECRET},
};

/// The status code of an answer.
fn code<T>(answer: Result<T, kube::Error>) -> u16 {
    match answer {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn applying_the_manifests_again_keeps_what_the_secrets_hold() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = "state-kept";
    let installation = controller::install(cluster, namespace).await.unwrap();
    let client = cluster::client(&installation.kubeconfig).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    for name in [STATE_SECRET, RING_SECRET] {
        let mut secret = secrets.get(name).await.unwrap();
        assert_eq!((secret.type_.as_deref(), &secret.data), (Some("Opaque"), &None));
        secret.data = Some(BTreeMap::from([("kept".to_owned(), ByteString(b"yes".to_vec()))]));
        secrets.replace(name, &PostParams::default(), &secret).await.unwrap();
    }
    controller::install(cluster, namespace).await.unwrap();
    for name in [STATE_SECRET, RING_SECRET] {
        let data = secrets.get(name).await.unwrap().data.unwrap_or_default();
        assert_eq!(
            data.get("kept").map(|value| value.0.as_slice()),
            Some(&b"yes"[..]),
            "{name}"
        );
    }
    // Client-side apply removes only what an earlier manifest named: none may ever name `data`.
    for object in controller::objects(namespace).unwrap() {
        assert!(
            !["data", "stringData"]
                .iter()
                .any(|field| object.data.get(field).is_some())
        );
    }
}

#[tokio::test]
async fn the_issuers_account_follows_two_secrets_and_nothing_else() {
    let cluster = Cluster::shared().await.unwrap();
    let namespace = "issuer-rights";
    let installation = controller::install(cluster, namespace).await.unwrap();
    let client = cluster::client(&installation.issuer_kubeconfig).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let one = |name: &str| ListParams::default().fields(&format!("metadata.name={name}"));
    for name in [STATE_SECRET, TLS_SECRET] {
        assert_eq!(code(secrets.list(&one(name)).await), 200, "{name}");
    }
    for name in [RING_SECRET, controller::SIGNING_SECRET] {
        assert_eq!(code(secrets.get(name).await), 403, "{name}");
        assert_eq!(code(secrets.list(&one(name)).await), 403, "{name}");
    }
    assert_eq!(code(secrets.list(&ListParams::default()).await), 403);
    let mut state = secrets.get(STATE_SECRET).await.unwrap();
    state.data = None;
    let written = secrets.replace(STATE_SECRET, &PostParams::default(), &state).await;
    assert_eq!(code(written), 403);
}
