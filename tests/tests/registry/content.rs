//! Revisions and manifests: the right ones, and every way of being wrong.

use std::collections::BTreeMap;

use mintmark::registry::{Failure, InvalidContent, RegistryClient, RegistryConfig};
use mintmark_tests::fault_registry::{
    Artifact, FLUX_CONFIG, FLUX_LAYER, Fault, FaultRegistry, INDEX, MANIFEST, Route, sha256,
};
use rstest::rstest;
use serde_json::json;

use crate::support::*;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

pub(crate) async fn with_artifact() -> (FaultRegistry, Artifact) {
    let registry = FaultRegistry::start(None).await;
    let artifact = Artifact::flux(&[("deploy.yaml", "kind: Namespace\n")]);
    registry.push(REPOSITORY, "v1", &artifact);
    (registry, artifact)
}

#[tokio::test]
async fn a_pull_is_one_head_and_two_gets_on_one_connection() {
    let (registry, artifact) = with_artifact().await;
    let pulled = pull_with(&client(), spec(&registry.host(), None), &anonymous())
        .await
        .unwrap();
    assert_eq!(pulled.digest.as_str(), artifact.digest());
    assert_eq!(pulled.manifest.artifact_type, FLUX_CONFIG);
    assert_eq!(pulled.manifest.layers[0].media_type, FLUX_LAYER);
    assert_eq!(pulled.layer, artifact.layer());
    assert_eq!(
        registry.log(),
        [
            format!("HEAD /v2/{REPOSITORY}/manifests/v1"),
            format!("GET /v2/{REPOSITORY}/manifests/{}", artifact.digest()),
            format!("GET /v2/{REPOSITORY}/blobs/{}", sha256(&artifact.layer())),
        ]
    );
    assert_eq!(registry.connections().len(), 1);
    let request = &registry.requests()[0];
    assert!(request.header("user-agent").unwrap().starts_with("mintmark/"));
    let accepted: Vec<_> = request.header("accept").unwrap().split(',').map(str::trim).collect();
    assert_eq!(accepted, [MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST]);
    for absent in ["authorization", "cookie", "referer", "accept-encoding"] {
        assert_eq!(request.header(absent), None, "{absent}");
    }
}

#[tokio::test]
async fn a_quiet_pass_is_one_head_on_the_kept_connection() {
    let (registry, artifact) = with_artifact().await;
    let client = client();
    for _ in 0..3 {
        let mut session = client.session(spec(&registry.host(), None), anonymous());
        assert_eq!(session.resolve("v1").await.unwrap().as_str(), artifact.digest());
    }
    assert_eq!(registry.log().len(), 3);
    assert_eq!(registry.connections().len(), 1);
}

#[tokio::test]
async fn tags_are_hashed_when_the_registry_names_no_digest() {
    let (registry, artifact) = with_artifact().await;
    registry.always(Route::ManifestHead, Fault::NoDigest);
    let digest = client()
        .session(spec(&registry.host(), None), anonymous())
        .resolve("v1")
        .await
        .unwrap();
    assert_eq!(digest.as_str(), artifact.digest());
    registry.heal();
    registry.always(Route::ManifestHead, Fault::status(405));
    let digest = client()
        .session(spec(&registry.host(), None), anonymous())
        .resolve("v1")
        .await
        .unwrap();
    assert_eq!(digest.as_str(), artifact.digest());
}

#[tokio::test]
async fn an_unknown_tag_is_not_found() {
    let registry = FaultRegistry::start(None).await;
    registry.always(Route::ManifestHead, Fault::status(405));
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert_eq!(error.message(), "not found (404: MANIFEST_UNKNOWN)");
    assert!(error.to_string().starts_with(&format!(
        "GET http://{}/v2/{REPOSITORY}/manifests/v1: ",
        registry.host()
    )));
}

#[tokio::test]
async fn annotations_are_those_of_the_manifest() {
    let registry = FaultRegistry::start(None).await;
    let annotations = BTreeMap::from([("org.opencontainers.image.revision".to_owned(), "main@sha1:0".to_owned())]);
    registry.push(
        REPOSITORY,
        "v1",
        &Artifact::with_layer_and_annotations(b"layer", &annotations),
    );
    let pulled = pull_with(&client(), spec(&registry.host(), None), &anonymous())
        .await
        .unwrap();
    assert_eq!(pulled.manifest.annotations, annotations);
}

