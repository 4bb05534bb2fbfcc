//! What may go wrong in the middle of an overlap: the controller restarts, is killed or hands over, the signing Secret is
//! spoilt or deleted, the state cannot be written, a Secret changes while nobody looks. No pull fails, and no key signs
//! before it was published for its overlap, counted again by the process that ends it.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::Role;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use mintmark_hack::{
    controller::{Controller, Ports, SIGNING_SECRET},
    pki::TestCa,
};
use mintmark_tests::{
    env::Env,
    fleet::{Fleet, Keys, Verifier, not_before},
    front::Front,
    http::until_status,
};
use rstest::rstest;
use serde_json::json;

/// Twelve polls, and enough for a restart on a busy machine.
const OVERLAP: Duration = Duration::from_secs(12);
const FLAGS: &[&str] = &["--spiffe-key-overlap=12s", "--spiffe-x509-overlap=12s"];
/// As FLAGS, with replicas that notice quickly that another one is gone.
const REPLICATED: &[&str] = &[
    "--spiffe-key-overlap=12s",
    "--spiffe-x509-overlap=12s",
    "--enable-leader-election",
    "--leader-election-lease-duration=4s",
    "--leader-election-renew-deadline=3s",
    "--leader-election-retry-period=500ms",
];
/// Verifiers that trust nobody whom they were not told of in time.
const GROUPS: &[(Verifier, usize)] = &[(Verifier::Polling(1), 3), (Verifier::CaFile, 3)];
/// Pulls of each object, one a second: into the middle of an overlap.
const HALF: usize = 4;
/// Pulls of each object that take longer than an overlap.
const LONGER: usize = 16;

/// A fleet with a rotation under way.
struct Scene {
    fleet: Fleet,
    new: Keys,
    start: Timestamp,
}

impl Scene {
    /// Everybody pulls with the first key.
    async fn pulling(env: Env, issuer: &str) -> Result<Fleet> {
        let old = Keys::of(&env.ca)?;
        let mut fleet = Fleet::new(env, issuer, "1s", GROUPS).await?;
        fleet.all_present(&old).await?;
        Ok(fleet)
    }

    /// The next key is published, the registries with a CA file know it, and the middle of its overlap is reached.
    async fn in_an_overlap(env: Env, issuer: &str) -> Result<Self> {
        let mut fleet = Self::pulling(env, issuer).await?;
        let (new, start) = fleet.rotate(&TestCa::new("next CA")?).await?;
        fleet.published(&new).await?;
        fleet.renew_ca_files().await?;
        fleet.pulls(HALF).await?;
        Ok(Self { fleet, new, start })
    }

    /// Waits for the new key; it had to be published for an overlap after `from`.
    async fn end(mut self, from: Timestamp) -> Result<()> {
        self.fleet.all_present(&self.new).await?;
        not_before(&self.fleet.first_uses(&self.new), from, OVERLAP)?;
        self.fleet.pull_content("after the rotation").await?;
        self.fleet.no_failed_pull()
    }
}

enum End {
    Killed,
    Stopped,
}

async fn end(controller: &Arc<Controller>, how: End) -> Result<()> {
    let controller = controller.clone();
    // To stop takes the time for which documents are still served.
    tokio::task::spawn_blocking(move || match how {
        End::Killed => controller.kill(),
        End::Stopped => controller.stop(),
    })
    .await??;
    Ok(())
}

#[rstest]
#[case::killed(End::Killed)]
#[case::stopped(End::Stopped)]
#[tokio::test]
async fn a_restart_counts_the_overlap_again(#[case] how: End) -> Result<()> {
    let env = Env::new().await?;
    let controller = Arc::new(env.controller(FLAGS).await?);
    let issuer = env.ports.issuer_url();
    let scene = Scene::in_an_overlap(env, &issuer).await?;
    end(&controller, how).await?;
    let restarted = Timestamp::now();
    controller.resume()?;
    controller.wait_ready().await?;
    scene.end(restarted).await
}

#[tokio::test]
async fn a_secret_that_changes_while_no_controller_runs_is_staged_as_any_other() -> Result<()> {
    let env = Env::new().await?;
    let controller = Arc::new(env.controller(FLAGS).await?);
    let issuer = env.ports.issuer_url();
    let fleet = Scene::pulling(env, &issuer).await?;
    end(&controller, End::Killed).await?;
    let (new, _) = fleet.rotate(&TestCa::new("next CA")?).await?;
    let start = Timestamp::now();
    controller.resume()?;
    controller.wait_ready().await?;
    fleet.published(&new).await?;
    fleet.renew_ca_files().await?;
    Scene { fleet, new, start }.end(start).await
}

