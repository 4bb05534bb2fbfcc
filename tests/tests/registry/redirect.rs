//! Redirects and addresses: where a request may be led, and what it takes along.

use std::{sync::Arc, time::Duration};

use hyper_util::client::proxy::matcher::Matcher;
use mintmark::registry::{AddressDenied, AddressPolicy, CaBundle, Failure, RegistryClient, RegistryConfig};
use mintmark_tests::fault_registry::{
    Artifact, Authority, ClientAuth, Fault, FaultRegistry, Route, Tls, Verdict, sha256,
};
use rstest::rstest;

use crate::support::*;

/// A registry and a blob store of one CA, with the same content; the store asks for client certificates.
async fn with_store(tenants: &Authority) -> (Secure, FaultRegistry, Artifact) {
    let (authority, ca) = server_pair();
    let artifact = Artifact::flux(&[("a.yaml", "a: 1\n")]);
    let start = async |name: &str| {
        let leaf = authority.server(&[name]);
        let client_auth = ClientAuth::optional(tenants);
        let registry = FaultRegistry::start(Some(Tls {
            leaf,
            client_auth,
            tls12_only: false,
        }))
        .await;
        registry.push(REPOSITORY, "v1", &artifact);
        registry
    };
    let (registry, store) = (start("registry.test").await, start("store.test").await);
    (Secure { registry, ca }, store, artifact)
}

fn presigned(store: &FaultRegistry, artifact: &Artifact) -> String {
    let blob = sha256(&artifact.layer());
    format!(
        "{}/v2/{REPOSITORY}/blobs/{blob}?X-Signature=secret",
        store.origin_as("store.test")
    )
}

#[rstest]
#[case::token(false)]
#[case::certificate(true)]
#[tokio::test]
async fn off_the_origin_no_credential_goes_along(#[case] with_certificate: bool) {
    let tenants = Authority::new("Tenant CA");
    let (secure, store, artifact) = with_store(&tenants).await;
    secure
        .registry
        .always(Route::Blob, Fault::redirect(presigned(&store, &artifact)));
    let source = if with_certificate {
        certificate(&tenants.client("spiffe://example.org/x"), "Tenant CA", "1")
    } else {
        jwt(TOKEN, &["registry.test"])
    };
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let pulled = pull_with(&client(), spec, &source).await.unwrap();
    assert_eq!(pulled.layer, artifact.layer());
    let at_store = store.requests();
    assert_eq!(at_store.len(), 1);
    assert_eq!(at_store[0].query(), "X-Signature=secret");
    assert_eq!(at_store[0].connection.client_certificate, None);
    assert!(!at_store[0].contains(TOKEN));
    for header in ["authorization", "cookie", "referer"] {
        assert_eq!(at_store[0].header(header), None, "{header}");
    }
}

#[tokio::test]
async fn within_the_origin_the_token_stays() {
    let tenants = Authority::new("Tenant CA");
    let (secure, _, artifact) = with_store(&tenants).await;
    secure.registry.set_gate(|request| match request.authorization() {
        Some(_) => Verdict::Allow,
        None => Verdict::Challenge(vec![]),
    });
    let blob = format!("/v2/{REPOSITORY}/blobs/{}", sha256(&artifact.layer()));
    secure.registry.once(Route::Blob, Fault::redirect(blob));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    pull_with(&client(), spec, &jwt(TOKEN, &["x"])).await.unwrap();
    assert_eq!(secure.registry.log().len(), 4);
}

#[tokio::test]
async fn a_way_back_does_not_bring_the_token_back() {
    let tenants = Authority::new("Tenant CA");
    let (secure, store, artifact) = with_store(&tenants).await;
    let blob = format!("/v2/{REPOSITORY}/blobs/{}", sha256(&artifact.layer()));
    let back = format!("{}{blob}", secure.registry.origin_as("registry.test"));
    secure
        .registry
        .once(Route::Blob, Fault::redirect(presigned(&store, &artifact)));
    store.once(Route::Blob, Fault::redirect(back));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    pull_with(&client(), spec, &jwt(TOKEN, &["x"])).await.unwrap();
    assert_eq!(secure.registry.requests().last().unwrap().authorization(), None);
}

