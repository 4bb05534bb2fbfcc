//! Tag lists: paging, registries that refuse or ignore `n`, lists without end, and where the next page may be.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, header::LINK};
use mintmark::{
    credential::CredentialSource,
    registry::{Failure, RegistryClient, RegistryConfig, RegistryError},
};
use mintmark_tests::fault_registry::{Artifact, Fault, FaultRegistry, Recorded, Route, Verdict};
use rstest::rstest;

use crate::support::*;

const LIST: &str = "/v2/tenant/app/tags/list";

async fn registry_with(tags: impl IntoIterator<Item = String>) -> FaultRegistry {
    let registry = FaultRegistry::start(None).await;
    let artifact = Artifact::flux(&[("a.yaml", "a: 1\n")]);
    tags.into_iter()
        .for_each(|tag| registry.push(REPOSITORY, &tag, &artifact));
    registry
}

/// All tags, page by page.
async fn list_with(
    client: &RegistryClient,
    registry: &FaultRegistry,
    source: &Arc<Source>,
) -> Result<Vec<Vec<String>>, RegistryError> {
    let source: Arc<dyn CredentialSource> = Arc::<Source>::clone(source);
    let mut session = client.session(spec(&registry.host(), None), source);
    let (mut scan, mut pages) = (session.tags(), Vec::new());
    while let Some(page) = scan.next().await? {
        pages.push(page.iter().map(str::to_owned).collect());
    }
    assert!(scan.next().await?.is_none(), "the end is the end");
    Ok(pages)
}

async fn list(registry: &FaultRegistry) -> Result<Vec<Vec<String>>, RegistryError> {
    list_with(&client(), registry, &anonymous()).await
}

/// Serves the list as `pages` says: from the number of the page (query `p`, 0 at first) to body and `Link`.
fn serve(registry: &FaultRegistry, pages: impl Fn(usize) -> (String, Option<String>) + Send + Sync + 'static) {
    registry.page(LIST, move |request: &Recorded| {
        let number = request
            .target
            .rsplit_once("p=")
            .map_or(0, |(_, number)| number.parse().unwrap());
        let (body, link) = pages(number);
        let mut answer = Response::new(Bytes::from(body));
        if let Some(link) = link {
            answer.headers_mut().insert(LINK, link.parse().unwrap());
        }
        answer
    });
}

fn body(tags: &[&str]) -> String {
    serde_json::json!({"name": REPOSITORY, "tags": tags}).to_string()
}

fn link(page: usize) -> String {
    format!("<{LIST}?p={page}>; rel=\"next\"")
}

#[tokio::test]
async fn a_long_list_comes_in_pages_of_a_thousand() {
    let tags: Vec<_> = (0..2_500).map(|number| format!("1.0.{number:04}")).collect();
    let registry = registry_with(tags.clone()).await;
    let pages = list(&registry).await.unwrap();
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [1000, 1000, 500]);
    assert_eq!(pages.concat(), tags);
    let expected = ["?n=1000", "?n=1000&last=1.0.0999", "?n=1000&last=1.0.1999"];
    assert_eq!(registry.log(), expected.map(|query| format!("GET {LIST}{query}")));
}

#[rstest]
#[case(400)]
#[case(405)]
#[tokio::test]
async fn a_registry_without_paging_is_asked_again_without_it(#[case] status: u16) {
    let registry = registry_with(["v1".to_owned()]).await;
    registry.once(Route::Tags, Fault::status(status));
    assert_eq!(list(&registry).await.unwrap(), [["v1"]]);
    assert_eq!(registry.log(), [format!("GET {LIST}?n=1000"), format!("GET {LIST}")]);
    registry.heal();
    registry.clear_records();
    registry.always(Route::Tags, Fault::status(status));
    let error = list(&registry).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::UnexpectedStatus { .. }), "{error}");
    assert_eq!(registry.log().len(), 2);
}

#[tokio::test]
async fn a_later_page_is_not_asked_for_in_another_way() {
    let registry = registry_with((0..1_001).map(|number| format!("1.0.{number}"))).await;
    registry.set_gate(|request| {
        let later = request.target.contains("last=");
        if later { Verdict::Deny } else { Verdict::Allow }
    });
    let error = list(&registry).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::DeniedAnonymous), "{error}");
    assert_eq!(registry.log().len(), 2);
}

#[rstest]
#[case::null(r#"{"name":"tenant/app","tags":null}"#)]
#[case::empty(r#"{"name":"tenant/app","tags":[]}"#)]
#[tokio::test]
async fn no_tags_are_no_failure(#[case] body: &'static str) {
    let registry = registry_with([]).await;
    serve(&registry, |_| (body.to_owned(), None));
    assert_eq!(list(&registry).await.unwrap(), [[""; 0]]);
}

#[tokio::test]
async fn an_unknown_repository_is_one() {
    let registry = registry_with([]).await;
    let error = list(&registry).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::NotFound { .. }), "{error}");
}

#[tokio::test]
async fn what_is_no_tag_is_left_out_and_counted() {
    let registry = registry_with([]).await;
    let seen = Arc::new(Seen::default());
    let client = RegistryClient::new(RegistryConfig {
        observer: Arc::<Seen>::clone(&seen),
        ..config()
    });
    let long = "a".repeat(129);
    let text = body(&["v1", "", ".hidden", "a/b", "v2\n", &long, "v3"]);
    serve(&registry, move |_| (text.clone(), None));
    let pages = list_with(&client, &registry, &anonymous()).await.unwrap();
    assert_eq!(pages, [["v1", "v3"]]);
    assert_eq!(*seen.invalid_tags.lock().unwrap(), 5);
}