#[rstest]
#[case::ours_by_platform(&[Some(("linux", "arm64")), Some(("linux", "amd64"))], Ok(1))]
#[case::the_only_one(&[Some(("linux", "arm64"))], Ok(0))]
#[case::the_only_one_without_platform(&[None], Ok(0))]
#[case::none_of_two(&[Some(("linux", "arm64")), None], Err(InvalidContent::NoChild))]
#[case::none_at_all(&[], Err(InvalidContent::NoChild))]
#[tokio::test]
async fn an_index_leads_to_its_child(
    #[case] platforms: &[Option<(&str, &str)>],
    #[case] expected: Result<usize, InvalidContent>,
) {
    let registry = FaultRegistry::start(None).await;
    let children: Vec<_> = (0..platforms.len())
        .map(|i| (Artifact::with_layer(format!("layer {i}").as_bytes()), platforms[i]))
        .collect();
    let index = Artifact::index(&children);
    registry.push(REPOSITORY, "v1", &index);
    let result = pull_with(&client(), spec(&registry.host(), None), &anonymous()).await;
    match expected {
        Ok(child) => {
            let pulled = result.unwrap();
            assert_eq!(pulled.layer, format!("layer {child}").as_bytes());
            assert_eq!(pulled.manifest.revision.as_str(), index.digest());
            assert_eq!(pulled.manifest.digest.as_str(), children[child].0.digest());
        }
        Err(expected) => {
            let error = refused(result);
            assert!(
                matches!(error.failure(), Failure::Invalid(found) if *found == expected),
                "{error}"
            );
        }
    }
}

#[tokio::test]
async fn documents_of_docker_are_read_like_those_of_oci() {
    let registry = FaultRegistry::start(None).await;
    let blob = Artifact::with_layer(b"x");
    let child = Artifact {
        blobs: blob.blobs.clone(),
        ..document(DOCKER_MANIFEST, |d| d["mediaType"] = json!(DOCKER_MANIFEST))
    };
    let entry = json!({"mediaType": DOCKER_MANIFEST, "digest": child.digest(), "size": child.manifest.len(),
        "platform": {"os": "linux", "architecture": "amd64"}});
    let list = json!({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [entry]});
    let list = Artifact {
        children: vec![child.clone()],
        ..Artifact::document(DOCKER_LIST, &list)
    };
    registry.push(REPOSITORY, "v1", &list);
    let pulled = pull_with(&client(), spec(&registry.host(), None), &anonymous())
        .await
        .unwrap();
    assert_eq!(pulled.manifest.revision.as_str(), list.digest());
    assert_eq!(pulled.manifest.digest.as_str(), child.digest());
    assert_eq!(pulled.layer, b"x");
}

#[tokio::test]
async fn a_child_has_the_size_that_its_index_says() {
    let registry = FaultRegistry::start(None).await;
    let child = Artifact::with_layer(b"x");
    let entry = json!({"mediaType": MANIFEST, "digest": child.digest(), "size": child.manifest.len() + 1});
    let index = Artifact {
        children: vec![child],
        ..Artifact::document(
            INDEX,
            &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}),
        )
    };
    registry.push(REPOSITORY, "v1", &index);
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    let Failure::Invalid(InvalidContent::Length { what: "manifest", .. }) = error.failure() else {
        panic!("{error}")
    };
}

#[tokio::test]
async fn a_descriptor_cannot_send_us_elsewhere() {
    let (registry, elsewhere) = (FaultRegistry::start(None).await, FaultRegistry::start(None).await);
    let urls = json!([format!("{}/blob", elsewhere.origin())]);
    let artifact = Artifact {
        blobs: Artifact::with_layer(b"x").blobs,
        ..document(MANIFEST, |d| {
            d["layers"][0]["urls"] = urls.clone();
            d["config"]["urls"] = urls;
        })
    };
    registry.push(REPOSITORY, "v1", &artifact);
    let pulled = pull_with(&client(), spec(&registry.host(), None), &anonymous())
        .await
        .unwrap();
    assert_eq!(pulled.layer, b"x");
    assert_eq!(elsewhere.accepted(), 0);
}

#[tokio::test]
async fn a_cookie_is_not_kept() {
    let (registry, artifact) = with_artifact().await;
    let digest = artifact.digest();
    registry.page(&format!("/v2/{REPOSITORY}/manifests/v1"), move |_| {
        let answer = http::Response::builder()
            .header("set-cookie", "id=1; Path=/")
            .header("docker-content-digest", &digest);
        answer.body(bytes::Bytes::new()).unwrap()
    });
    pull_with(&client(), spec(&registry.host(), None), &anonymous())
        .await
        .unwrap();
    assert!(
        registry
            .requests()
            .iter()
            .all(|request| request.header("cookie").is_none())
    );
}