#[tokio::test]
async fn a_challenge_from_elsewhere_is_not_answered() {
    let tenants = Authority::new("Tenant CA");
    let (secure, store, artifact) = with_store(&tenants).await;
    secure
        .registry
        .always(Route::Blob, Fault::redirect(presigned(&store, &artifact)));
    let realm = store.origin_as("store.test");
    store.set_gate(move |_| Verdict::Challenge(vec![format!("Bearer realm=\"{realm}/token\"")]));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &jwt(TOKEN, &["x"])).await);
    assert!(
        matches!(error.failure(), Failure::UnexpectedStatus { status: 401 }),
        "{error}"
    );
    assert_eq!(store.log().len(), 1);
}

#[rstest]
#[case::to_http("http://store.test/x?X-Signature=secret")]
#[case::to_another_scheme("ftp://store.test/x")]
#[case::with_user_information("https://user:pw@store.test/x")]
#[case::nowhere("")]
#[tokio::test]
async fn refused_targets(#[case] location: &str) {
    let tenants = Authority::new("Tenant CA");
    let (secure, ..) = with_store(&tenants).await;
    let fault = if location.is_empty() {
        Fault::status(302)
    } else {
        Fault::redirect(location)
    };
    secure.registry.always(Route::ManifestHead, fault);
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &jwt(TOKEN, &["x"])).await);
    assert!(matches!(error.failure(), Failure::RedirectRefused(_)), "{error}");
    assert!(!error.to_string().contains("store.test"), "{error}");
}

#[tokio::test]
async fn redirects_end_after_five() {
    let registry = FaultRegistry::start(None).await;
    registry.always(Route::Any, Fault::redirect("/again"));
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert!(matches!(error.failure(), Failure::RedirectRefused(_)), "{error}");
    assert_eq!(registry.log().len(), 6);
}

#[tokio::test]
async fn five_redirects_are_followed() {
    let registry = FaultRegistry::start(None).await;
    let artifact = Artifact::flux(&[("a.yaml", "a: 1\n")]);
    registry.push(REPOSITORY, "v1", &artifact);
    registry.times(5, Route::Any, Fault::redirect(format!("/v2/{REPOSITORY}/manifests/v1")));
    pull_with(&client(), spec(&registry.host(), None), &anonymous())
        .await
        .unwrap();
    assert_eq!(registry.log().len(), 6 + 2);
}

#[tokio::test]
async fn a_cut_transfer_from_elsewhere_goes_on_there() {
    let tenants = Authority::new("Tenant CA");
    let (secure, store, artifact) = with_store(&tenants).await;
    secure
        .registry
        .always(Route::Blob, Fault::redirect(presigned(&store, &artifact)));
    store.once(Route::Any, Fault::Truncate(5));
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&secure.ca));
    let pulled = pull_with(&client(), spec, &jwt(TOKEN, &["x"])).await.unwrap();
    assert_eq!(pulled.layer, artifact.layer());
    let ranges: Vec<_> = store
        .requests()
        .iter()
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges, [None, Some("bytes=5-".to_owned())]);
    assert!(store.requests().iter().all(|request| request.authorization().is_none()));
}

#[rstest]
#[case::literal("127.0.0.1:1")]
#[case::mapped("[::ffff:127.0.0.1]:1")]
#[case::name("registry.test:1")]
#[case::metadata("metadata.test")]
#[tokio::test]
async fn denied_addresses_are_not_dialled(#[case] host: &str) {
    let client = RegistryClient::new(RegistryConfig {
        addresses: AddressPolicy::default(),
        ..config()
    });
    let error = refused(pull_with(&client, spec(host, None), &anonymous()).await);
    let Failure::AddressDenied { reason, .. } = error.failure() else {
        panic!("{error}")
    };
    assert_eq!(*reason, AddressDenied::Denied);
}

#[rstest]
#[case::redirect(true)]
#[case::realm(false)]
#[tokio::test]
async fn the_registry_cannot_lead_to_denied_addresses(#[case] by_redirect: bool) {
    let registry = FaultRegistry::start(None).await;
    let target = "http://metadata.test/latest/meta-data";
    if by_redirect {
        registry.always(Route::Any, Fault::redirect(target));
    } else {
        registry.set_gate(move |_| Verdict::Challenge(vec![format!("Bearer realm=\"{target}\"")]));
    }
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert!(matches!(error.failure(), Failure::AddressDenied { .. }), "{error}");
    assert!(!error.to_string().contains("169.254"), "{error}");
}

