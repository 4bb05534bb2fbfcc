//! Blobs: their size, length and hash, and transfers that are cut and go on.

use mintmark::registry::{Descriptor, Failure, InvalidContent};
use mintmark_tests::fault_registry::{Artifact, Fault, FaultRegistry, Route};
use rstest::rstest;

use crate::{content::with_artifact, support::*};

/// 40 KiB that do not compress, so that cuts fall into the middle.
fn big_artifact() -> Artifact {
    Artifact::with_layer(
        &(0..40_960_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect::<Vec<_>>(),
    )
}

#[tokio::test]
async fn a_blob_over_the_limit_is_not_asked_for() {
    let (registry, artifact) = with_artifact().await;
    let client = client();
    let mut session = client.session(spec(&registry.host(), None), anonymous());
    let layer = session
        .manifest(&artifact.digest().parse().unwrap())
        .await
        .unwrap()
        .layers[0]
        .clone();
    let error = session.blob(&layer, layer.size - 1, &mut Vec::new()).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::TooLarge { what: "blob", .. }));
    assert_eq!(registry.log().len(), 1);
    session.blob(&layer, 0, &mut Vec::new()).await.unwrap();
}

#[rstest]
#[case::corrupt(Fault::Corrupt, |e: &InvalidContent| matches!(e, InvalidContent::Digest { what: "blob" }))]
#[case::longer(Fault::Lengthen(3), |e: &InvalidContent| matches!(e, InvalidContent::Length { what: "blob", .. }))]
#[case::shorter(Fault::Shorten(3), |e: &InvalidContent| matches!(e, InvalidContent::Length { what: "blob", .. }))]
#[tokio::test]
async fn a_wrong_blob_is_refused_at_once(#[case] fault: Fault, #[case] expected: fn(&InvalidContent) -> bool) {
    let (registry, _) = with_artifact().await;
    registry.always(Route::Blob, fault);
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert!(
        matches!(error.failure(), Failure::Invalid(found) if expected(found)),
        "{error}"
    );
    assert_eq!(registry.log().len(), 3);
}

#[tokio::test]
async fn a_blob_without_declared_length_is_checked_as_it_comes() {
    let (registry, artifact) = with_artifact().await;
    registry.always(Route::Blob, Fault::Chunked);
    let client = client();
    let pulled = pull_with(&client, spec(&registry.host(), None), &anonymous())
        .await
        .unwrap();
    assert_eq!(pulled.layer, artifact.layer());
    let layer = &pulled.manifest.layers[0];
    for size in [layer.size - 1, layer.size + 1] {
        let wrong = Descriptor { size, ..layer.clone() };
        let mut session = client.session(spec(&registry.host(), None), anonymous());
        let error = session.blob(&wrong, 0, &mut Vec::new()).await.unwrap_err();
        assert!(
            matches!(error.failure(), Failure::Invalid(InvalidContent::Length { .. })),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_cut_blob_goes_on_where_it_was_cut() {
    let registry = FaultRegistry::start(None).await;
    let artifact = big_artifact();
    registry.push(REPOSITORY, "v1", &artifact);
    registry.once(Route::Blob, Fault::Truncate(10_000));
    registry.once(Route::Blob, Fault::Truncate(8_000));
    let pulled = pull_with(&client(), spec(&registry.host(), None), &anonymous())
        .await
        .unwrap();
    assert_eq!(pulled.layer, artifact.layer());
    let ranges: Vec<_> = registry.requests()[2..]
        .iter()
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges, [None, Some("bytes=10000-".into()), Some("bytes=18000-".into())]);
}

#[tokio::test]
async fn a_registry_that_ignores_ranges_starts_over() {
    let registry = FaultRegistry::start(None).await;
    let artifact = big_artifact();
    registry.push(REPOSITORY, "v1", &artifact);
    registry.once(Route::Blob, Fault::Truncate(10_000));
    registry.once(Route::Blob, Fault::IgnoreRange);
    let pulled = pull_with(&client(), spec(&registry.host(), None), &anonymous())
        .await
        .unwrap();
    assert_eq!(pulled.layer, artifact.layer());
    assert_eq!(registry.log().len(), 4);
}

#[rstest]
#[case::another_range(Fault::WrongRange)]
#[case::not_satisfiable(Fault::status(416))]
#[tokio::test]
async fn a_bad_continuation_is_refused(#[case] fault: Fault) {
    let registry = FaultRegistry::start(None).await;
    registry.push(REPOSITORY, "v1", &big_artifact());
    registry.once(Route::Blob, Fault::Truncate(10_000));
    registry.once(Route::Blob, fault);
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert!(
        matches!(error.failure(), Failure::Invalid(InvalidContent::Range)),
        "{error}"
    );
}

#[tokio::test]
async fn cuts_without_progress_end_after_three_resumptions() {
    let registry = FaultRegistry::start(None).await;
    registry.push(REPOSITORY, "v1", &big_artifact());
    registry.always(Route::Blob, Fault::Truncate(1));
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert!(matches!(error.failure(), Failure::ConnectionLost), "{error}");
    assert_eq!(registry.log().len(), 2 + 1 + 3);
}

#[tokio::test]
async fn a_part_that_nobody_asked_for_is_refused() {
    let (registry, artifact) = with_artifact().await;
    let blob = artifact.layer();
    let fault = Fault::Answer {
        status: 206,
        headers: vec![("content-range", format!("bytes 0-{}/{}", blob.len() - 1, blob.len()))],
        body: "x".repeat(blob.len()),
    };
    registry.always(Route::Blob, fault);
    let error = refused(pull_with(&client(), spec(&registry.host(), None), &anonymous()).await);
    assert!(
        matches!(error.failure(), Failure::UnexpectedStatus { status: 206 }),
        "{error}"
    );
}
