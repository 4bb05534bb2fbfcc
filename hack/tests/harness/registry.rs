use std::time::Duration;

use mintmark_hack::{
    cluster::Cluster,
    pki::{KeyAndCertificate, TestCa},
    registry::{
        Accept, Artifact, ClientAuth, ClientCa, INDEX_MEDIA_TYPE, Issuer, MANIFEST_MEDIA_TYPE, RegistryOptions,
        RegistryServer, TokenEndpoint,
    },
};
use reqwest::{
    Client, RequestBuilder, StatusCode,
    header::{ACCEPT, WWW_AUTHENTICATE},
};
use serde_json::Value;

use super::cluster::create_account;

const TEN_MINUTES: Duration = Duration::from_mins(10);

/// A client that trusts the registry, with or without a certificate.
fn client(registry: &RegistryServer, identity: Option<&KeyAndCertificate>) -> Client {
    let ca = reqwest::Certificate::from_pem_bundle(registry.ca_pem().as_bytes()).unwrap();
    let mut builder = Client::builder().tls_certs_only(ca).no_proxy();
    if let Some(pair) = identity {
        let pem = format!("{}{}", pair.certificate_pem, pair.key_pem);
        builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
    }
    builder.build().unwrap()
}

fn get_manifest(client: &Client, registry: &RegistryServer, repository: &str) -> RequestBuilder {
    let url = format!("{}/v2/{repository}/manifests/latest", registry.origin());
    client
        .get(url)
        .header(ACCEPT, MANIFEST_MEDIA_TYPE)
        .header(ACCEPT, INDEX_MEDIA_TYPE)
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

/// A registry with the repositories `apps/a` and `apps/b`, the latter readable by nobody.
async fn seeded(options: RegistryOptions, reader: &str) -> RegistryServer {
    let registry = RegistryServer::start(options).unwrap();
    let artifact = Artifact::from_files(&[("kustomization.yaml", b"resources: []\n")]).unwrap();
    let artifact = artifact.annotate("org.opencontainers.image.revision", "main@sha1:0");
    registry.push("apps/a", "latest", &artifact).await.unwrap();
    registry.push("apps/b", "latest", &artifact).await.unwrap();
    registry.set_readers("apps/a", &[reader]).unwrap();
    registry
}

/// A registry that trusts the API server's ServiceAccount tokens, and two such tokens: the reader's and another's.
async fn trusting_accounts(namespace: &str, options: RegistryOptions) -> (RegistryServer, String, String) {
    let cluster = Cluster::shared().await.unwrap();
    create_account(cluster, namespace, "puller").await;
    let issuers = vec![Issuer::new(cluster.url(), &["registry"]).with_ca(cluster.ca_pem())];
    let reader = format!("system:serviceaccount:{namespace}:puller");
    let registry = seeded(RegistryOptions { issuers, ..options }, &reader).await;
    let token = |audience| cluster.service_account_token(namespace, "puller", audience, TEN_MINUTES);
    (
        registry,
        token(&["registry"]).await.unwrap(),
        token(&["elsewhere"]).await.unwrap(),
    )
}

#[tokio::test]
async fn a_service_account_reads_its_own_repository_only() {
    let (registry, token, elsewhere) = trusting_accounts("bearer", RegistryOptions::default()).await;
    let http = client(&registry, None);

    let refused = get_manifest(&http, &registry, "apps/a").send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers()[WWW_AUTHENTICATE], "Bearer realm=\"registry\"");
    let body: Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(body["errors"][0]["code"], "UNAUTHORIZED");

    let found = get_manifest(&http, &registry, "apps/a")
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    assert_eq!(found.status(), StatusCode::OK);
    let manifest: Value = serde_json::from_str(&found.text().await.unwrap()).unwrap();
    assert_eq!(
        manifest["annotations"]["org.opencontainers.image.revision"],
        "main@sha1:0"
    );

    let denied = get_manifest(&http, &registry, "apps/b")
        .bearer_auth(&token)
        .send()
        .await
        .unwrap();
    assert_eq!(denied.status(), StatusCode::FORBIDDEN);
    let body: Value = serde_json::from_str(&denied.text().await.unwrap()).unwrap();
    assert_eq!(body["errors"][0]["code"], "DENIED");

    let wrong_audience = get_manifest(&http, &registry, "apps/a").bearer_auth(&elsewhere);
    assert_eq!(status(wrong_audience).await, StatusCode::UNAUTHORIZED);
    let garbled = get_manifest(&http, &registry, "apps/a").bearer_auth(format!("{token}x"));
    assert_eq!(status(garbled).await, StatusCode::UNAUTHORIZED);
    let write = http
        .delete(format!("{}/v2/apps/a/manifests/latest", registry.origin()))
        .bearer_auth(&token);
    assert_eq!(status(write).await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_access_log_names_subjects_and_holds_no_token() {
    let (registry, token, elsewhere) = trusting_accounts("log", RegistryOptions::default()).await;
    let http = client(&registry, None);
    status(get_manifest(&http, &registry, "apps/a").bearer_auth(&token)).await;
    status(get_manifest(&http, &registry, "apps/b").bearer_auth(&token)).await;
    status(get_manifest(&http, &registry, "apps/a").bearer_auth(&elsewhere)).await;

    let log = registry.access_log().unwrap();
    let [.., good, denied, refused] = log.as_slice() else {
        panic!("{log:?}")
    };
    assert_eq!(
        (good.status, good.kind.as_str(), good.path.as_str()),
        (200, "bearer", "/v2/apps/a/manifests/latest")
    );
    assert_eq!(good.subject, "system:serviceaccount:log:puller");
    assert_eq!(
        (denied.status, denied.subject.as_str()),
        (403, "system:serviceaccount:log:puller")
    );
    assert_eq!((refused.status, refused.subject.as_str()), (401, ""));
    assert!(refused.reason.contains("elsewhere"), "{refused:?}");
    let text = format!("{log:?}");
    for part in token.split('.').chain(elsewhere.split('.')) {
        assert!(!text.contains(part));
    }
    assert!(!text.contains(registry.admin_password()));
}

#[tokio::test]
async fn a_realm_exchanges_a_token_for_the_scope_it_grants() {
    let token = TokenEndpoint {
        own_origin: true,
        ttl_seconds: 30,
        ..TokenEndpoint::default()
    };
    let options = RegistryOptions {
        accept: vec![Accept::Token],
        token,
        ..RegistryOptions::default()
    };
    let (registry, jwt, _) = trusting_accounts("realm", options).await;
    let http = client(&registry, None);

    let raw = get_manifest(&http, &registry, "apps/a")
        .bearer_auth(&jwt)
        .send()
        .await
        .unwrap();
    assert_eq!(raw.status(), StatusCode::UNAUTHORIZED);
    let (realm, service) = (format!("{}/token", registry.token_origin()), registry.address());
    let challenge = format!("Bearer realm=\"{realm}\",service=\"{service}\",scope=\"repository:apps/a:pull\"");
    assert_eq!(raw.headers()[WWW_AUTHENTICATE], challenge);

    let ask = |scope: &str| {
        http.get(format!("{realm}?service={service}&scope={scope}"))
            .basic_auth("any", Some(&jwt))
    };
    let answer = ask("repository:apps/a:pull&scope=repository:apps/b:pull")
        .send()
        .await
        .unwrap();
    let answer: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(answer["expires_in"], 30);
    let exchanged = answer["token"].as_str().unwrap();
    assert_eq!(
        status(get_manifest(&http, &registry, "apps/a").bearer_auth(exchanged)).await,
        StatusCode::OK
    );
    assert_eq!(
        status(get_manifest(&http, &registry, "apps/b").bearer_auth(exchanged)).await,
        StatusCode::FORBIDDEN
    );
    let wrong = http
        .get(format!("{realm}?service={service}"))
        .basic_auth("any", Some("a.b.c"));
    assert_eq!(status(wrong).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn basic_takes_a_jwt_where_it_is_told_to() {
    let options = RegistryOptions {
        accept: vec![Accept::Basic],
        ..RegistryOptions::default()
    };
    let (registry, jwt, _) = trusting_accounts("basic", options).await;
    let http = client(&registry, None);
    let raw = get_manifest(&http, &registry, "apps/a")
        .bearer_auth(&jwt)
        .send()
        .await
        .unwrap();
    assert_eq!(raw.headers()[WWW_AUTHENTICATE], "Basic realm=\"registry\"");
    assert_eq!(
        status(get_manifest(&http, &registry, "apps/a").basic_auth("jwt", Some(&jwt))).await,
        StatusCode::OK
    );
}

fn mtls(ca: &TestCa, auth: ClientAuth, reload: bool) -> RegistryOptions {
    let client_ca = Some(ClientCa {
        pem: ca.pem().to_owned(),
        auth,
        reload,
    });
    RegistryOptions {
        tls: true,
        client_ca,
        ..RegistryOptions::default()
    }
}

#[tokio::test]
async fn a_certificate_is_an_identity() {
    let (ca, other_ca) = (TestCa::new("clients").unwrap(), TestCa::new("others").unwrap());
    let subject = "spiffe://td.example/ocirepositories/a/a";
    let registry = seeded(mtls(&ca, ClientAuth::Optional, true), subject).await;

    let good = client(&registry, Some(&ca.uri_client(subject).unwrap()));
    assert_eq!(status(get_manifest(&good, &registry, "apps/a")).await, StatusCode::OK);
    let another = client(
        &registry,
        Some(&ca.uri_client("spiffe://td.example/ocirepositories/b/b").unwrap()),
    );
    assert_eq!(
        status(get_manifest(&another, &registry, "apps/a")).await,
        StatusCode::FORBIDDEN
    );
    let none = client(&registry, None);
    assert_eq!(
        status(get_manifest(&none, &registry, "apps/a")).await,
        StatusCode::UNAUTHORIZED
    );
    let log = registry.access_log().unwrap();
    let seen = log
        .iter()
        .find(|entry| entry.kind == "mtls" && entry.status == 200)
        .unwrap();
    assert_eq!(
        (seen.subject.as_str(), seen.certificate.as_str(), seen.resumed),
        (subject, subject, false)
    );

    let foreign = client(&registry, Some(&other_ca.uri_client(subject).unwrap()));
    get_manifest(&foreign, &registry, "apps/a").send().await.unwrap_err();
    registry.set_client_ca(other_ca.pem()).unwrap();
    assert_eq!(
        status(get_manifest(&foreign, &registry, "apps/a")).await,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_required_certificate_is_required() {
    let ca = TestCa::new("clients").unwrap();
    let registry = RegistryServer::start(mtls(&ca, ClientAuth::Require, false)).unwrap();
    let base = format!("{}/v2/", registry.origin());
    client(&registry, None).get(&base).send().await.unwrap_err();
    let anybody = client(&registry, Some(&ca.uri_client("spiffe://td.example/x").unwrap()));
    assert_eq!(status(anybody.get(&base)).await, StatusCode::OK);
}

#[tokio::test]
async fn a_restart_keeps_address_data_and_readers() {
    let registry = seeded(RegistryOptions::default(), "nobody").await;
    registry.allow_anonymous("apps/a").unwrap();
    let pushed = registry
        .push("apps/a", "v1", &Artifact::from_files(&[("f", b"1")]).unwrap())
        .await
        .unwrap();
    registry
        .push_index("apps/a", "latest", &[("linux/amd64", &pushed)])
        .await
        .unwrap();
    registry.stop().unwrap();
    registry.resume().unwrap();

    let http = client(&registry, None);
    let answer = get_manifest(&http, &registry, "apps/a").send().await.unwrap();
    let index: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], pushed.digest.as_str());
    let log = registry.access_log().unwrap();
    assert!(log.iter().any(|entry| entry.kind == "anonymous" && entry.status == 200));
}

#[test]
fn a_broken_configuration_is_explained() {
    let issuer = Issuer::new("https://issuer.example", &[]);
    let options = RegistryOptions {
        issuers: vec![issuer],
        ..RegistryOptions::default()
    };
    let error = RegistryServer::start(options).unwrap_err().to_string();
    assert!(error.contains("issuer https://issuer.example: no audiences"), "{error}");
}
