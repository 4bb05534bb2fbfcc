//! A signing key that must not be used any more: the annotation takes it out of the documents and out of every pull within
//! half a minute, with a successor and without, and for good.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use mintmark_hack::{
    controller::{Controller, SIGNING_SECRET},
    pki::TestCa,
};
use mintmark_tests::{
    env::Env,
    fleet::{Fleet, Keys, Verifier},
    http::until_within,
};

/// From the annotation to the last pull with the key.
const WITHIN: Duration = Duration::from_secs(30);
const REVOKE: &str = "mintmark.dev/revoke";
/// An overlap that no test outlasts. Objects that fail are tried again soon.
const FLAGS: &[&str] = &[
    "--spiffe-key-overlap=1h",
    "--spiffe-x509-overlap=1h",
    "--max-retry-delay=2s",
];
const GROUPS: &[(Verifier, usize)] = &[(Verifier::Refetching, 3), (Verifier::CaFile, 3)];

/// A fleet that pulls with its first key.
struct Scene {
    controller: Controller,
    fleet: Fleet,
    old: Keys,
}

impl Scene {
    async fn new() -> Result<Self> {
        let env = Env::new().await?;
        let controller = env.controller(FLAGS).await?;
        let issuer = env.ports.issuer_url();
        let old = Keys::of(&env.ca)?;
        let mut fleet = Fleet::new(env, &issuer, "1s", GROUPS).await?;
        fleet.all_present(&old).await?;
        Ok(Self { controller, fleet, old })
    }

    /// Revokes the first key and its CA, and waits until they are not in the documents any more.
    async fn revoke(&self) -> Result<Timestamp> {
        let now = Timestamp::now();
        let ids = format!("{}, {}", self.old.kid, self.old.authority);
        self.fleet.env.annotate_signing_secret(REVOKE, &ids).await?;
        until_within(WITHIN, "the revoked keys leave the documents", async || {
            Ok(self.fleet.publishes(&self.old).await? == (false, false))
        })
        .await?;
        Ok(now)
    }

    /// Neither the documents nor any pull after `revoked` and its half minute knows the key.
    async fn is_gone(&mut self, revoked: Timestamp) -> Result<()> {
        assert_eq!(self.fleet.publishes(&self.old).await?, (false, false));
        self.fleet.look()?;
        let end = revoked.checked_add(WITHIN)?;
        for group in &self.fleet.groups {
            let last = group.seen.last_presented(group.key(&self.old)).context("never used")?;
            assert!(last <= end, "presented at {last}, revoked at {revoked}");
        }
        Ok(())
    }

    async fn restart(&self) -> Result<()> {
        self.controller.kill()?;
        self.controller.resume()?;
        self.controller.wait_ready().await
    }

    /// Puts the revoked key into the Secret again, without the annotation.
    async fn put_it_back(&self) -> Result<()> {
        let env = &self.fleet.env;
        env.remove_signing_secret_annotation(REVOKE).await?;
        env.sign_with(env.ca.key_and_certificate()).await?;
        for id in [&self.old.kid, &self.old.authority] {
            let text = format!("key {id} is revoked and not accepted again");
            env.event_saying(&env.installation.namespace, SIGNING_SECRET, "RevokedKeyInSecret", &text)
                .await?;
        }
        Ok(())
    }

    /// Every object makes another pass, which fails for want of a key that is not revoked.
    async fn nobody_can_mint(&self) -> Result<()> {
        let (env, namespace) = (&self.fleet.env, &self.fleet.namespace);
        for name in self.fleet.names() {
            env.reconcile(namespace, &name).await?;
            env.failed(namespace, &name, "CredentialNotConfigured", "is revoked")
                .await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_pending_successor_signs_at_once() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (new, _) = scene.fleet.rotate(&TestCa::new("next CA")?).await?;
    scene.fleet.published(&new).await?;
    scene.fleet.renew_ca_files().await?;
    scene.fleet.pulls(2).await?;
    assert!(scene.fleet.first_uses(&new).is_empty(), "it was not pending");

    let revoked = scene.revoke().await?;
    scene.fleet.all_present(&new).await?;
    scene.fleet.pull_content("with the successor").await?;
    scene.is_gone(revoked).await?;

    scene.restart().await?;
    scene.fleet.pulls(2).await?;
    scene.is_gone(revoked).await?;
    scene.put_it_back().await?;
    scene.fleet.pull_content("with the revoked key in the Secret").await?;
    scene.restart().await?;
    scene.fleet.pull_content("after another restart").await?;
    scene.is_gone(revoked).await
}

#[tokio::test]
async fn without_a_successor_nothing_is_minted_until_there_is_another_key() -> Result<()> {
    let mut scene = Scene::new().await?;
    let revoked = scene.revoke().await?;
    scene.nobody_can_mint().await?;
    scene.is_gone(revoked).await?;

    scene.restart().await?;
    scene.nobody_can_mint().await?;
    scene.put_it_back().await?;
    scene.nobody_can_mint().await?;
    scene.is_gone(revoked).await?;

    // Nobody trusts anything here any more, so that nothing is gained by waiting.
    let (new, _) = scene.fleet.rotate(&TestCa::new("next CA")?).await?;
    scene.fleet.published(&new).await?;
    scene.fleet.renew_ca_files().await?;
    scene.fleet.all_present(&new).await?;
    scene.fleet.pull_content("with another key").await?;
    scene.is_gone(revoked).await
}

#[tokio::test]
async fn a_successor_that_comes_with_the_revocation_signs_at_once() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (new, _) = scene.fleet.rotate(&TestCa::new("next CA")?).await?;
    let revoked = scene.revoke().await?;
    scene.fleet.published(&new).await?;
    scene.fleet.renew_ca_files().await?;
    scene.fleet.all_present(&new).await?;
    scene.fleet.pull_content("with the successor").await?;
    scene.is_gone(revoked).await
}
