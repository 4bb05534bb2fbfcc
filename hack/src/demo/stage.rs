//! Everything the demo starts, in the order in which it needs it, with a line for each step. What was started stays
//! reachable while a step is under way, so that an interruption ends it too.

use std::time::Instant;

use anyhow::{Context, Result};
use futures::future;

use super::{
    Options, Outcome,
    ledger::LABEL,
    registries::Registries,
    samples::{Samples, TRUST_DOMAIN},
    site::Site,
    verdict,
};
use crate::{
    controller::{self, Controller, Installation, Ports, SIGNING_SECRET},
    pki::TestCa,
    process, report,
};

/// The namespace of the demo's controller: not `mintmark-system`, which a given cluster may have already.
const NAMESPACE: &str = "mintmark-demo";

/// What runs.
pub struct Stage {
    started: Instant,
    site: Option<Site>,
    registries: Option<Registries>,
    controller: Option<Controller>,
}

impl Stage {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            site: None,
            registries: None,
            controller: None,
        }
    }

    fn step(&self, what: &str) {
        report::progress(format!("[{:5.1} s] {what}", self.started.elapsed().as_secs_f64()));
    }

    /// Starts everything, applies the samples, waits for them and judges them.
    pub async fn perform(&mut self, options: &Options) -> Result<Outcome> {
        let samples = Samples::load()?;
        self.open_site(options).await?;
        let (ca, ports) = (TestCa::new("mintmark demo")?, Ports::free()?);
        self.open_registries(options, &ca, ports, &samples).await?;
        self.run_controller(&ca, ports).await?;
        self.apply(&samples).await?;
        self.judge(&samples, options).await
    }

    async fn open_site(&mut self, options: &Options) -> Result<()> {
        let site = if let Some(kubeconfig) = &options.kubeconfig {
            self.step(&format!("using the cluster of {}", kubeconfig.display()));
            Site::given(kubeconfig).await?
        } else {
            self.step("starting etcd and kube-apiserver");
            Site::own().await?
        };
        self.step(&format!("the API server answers at {}", site.access().url()));
        self.site = Some(site);
        Ok(())
    }

    async fn open_registries(&mut self, options: &Options, ca: &TestCa, ports: Ports, samples: &Samples) -> Result<()> {
        self.step("starting two registries, one for tokens and one for client certificates");
        let issuers = vec![
            Registries::issuer(ports.issuer_url()),
            self.site()?.token_issuer().await?,
        ];
        let registries = self
            .registries
            .insert(Registries::start(options.trust, issuers, ca.pem())?);
        registries.seed(&samples.askers).await?;
        let owners = samples.askers.iter().filter(|it| it.is_owner()).count();
        self.step(&format!(
            "pushed an artifact for each of {owners} tenants; each may read its own"
        ));
        Ok(())
    }

    async fn run_controller(&mut self, ca: &TestCa, ports: Ports) -> Result<()> {
        self.step("applying config/crd, config/rbac, config/token-creator and a signing Secret (EC P-256 CA)");
        let site = self.site.as_mut().context("there is no cluster")?;
        site.apply(controller::objects(NAMESPACE)?).await?;
        controller::signing_secret(site.access(), NAMESPACE, ca.key_and_certificate()).await?;
        let installation = Installation::of(site.access(), NAMESPACE).await?;
        self.step(&format!("starting mintmark as ServiceAccount {NAMESPACE}/mintmark"));
        let flags = [
            format!("--watch-label-selector={}={}", LABEL.0, LABEL.1),
            format!("--spiffe-trust-domain={TRUST_DOMAIN}"),
            format!("--spiffe-issuer={}", ports.issuer_url()),
            format!("--spiffe-secret-name={SIGNING_SECRET}"),
        ];
        let flags = flags.each_ref().map(String::as_str);
        let controller = Controller::start(&installation, ports, &flags)?;
        self.controller.insert(controller).wait_ready().await
    }

    async fn apply(&mut self, samples: &Samples) -> Result<()> {
        self.step("applying config/samples");
        let registries = self.registries.as_ref().context("there are no registries")?;
        let objects = samples.placed(|host| registries.address(host), &registries.ca_pem())?;
        self.site.as_mut().context("there is no cluster")?.apply(objects).await
    }

    async fn judge(&self, samples: &Samples, options: &Options) -> Result<Outcome> {
        let client = self.site()?.access().client().await?;
        let registries = self.registries.as_ref().context("there are no registries")?;
        let verdicts = samples.askers.iter().map(async |sample| {
            let verdict = verdict::judge(&client, sample, registries, options.patience).await?;
            self.step(&format!("{}: Ready={}", verdict.object, verdict.ready.0));
            anyhow::Ok(verdict)
        });
        let verdicts = future::try_join_all(verdicts).await?;
        Ok(Outcome::Shown(verdicts))
    }

    fn site(&self) -> Result<&Site> {
        self.site.as_ref().context("there is no cluster")
    }

    /// Where everything is, for who wants to look around.
    pub fn addresses(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(site) = &self.site {
            lines.push(format!("KUBECONFIG={}", site.access().kubeconfig().display()));
            lines.push(format!("API server             {}", site.access().url()));
        }
        if let Some(registries) = &self.registries {
            let (tokens, certificates) = registries.origins();
            lines.push(format!("registry, tokens       {tokens}"));
            lines.push(format!("registry, certificates {certificates}"));
        }
        if let Some(controller) = &self.controller {
            let ports = controller.ports();
            lines.push(format!("artifacts              {}", ports.storage_url()));
            lines.push(format!("issuer                 {}", ports.issuer_url()));
            lines.push(format!("metrics                {}", ports.metrics_url()));
            lines.push(format!("controller's log       {}", controller.log_file().display()));
        }
        lines
    }

    /// Ends everything, what came last first, and waits for it. Returns the first error after trying all.
    pub async fn end(self) -> Result<()> {
        // By SIGKILL: after SIGTERM it would serve its documents for 15 s to registries that end now.
        let controller = self.controller.map_or(Ok(()), |it| it.kill().map(drop));
        let registries = self.registries.map_or(Ok(()), Registries::end);
        let site = match self.site {
            Some(site) => site.end().await,
            None => Ok(()),
        };
        // What a step had started when it was interrupted.
        process::wait_for_dropped();
        controller.and(registries).and(site).context("not everything was ended")
    }
}