#[rstest]
#[case::killed(End::Killed)]
#[case::stopped(End::Stopped)]
#[tokio::test]
async fn another_leader_counts_the_overlap_again(#[case] how: End) -> Result<()> {
    let env = Env::new().await?;
    let second_ports = Ports::free()?;
    let issuer_of = |ports: Ports| ports.issuer_url().replace("http://", "");
    let service = Front::new(&issuer_of(env.ports)).await?;
    let issuer = format!("http://{}", service.address());
    env.leader_lease().await?;
    let first = Arc::new(env.replica_as(&issuer, env.ports, REPLICATED)?);
    first.wait_ready().await?;
    let second = env.replica_as(&issuer, second_ports, REPLICATED)?;
    let scene = Scene::in_an_overlap(env, &issuer).await?;
    // The follower publishes what is stored, and is not ready: it does not reconcile.
    until_status(&format!("{}/keys", second_ports.issuer_url()), 200).await?;
    assert_ne!(reqwest::get(second_ports.ready_url()).await?.status(), 200);
    // As a Service does with a pod that is not ready any more.
    service.lead_to(&issuer_of(second_ports))?;
    let change = Timestamp::now();
    end(&first, how).await?;
    second.wait_ready().await?;
    scene.end(change).await
}

#[tokio::test]
async fn a_spoilt_or_deleted_signing_secret_does_not_stop_a_rotation() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(FLAGS).await?;
    let issuer = env.ports.issuer_url();
    let scene = Scene::in_an_overlap(env, &issuer).await?;
    let env = &scene.fleet.env;
    env.edit_signing_secret("tls.key", "garbage").await?;
    env.event_saying(
        &env.installation.namespace,
        SIGNING_SECRET,
        "SigningSecretInvalid",
        "tls.key",
    )
    .await?;
    env.delete_signing_secret().await?;
    env.event_saying(
        &env.installation.namespace,
        SIGNING_SECRET,
        "SigningSecretInvalid",
        "does not exist",
    )
    .await?;
    let start = scene.start;
    scene.end(start).await
}

/// What the controller may do with the key ring's two Secrets.
async fn allow_state(env: &Env, verbs: &[&str]) -> Result<()> {
    let roles: Api<Role> = Api::namespaced(env.client.clone(), &env.installation.namespace);
    let patch = json!({"rules": [{
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": ["mintmark-issuer", "mintmark-issuer-ring"],
        "verbs": verbs,
    }]});
    let patched = roles
        .patch("mintmark-issuer-state", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    patched.rules.context("a Role without rules")?;
    Ok(())
}

#[tokio::test]
async fn nothing_moves_while_the_state_cannot_be_written() -> Result<()> {
    let env = Env::new().await?;
    let _controller = env.controller(FLAGS).await?;
    let issuer = env.ports.issuer_url();
    let mut fleet = Scene::pulling(env, &issuer).await?;
    allow_state(&fleet.env, &["get", "list", "watch"]).await?;
    let (new, _) = fleet.rotate(&TestCa::new("next CA")?).await?;
    let namespace = fleet.env.installation.namespace.clone();
    let told = fleet
        .env
        .event_saying(&namespace, SIGNING_SECRET, "KeyStoreFailed", "forbidden");
    told.await?;
    fleet.pulls(LONGER).await?;
    assert_eq!(
        fleet.publishes(&new).await?,
        (false, false),
        "published before it was stored"
    );
    let allowed = Timestamp::now();
    allow_state(&fleet.env, &["get", "list", "watch", "update"]).await?;
    fleet.published(&new).await?;
    fleet.renew_ca_files().await?;

    // The same when it is the switch that cannot be stored.
    allow_state(&fleet.env, &["get", "list", "watch"]).await?;
    fleet.pulls(LONGER).await?;
    assert!(fleet.first_uses(&new).is_empty(), "signed before that was stored");
    allow_state(&fleet.env, &["get", "list", "watch", "update"]).await?;
    Scene {
        fleet,
        new,
        start: allowed,
    }
    .end(allowed)
    .await
}