#[rstest]
#[case::same_page_for_ever(|_| (body(&["v1"]), Some(link(1))), 2, &["v1"])]
#[case::a_circle_of_two(|page| (body(&[["v1", "v2"][page % 2]]), Some(link(page + 1))), 3, &["v1", "v2"])]
#[case::empty_page(|page| (body(if page == 0 { &["v1"] } else { &[] }), Some(link(page + 1))), 2, &["v1"])]
#[case::only_bad_ones(|page| (body(if page == 0 { &["v1"] } else { &["-"] }), Some(link(page + 1))), 2, &["v1"])]
#[tokio::test]
async fn a_page_without_a_new_tag_ends_the_list(
    #[case] pages: fn(usize) -> (String, Option<String>),
    #[case] requests: usize,
    #[case] tags: &[&str],
) {
    let registry = registry_with([]).await;
    serve(&registry, pages);
    assert_eq!(list(&registry).await.unwrap().concat(), tags);
    assert_eq!(registry.log().len(), requests);
}

#[tokio::test]
async fn pages_are_counted() {
    let registry = registry_with([]).await;
    serve(&registry, |page| {
        (body(&[&format!("1.0.{page}")]), Some(link(page + 1)))
    });
    let client = RegistryClient::new(RegistryConfig {
        tag_list_max_pages: 7,
        ..config()
    });
    let error = list_with(&client, &registry, &anonymous()).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::TooManyPages { limit: 7 }), "{error}");
    assert_eq!(registry.log().len(), 7);
    assert_eq!(RegistryConfig::default().tag_list_max_pages, 2_000);
}

#[tokio::test]
async fn a_page_has_at_most_four_mebibytes() {
    let registry = registry_with([]).await;
    let padded = |length: usize| {
        let text = body(&["v1"]);
        let text = format!("{text}{}", " ".repeat(length - text.len()));
        move |_| (text.clone(), None)
    };
    serve(&registry, padded(4 << 20));
    assert_eq!(list(&registry).await.unwrap(), [["v1"]]);
    serve(&registry, padded((4 << 20) + 1));
    let error = list(&registry).await.unwrap_err();
    let expected = "page of the tag list is larger than the limit of 4194304 bytes";
    assert_eq!(error.message(), expected);
}

#[tokio::test]
async fn all_pages_together_have_a_limit() {
    let registry = registry_with([]).await;
    serve(&registry, |page| {
        let next = (page < 3).then(|| link(page + 1));
        (format!("{:1000}", body(&[&format!("1.0.{page}")])), next)
    });
    let limited = |bytes| {
        RegistryClient::new(RegistryConfig {
            tag_list_max_bytes: bytes,
            ..config()
        })
    };
    let all = list_with(&limited(4_000), &registry, &anonymous()).await.unwrap();
    assert_eq!(all.len(), 4);
    let error = list_with(&limited(3_999), &registry, &anonymous()).await.unwrap_err();
    assert_eq!(error.message(), "tag list is larger than the limit of 3999 bytes");
}

#[tokio::test]
async fn a_next_page_elsewhere_is_refused_and_sees_nothing() {
    let (registry, other) = (registry_with([]).await, registry_with([]).await);
    let target = format!("<{}{LIST}>; rel=next", other.origin());
    serve(&registry, move |_| (body(&["v1"]), Some(target.clone())));
    let error = list_with(&client(), &registry, &jwt(TOKEN, &[])).await.unwrap_err();
    assert_eq!(error.message(), "next page refused: its Link leads to another origin");
    assert!(!error.to_string().contains(&other.host()), "{error}");
    assert!(other.log().is_empty());
}

#[tokio::test]
async fn a_link_that_cannot_be_read_is_no_end() {
    let registry = registry_with([]).await;
    serve(&registry, |_| (body(&["v1"]), Some(format!("{LIST}?p=1; rel=next"))));
    let error = list(&registry).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::LinkRefused(_)), "{error}");
}

#[tokio::test]
async fn every_page_brings_the_credential_and_survives_a_moment() {
    let registry = registry_with((0..1_500).map(|number| format!("1.0.{number}"))).await;
    registry.set_gate(|request| {
        let bearer = request.header("authorization") == Some(&format!("Bearer {TOKEN}"));
        if bearer { Verdict::Allow } else { Verdict::Deny }
    });
    registry.once(Route::Tags, Fault::status(503));
    registry.once(Route::Tags, Fault::Truncate(10));
    let pages = list_with(&client(), &registry, &jwt(TOKEN, &[])).await.unwrap();
    assert_eq!(pages.concat().len(), 1_500);
    assert_eq!(registry.log().len(), 4);
}

#[rstest]
#[case::web_page(Fault::html())]
#[case::cut_in_the_middle(Fault::Shorten(2))]
#[tokio::test]
async fn what_is_no_list_fails(#[case] fault: Fault) {
    let registry = registry_with(["v1".to_owned()]).await;
    registry.always(Route::Tags, fault);
    let error = list(&registry).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::Invalid(_)), "{error}");
    assert!(error.message().contains("tag list is not valid JSON"), "{error}");
}