/// Behind a proxy the registry counts as public, whatever the proxy's own address is.
#[rstest]
#[case("http://10.255.255.1/x")]
#[case("http://127.0.0.1:1/x")]
#[tokio::test]
async fn a_public_registry_cannot_lead_to_private_addresses(#[case] target: &str) {
    let proxy = FaultRegistry::start(None).await;
    proxy.always(Route::Any, Fault::redirect(target));
    let matcher = Matcher::builder().http(format!("http://{}", proxy.host())).build();
    let client = RegistryClient::new(RegistryConfig {
        environment_proxies: Arc::new(matcher),
        ..config()
    });
    let error = refused(pull_with(&client, spec("public.test", None), &anonymous()).await);
    let Failure::AddressDenied { reason, .. } = error.failure() else {
        panic!("{error}")
    };
    assert_eq!(*reason, AddressDenied::Private);
    assert_eq!(proxy.log().len(), 1);
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_used_and_checked() {
    let proxy = FaultRegistry::start(None).await;
    proxy.push(REPOSITORY, "v1", &Artifact::flux(&[("a.yaml", "a: 1\n")]));
    let matcher = Arc::new(
        Matcher::builder()
            .http(format!("http://user:pw@{}", proxy.host()))
            .no("direct.test")
            .build(),
    );
    let with = |addresses| {
        let environment_proxies = Arc::clone(&matcher);
        RegistryClient::new(RegistryConfig {
            environment_proxies,
            addresses,
            ..config()
        })
    };
    pull_with(&with(config().addresses), spec("public.test", None), &anonymous())
        .await
        .unwrap();
    let request = &proxy.requests()[0];
    assert_eq!(request.header("host"), Some("public.test"));
    assert_eq!(request.header("proxy-authorization"), Some("Basic dXNlcjpwdw=="));
    let error = refused(pull_with(&with(AddressPolicy::default()), spec("public.test", None), &anonymous()).await);
    assert!(matches!(error.failure(), Failure::AddressDenied { .. }), "{error}");
    let direct = refused(
        pull_with(
            &with(AddressPolicy::default()),
            spec("direct.test:1", None),
            &anonymous(),
        )
        .await,
    );
    assert!(matches!(direct.failure(), Failure::AddressDenied { .. }), "{direct}");
}

#[tokio::test]
async fn connect_errors_are_told_coarsely() {
    let client = RegistryClient::new(RegistryConfig {
        connect_timeout: Duration::from_millis(20),
        ..config()
    });
    for host in ["unknown.test", "127.0.0.1:1", "registry.test:1"] {
        let error = refused(pull_with(&client, spec(host, None), &anonymous()).await);
        assert_eq!(error.message(), "cannot connect", "{host}");
    }
}

#[tokio::test]
async fn an_untrusted_server_certificate_is_named() {
    let secure = secure(ClientAuth::None).await;
    let other_ca = CaBundle::from_pem(Authority::new("Other CA").pem().as_bytes()).unwrap();
    let spec = spec(&secure.registry.host_as("registry.test"), Some(&other_ca));
    let error = refused(pull_with(&client(), spec, &jwt(TOKEN, &["x"])).await);
    assert_eq!(
        error.message(),
        "registry's TLS certificate is not trusted: unknown issuer"
    );
    let (_, same_name) = server_pair();
    let spec = crate::support::spec(&secure.registry.host_as("registry.test"), Some(&same_name));
    let error = refused(pull_with(&client(), spec, &jwt(TOKEN, &["x"])).await);
    assert_eq!(
        error.message(),
        "registry's TLS certificate is not trusted: signed with a key that is not trusted"
    );
    let spec = crate::support::spec(&secure.registry.host_as("wrong-name.test"), Some(&secure.ca));
    let error = refused(pull_with(&client(), spec, &jwt(TOKEN, &["x"])).await);
    assert_eq!(
        error.message(),
        "registry's TLS certificate is not trusted: issued for another name"
    );
    assert!(secure.registry.log().is_empty());
}