#[tokio::test]
async fn an_index_in_an_index_is_refused() {
    let registry = FaultRegistry::start(None).await;
    let inner = Artifact::index(&[(Artifact::with_layer(b"x"), None)]);
    registry.push(REPOSITORY, "v1", &Artifact::index(&[(inner, Some(("linux", "amd64")))]));
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert!(matches!(error.failure(), Failure::Invalid(InvalidContent::NestedIndex)));
}

fn document(media_type: &str, change: impl FnOnce(&mut serde_json::Value)) -> Artifact {
    let descriptor = json!({"mediaType": FLUX_LAYER, "digest": sha256(b"x"), "size": 1});
    let mut document = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor, "layers": [descriptor]});
    change(&mut document);
    Artifact::document(media_type, &document)
}

#[rstest]
#[case::two_kinds_of_fields(document(MANIFEST, |d| d["manifests"] = json!([])), "fields of an image and of an index")]
#[case::media_type_against_header(document(INDEX, |_| ()), "mediaType is")]
#[case::fields_against_type(document(INDEX, |d| d["mediaType"] = json!(INDEX)), "are not those of")]
#[case::old_schema(document(MANIFEST, |d| d["schemaVersion"] = json!(1)), "schemaVersion")]
#[case::signed_schema_1(document("application/vnd.docker.distribution.manifest.v1+prettyjws", |_| ()), "not a manifest")]
#[case::bad_layer_digest(document(MANIFEST, |d| d["layers"][0]["digest"] = json!("md5:0")), "unusable digest")]
#[case::negative_size(document(MANIFEST, |d| d["layers"][0]["size"] = json!(-1)), "unusable size")]
#[case::not_an_object(Artifact::document(MANIFEST, &json!("secret text")), "not valid JSON")]
#[tokio::test]
async fn contradictory_manifests_are_refused(#[case] artifact: Artifact, #[case] text: &str) {
    let registry = FaultRegistry::start(None).await;
    registry.push(REPOSITORY, "v1", &artifact);
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert!(matches!(error.failure(), Failure::Invalid(_)), "{error}");
    assert!(error.to_string().contains(text), "{error}");
    assert!(!error.to_string().contains("secret text"));
}

#[rstest]
#[case::no_content_type(Fault::ContentType(None))]
#[case::plain_json(Fault::ContentType(Some("application/json")))]
#[tokio::test]
async fn an_unspecific_content_type_leaves_it_to_the_document(#[case] fault: Fault) {
    let (registry, _) = with_artifact().await;
    registry.always(Route::ManifestGet, fault);
    pull_with(&client(), spec(&registry.host(), None), &anonymous())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_web_page_is_named_as_such() {
    let (registry, _) = with_artifact().await;
    registry.always(Route::Any, Fault::html());
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert_eq!(
        error.message(),
        "invalid content: answer is not a manifest but 'text/html'"
    );
    registry.heal();
    registry.always(Route::ManifestGet, Fault::html());
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert_eq!(
        error.message(),
        "invalid content: answer is not a manifest but 'text/html'"
    );
}

#[tokio::test]
async fn a_manifest_with_another_hash_is_refused() {
    let (registry, _) = with_artifact().await;
    let other = Artifact::with_layer(b"another");
    let fault = Fault::Answer {
        status: 200,
        headers: vec![("content-type", MANIFEST.to_owned())],
        body: String::from_utf8(other.manifest.to_vec()).unwrap(),
    };
    registry.always(Route::ManifestGet, fault);
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert!(
        matches!(
            error.failure(),
            Failure::Invalid(InvalidContent::Digest { what: "manifest" })
        ),
        "{error}"
    );
}

#[rstest]
#[case::declared(None)]
#[case::undeclared(Some(Fault::Chunked))]
#[tokio::test]
async fn a_giant_manifest_is_refused(#[case] fault: Option<Fault>) {
    let (registry, artifact) = with_artifact().await;
    if let Some(fault) = fault {
        registry.always(Route::ManifestGet, fault);
    }
    let limit = artifact.manifest.len() as u64 - 1;
    let client = RegistryClient::new(RegistryConfig {
        manifest_max_size: limit,
        ..config()
    });
    let error = refused(pull_with(&client, spec(&registry.host(), None), &anonymous()).await);
    assert!(
        matches!(error.failure(), Failure::TooLarge { what: "manifest", .. }),
        "{error}"
    );
}
