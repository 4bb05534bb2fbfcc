//! Connections that send nothing, or half a header, on the issuer's port: they hold up neither the documents nor the pulls.

use anyhow::Result;
use futures::future::try_join_all;
use mintmark_tests::{
    documents::read_all,
    env::Env,
    fault_registry::{Artifact, FaultRegistry},
    http::until,
    specs,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// Twice as many as the port has places.
const FLOOD: usize = 2_000;

/// Passes that are waited for while the flood stands.
const PASSES: usize = 3;

#[tokio::test]
async fn a_flood_of_half_open_connections_holds_up_neither_documents_nor_pulls() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )?;
    let env = Env::new().await?;
    let _controller = env.controller(&[]).await?;
    let tenant = env.tenant("a").await?;
    let registry = FaultRegistry::start(None).await;
    registry.push("team/app", "v1", &Artifact::flux(&[("a.yaml", "a")]));
    let mut spec = specs::jwt(&format!("oci://{}/team/app", registry.host()));
    spec["interval"] = json!("1s");
    env.create(&tenant, "app", spec).await?;
    env.ready(&tenant, "app").await?;

    let origin = env.ports.issuer_url();
    let address = origin.replace("http://", "");
    let flood = try_join_all((0..FLOOD).map(|index| {
        let address = &address;
        async move {
            let mut stream = TcpStream::connect(address).await?;
            if index % 2 == 0 {
                // One that was pushed out already resets this.
                let _ = stream.write_all(b"GET /keys HT").await;
            }
            Ok::<_, std::io::Error>(stream)
        }
    }))
    .await?;

    let client = reqwest::Client::builder().no_proxy().build()?;
    read_all(&client, &origin).await?;
    let before = registry.requests().len();
    until("pulls at the interval", || async {
        read_all(&client, &origin).await?;
        Ok(registry.requests().len() >= before + PASSES)
    })
    .await?;
    let cut = reqwest::get(env.ports.metrics_url()).await?.text().await?;
    let label = "mintmark_server_connections_cut_total{server=\"issuer\",reason=\"evicted\"}";
    assert!(cut.contains(label), "nobody was pushed out: {cut}");
    drop(flood);
    Ok(())
}
