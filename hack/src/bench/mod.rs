//! `cargo xtask bench`: what fleets, scans and policies of images, a large store, mintings and the documents cost, as a table
//! and as JSON. Numbers are
//! compared, never asserted: they belong to the machine they were measured on.

mod documents;
mod fleet;
mod image_rows;
mod mint;
mod objects;
mod observe;
mod policies;
mod rig;
mod rows;
mod scans;
mod store;
mod table;
mod tag_registry;
mod usage;

use std::{env, path::PathBuf, time::Duration};

use anyhow::Result;
use serde::Serialize;

use crate::{
    cluster::{Cluster, ClusterOptions},
    controller::{self, install},
    report, servers,
    workspace::{cargo, execute, root},
};
use documents::{DocumentsReport, Load};
use fleet::{Fleet, FleetReport};
use mint::MintRate;
use policies::{Policies, PoliciesReport};
use rig::Presents;
use scans::{Scans, ScansReport};
use store::StoreReport;

/// Fleets with credentials, and scans, are observed for this part of the time for which anonymous fleets are.
const SHARE: u32 = 3;

/// What is measured. Without options: all but the cold start of 10,000 objects, in about ten minutes after the build.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchOptions {
    /// Measure only this; repeatable.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Objects of each anonymous fleet; the largest of up to 1,000 is the one with a steady state, and its size that of the
    /// fleets with credentials.
    #[arg(long, value_delimiter = ',', default_value = "100,1000")]
    objects: Vec<usize>,
    /// Interval of the objects in seconds.
    #[arg(long, default_value_t = 10)]
    interval: u64,
    /// Seconds of steady state to observe; with credentials, and of scans, a third of it.
    #[arg(long, default_value_t = 180)]
    steady: u64,
    /// What the fleets present.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "nothing,jwt,certificate")]
    presents: Vec<Presents>,
    /// Objects of the large store.
    #[arg(long, default_value_t = 50_000)]
    stored: usize,
    /// ImageRepositories that are scanned, and ImagePolicies on one of them.
    #[arg(long, default_value_t = 1000)]
    images: usize,
    /// Tags of their image.
    #[arg(long, default_value_t = 1000)]
    tags: usize,
    /// Tags of the image with many.
    #[arg(long, default_value_t = 100_000)]
    many_tags: usize,
    /// Measure this controller instead of building one, for a comparison.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Requests per second that are offered to the document server.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Connections that they come over.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// For how many seconds.
    #[arg(long, default_value_t = 20)]
    load: u64,
}

/// A part of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Mint rates of the issuer.
    Mint,
    /// Cold starts and steady states.
    Fleet,
    /// Scans of images.
    Scan,
    /// Policies of one image, and a new tag of it.
    Policies,
    /// Memory of a store of many objects.
    Store,
    /// The document server at a fixed rate.
    Documents,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    mint: Vec<MintRate>,
    fleets: Vec<FleetReport>,
    scans: Option<ScansReport>,
    policies: Option<PoliciesReport>,
    store: Option<StoreReport>,
    documents: Option<DocumentsReport>,
}

/// Builds the controller for release, measures, and prints.
pub fn run(options: &BenchOptions) -> Result<()> {
    report::heading("building");
    servers::ensure()?;
    controller::use_binary(options.binary.clone().map_or_else(release_binary, Ok)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut bench = Report::default();
    if options.has(Part::Mint) {
        report::heading("mint rates");
        bench.mint = mint::rates()?;
    }
    if options.has(Part::Fleet) {
        for fleet in options.fleets() {
            report::heading(format!("{} objects, {}", fleet.objects, fleet.presents.title()));
            bench.fleets.push(runtime.block_on(fleet::run(fleet))?);
        }
    }
    if options.has(Part::Scan) {
        report::heading(format!("scans of {} images", options.images));
        bench.scans = Some(runtime.block_on(scans::run(options.scans()))?);
    }
    if options.has(Part::Policies) {
        report::heading(format!("{} policies", options.images));
        let policies = Policies {
            objects: options.images,
            tags: options.tags,
        };
        bench.policies = Some(runtime.block_on(policies::run(policies))?);
    }
    if options.has(Part::Store) {
        report::heading(format!("a store of {} objects", options.stored));
        bench.store = Some(runtime.block_on(store::run(options.stored))?);
    }
    if options.has(Part::Documents) {
        report::heading("documents");
        bench.documents = Some(runtime.block_on(measure_documents(options))?);
    }
    report::heading("result");
    rows::print(&bench);
    report::line(serde_json::to_string(&bench)?);
    Ok(())
}

impl BenchOptions {
    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn scans(&self) -> Scans {
        Scans {
            objects: self.images,
            tags: self.tags,
            many: self.many_tags,
            interval: Duration::from_secs(self.interval),
            steady: Duration::from_secs(self.steady) / SHARE,
        }
    }

    fn fleets(&self) -> Vec<Fleet> {
        let steady = Duration::from_secs(self.steady);
        let largest = self.objects.iter().copied().filter(|objects| *objects <= 1000).max();
        let fleet = |presents, objects, steady| Fleet {
            presents,
            objects,
            interval: Duration::from_secs(self.interval),
            steady,
        };
        let mut fleets = Vec::new();
        for presents in &self.presents {
            if *presents == Presents::Nothing {
                let sizes = self.objects.iter().copied();
                fleets.extend(sizes.map(|size| fleet(*presents, size, (Some(size) == largest).then_some(steady))));
            } else if let Some(size) = largest {
                fleets.push(fleet(*presents, size, Some(steady / SHARE)));
            }
        }
        fleets
    }
}

fn release_binary() -> Result<PathBuf> {
    execute(cargo().args(["build", "--release", "--package", "mintmark", "--bin", "mintmark"]))?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder));
    Ok(target.join("release").join("mintmark"))
}

async fn measure_documents(options: &BenchOptions) -> Result<DocumentsReport> {
    let cluster = Cluster::start(ClusterOptions::default()).await?;
    let installation = install(&cluster, "mintmark-system").await?;
    let load = Load {
        rate: options.rate,
        connections: options.connections,
        duration: Duration::from_secs(options.load),
    };
    let report = documents::run(&cluster, &installation, load).await?;
    cluster.end()?;
    Ok(report)
}
