//! A wall clock that is stepped under a running controller. No step makes a key sign before it was published for its overlap
//! by the monotonic clock; and while the clock is wrong by more than a minute, nothing moves.

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use mintmark_hack::{
    controller::{Controller, SIGNING_SECRET},
    pki::TestCa,
};
use mintmark_tests::{
    clock::WallClock,
    env::Env,
    fleet::{Fleet, Keys, Verifier, not_before},
};

const OVERLAP: Duration = Duration::from_secs(8);
const FLAGS: &[&str] = &["--spiffe-key-overlap=8s", "--spiffe-x509-overlap=8s"];
/// Tokens only: a certificate of the future is refused whoever signed it, go-oidc takes a token of the next five minutes.
const GROUPS: &[(Verifier, usize)] = &[(Verifier::Polling(1), 3)];

struct Scene {
    _controller: Controller,
    clock: WallClock,
    fleet: Fleet,
}

impl Scene {
    async fn new() -> Result<Self> {
        let (env, clock) = (Env::new().await?, WallClock::new()?);
        let controller = env.start_with(&clock.environment(), FLAGS)?;
        controller.wait_ready().await?;
        let issuer = env.ports.issuer_url();
        let old = Keys::of(&env.ca)?;
        let mut fleet = Fleet::new(env, &issuer, "1s", GROUPS).await?;
        fleet.all_present(&old).await?;
        Ok(Self {
            _controller: controller,
            clock,
            fleet,
        })
    }
}

#[tokio::test]
async fn a_clock_that_steps_ahead_does_not_shorten_an_overlap() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (new, start) = scene.fleet.rotate(&TestCa::new("next CA")?).await?;
    scene.fleet.published(&new).await?;
    scene.fleet.pulls(2).await?;
    scene.clock.step_to(40)?;
    scene.fleet.all_present(&new).await?;
    not_before(&scene.fleet.first_uses(&new), start, OVERLAP)?;
    scene.fleet.pull_content("ahead").await?;
    scene.fleet.no_failed_pull()
}

#[tokio::test]
async fn a_clock_that_steps_back_lengthens_an_overlap() -> Result<()> {
    const BACK: i64 = 15;
    // A second less than overlap and step: stored times may have no fractions.
    const LENGTHENED: Duration = Duration::from_secs(22);
    let mut scene = Scene::new().await?;
    let (new, start) = scene.fleet.rotate(&TestCa::new("next CA")?).await?;
    scene.fleet.published(&new).await?;
    scene.fleet.pulls(2).await?;
    scene.clock.step_to(-BACK)?;
    scene.fleet.all_present(&new).await?;
    not_before(&scene.fleet.first_uses(&new), start, LENGTHENED)?;
    scene.fleet.pull_content("back").await?;
    scene.fleet.no_failed_pull()
}

#[tokio::test]
async fn nothing_moves_while_the_clock_is_wrong() -> Result<()> {
    let mut scene = Scene::new().await?;
    let (new, _) = scene.fleet.rotate(&TestCa::new("next CA")?).await?;
    scene.fleet.published(&new).await?;
    scene.clock.step_to(120)?;
    let env = &scene.fleet.env;
    let told = "the clock differs too much from the API server's";
    env.event_saying(&env.installation.namespace, SIGNING_SECRET, "ClockSkew", told)
        .await?;
    scene.fleet.pulls(12).await?;
    assert!(scene.fleet.first_uses(&new).is_empty(), "a key signed by a wrong clock");
    let right = Timestamp::now();
    scene.clock.step_to(0)?;
    scene.fleet.all_present(&new).await?;
    not_before(&scene.fleet.first_uses(&new), right, Duration::ZERO)?;
    scene.fleet.pull_content("right again").await?;
    scene.fleet.no_failed_pull()
}
