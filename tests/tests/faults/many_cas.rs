//! Thousands of objects, each with a CA Secret of its own: what is kept per CA stays within `--registry-max-transports`, and
//! memory within what that and the connections stand for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mintmark_hack::pki::TestCa;
use mintmark_tests::{
    crowd,
    env::Env,
    fault_registry::{Artifact, ClientAuth},
    fleet::Observer,
    http::until_within,
    secure::ServerCa,
    specs::{secure_jwt, with},
};
use serde_json::json;

use super::setting;

/// How many unless `MINTMARK_CROWD` says otherwise.
const CROWD: usize = 600;
const LIMIT: usize = 256;
const READY: Duration = Duration::from_mins(8);
const MIB: f64 = 1024.0 * 1024.0;
/// What the process may hold beside what grows with the objects, and per object.
const MOST_MIB: f64 = 150.0;
const MOST_MIB_PER_OBJECT: f64 = 0.03;

/// The number in the first line of the metrics that begins with `name`.
fn metric(text: &str, name: &str) -> Result<f64> {
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .with_context(|| format!("no {name}"))?;
    Ok(line.rsplit(' ').next().context("a value")?.parse()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_for_every_object_stays_within_the_limits() -> Result<()> {
    let size = setting("MINTMARK_CROWD", CROWD)?;
    let env = Env::new().await?;
    let tenants = [env.tenant("ca-a").await?, env.tenant("ca-b").await?];
    let server = ServerCa::new(&env, &tenants[0]).await?;
    let registry = server.registry(ClientAuth::None).await;
    let artifact = Artifact::flux(&[("app.yaml", "content")]);
    registry.push("team/app", "v1", &artifact);
    let start = Instant::now();
    for tenant in &tenants {
        crowd::each(0..size / 2, async |index| {
            let (name, ca) = (
                format!("app-{index:05}"),
                TestCa::new(&format!("CA {index} of {tenant}"))?,
            );
            env.secret(tenant, &name, &[("ca.crt", &format!("{}{}", server.pem(), ca.pem()))])
                .await?;
            let spec = with(
                secure_jwt(&registry.url("team/app")),
                json!({"certSecretRef": {"name": name}, "interval": "1h"}),
            );
            env.create(tenant, &name, spec).await.map(drop)
        })
        .await?;
    }
    eprintln!("many CAs: {size} objects and Secrets made in {:?}", start.elapsed());
    let controller = env.controller(&["--log-level=error"]).await?;
    let (revision, start) = (format!("v1@{}", artifact.digest()), Instant::now());
    for tenant in &tenants {
        let observer = Observer::new(env.repositories(tenant));
        let wanted = (0..size / 2)
            .map(|index| (format!("app-{index:05}"), revision.clone()))
            .collect();
        crowd::ready_with(&observer, READY, &wanted).await?;
    }
    let ready = start.elapsed();
    let mut numbers = String::new();
    until_within(Duration::from_secs(30), "gauges of all objects", async || {
        numbers = env.metrics().await?;
        Ok(metric(&numbers, "mintmark_storage_objects")? >= (size / 2 * 2) as f64)
    })
    .await?;
    let transports = metric(&numbers, "mintmark_cache_entries{cache=\"transports\"}")?;
    let pools = metric(&numbers, "mintmark_cache_entries{cache=\"connections\"}")?;
    let resident = metric(&numbers, "process_resident_memory_bytes")? / MIB;
    eprintln!("many CAs: ready after {ready:?}; {transports} transports, {pools} pools, {resident:.0} MiB resident");
    assert!(transports <= LIMIT as f64, "{transports} transports");
    assert!(transports >= (LIMIT / 2) as f64, "the limit was reached");
    let most = MOST_MIB + MOST_MIB_PER_OBJECT * size as f64;
    assert!(resident < most, "{resident:.0} MiB resident");
    drop(controller);
    Ok(())
}
