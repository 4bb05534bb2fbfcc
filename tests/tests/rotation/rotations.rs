//! Rotations while everything works: with verifiers that learn of new keys in different ways, none of them may refuse a pull;
//! and without an overlap those that cannot know in time do refuse, so that these tests can fail.

use std::time::Duration;

use anyhow::{Result, ensure};
use mintmark_hack::pki::TestCa;
use mintmark_tests::{
    env::Env,
    fleet::{Fleet, Keys, Verifier, not_before},
};

/// Rotations in the long run.
const ROTATIONS: usize = 30;
/// Eight polls of its polling verifier; the default overlap holds five of a verifier that polls every minute.
const OVERLAP: Duration = Duration::from_secs(8);
/// The default of `--spiffe-key-overlap`.
const DEFAULT_OVERLAP: Duration = Duration::from_mins(5);

/// A ring holds at most 16 keys of a use, and a retired one stays for a credential's life, a minute and an overlap: with the
/// shortest lives, thirty rotations take at least four and a half minutes. They need little of the machine meanwhile.
const QUICK: &[&str] = &[
    "--spiffe-key-overlap=8s",
    "--spiffe-x509-overlap=8s",
    "--spiffe-jwt-ttl=1m",
    "--spiffe-x509-ttl=1m",
];

#[tokio::test]
async fn thirty_rotations_fail_no_pull() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(QUICK).await?;
    let issuer = env.ports.issuer_url();
    let groups = [
        (Verifier::Refetching, 12),
        (Verifier::Polling(1), 13),
        (Verifier::CaFile, 25),
    ];
    let mut old = Keys::of(&env.ca)?;
    let mut fleet = Fleet::new(env, &issuer, "1s", &groups).await?;
    fleet.all_present(&old).await?;
    for rotation in 0..ROTATIONS {
        let ca = TestCa::new(&format!("CA {rotation}"))?;
        let (new, start) = fleet.rotate(&ca).await?;
        fleet.published(&new).await?;
        fleet.renew_ca_files().await?;
        fleet.all_present(&new).await?;
        not_before(&fleet.first_uses(&new), start, OVERLAP)?;
        fleet.all_presented_after(&old, start)?;
        // The whole way of a pull with the new key, not only a look at the tag.
        fleet.pull_content(&format!("rotation {rotation}")).await?;
        fleet.no_failed_pull()?;
        old = new;
    }
    Ok(())
}

#[tokio::test]
async fn the_default_overlap_is_enough_for_a_verifier_that_polls_every_minute() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let issuer = env.ports.issuer_url();
    let old = Keys::of(&env.ca)?;
    let groups = [(Verifier::Polling(60), 4), (Verifier::CaFile, 1)];
    let mut fleet = Fleet::new(env, &issuer, "2s", &groups).await?;
    fleet.all_present(&old).await?;

    let (new, start) = fleet.rotate(&TestCa::new("next CA")?).await?;
    fleet.published(&new).await?;
    fleet
        .group_presents(0, &new, DEFAULT_OVERLAP + Duration::from_mins(1))
        .await?;
    not_before(&fleet.first_uses(&new), start, DEFAULT_OVERLAP)?;
    // Certificates have an overlap of their own, of a day: the same authority signs on.
    fleet.pulls(2).await?;
    let seen = &fleet.groups[1].seen;
    assert!(seen.first_use(&new.key_identifier).is_none());
    assert!(seen.first_use(&old.key_identifier).is_some());
    fleet.no_failed_pull()
}

#[tokio::test]
async fn without_an_overlap_verifiers_that_cannot_know_in_time_refuse() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env
        .controller(&["--spiffe-key-overlap=0s", "--spiffe-x509-overlap=0s"])
        .await?;
    let issuer = env.ports.issuer_url();
    let old = Keys::of(&env.ca)?;
    let groups = [
        (Verifier::Refetching, 1),
        (Verifier::Polling(600), 1),
        (Verifier::CaFile, 1),
    ];
    let mut fleet = Fleet::new(env, &issuer, "1s", &groups).await?;
    fleet.all_present(&old).await?;
    fleet.rotate(&TestCa::new("next CA")?).await?;
    fleet
        .until(Duration::from_mins(1), "two verifiers refuse", |fleet| {
            let refuses = |group: usize| fleet.groups[group].refused().is_ok_and(|refused| !refused.is_empty());
            refuses(1) && refuses(2)
        })
        .await?;
    let failed = fleet.observer.shown().failed.clone();
    assert!(fleet.groups[0].refused()?.is_empty(), "{failed:?}");
    ensure!(fleet.no_failed_pull().is_err(), "nobody was told");
    Ok(())
}
