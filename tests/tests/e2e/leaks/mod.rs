//! What is *not* sent: no credential to a redirect's target, to a foreign realm or in the clear, and nothing anonymous in
//! place of a refused credential. The recorders of all registries are asked, and everything the controller wrote.

mod realms;
mod redirects;
mod refusals;

use anyhow::Result;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::future::try_join_all;
use kube::api::ListParams;
use mintmark_hack::controller::Controller;
use mintmark_tests::{
    env::Env,
    fault_registry::{Artifact, ClientAuth, FaultRegistry, Recorded, Verdict, sha256},
    secure::ServerCa,
    specs,
};
use serde_json::{Value, json};

pub(crate) const REPOSITORY: &str = "team/app";
/// Stands in every presigned query and exchanged token: it must be nowhere in what the controller writes.
pub(crate) const PLANTED: &str = "planted-secret";

pub(crate) fn artifact() -> Artifact {
    Artifact::flux(&[("app.yaml", "a: 1\n")])
}

/// A controller with one tenant, a registry that asks for certificates without insisting, and two strangers.
pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) controller: Controller,
    pub(crate) tenant: String,
    pub(crate) ca: ServerCa,
    /// What the objects name.
    pub(crate) registry: FaultRegistry,
    /// Another origin, over TLS; it asks for certificates too.
    pub(crate) store: FaultRegistry,
    /// Another origin, in the clear.
    pub(crate) clear: FaultRegistry,
}

impl World {
    pub(crate) async fn new() -> Result<Self> {
        let env = Env::new().await?;
        let controller = env.controller(&[]).await?;
        let tenant = env.tenant("leaks").await?;
        let ca = ServerCa::new(&env, &tenant).await?;
        env.service_account(&tenant, "puller").await?;
        let registry = ca.registry(ClientAuth::optional_pem(&[env.ca.pem()])).await;
        let store = ca.registry(ClientAuth::optional_pem(&[env.ca.pem()])).await;
        let clear = FaultRegistry::start(None).await;
        for server in [&registry, &store, &clear] {
            server.push(REPOSITORY, "v1", &artifact());
        }
        registry.set_gate(|request| {
            if has_identity(request) {
                Verdict::Allow
            } else {
                Verdict::Challenge(vec![])
            }
        });
        Ok(Self {
            env,
            controller,
            tenant,
            ca,
            registry,
            store,
            clear,
        })
    }

    /// Name and spec of an object per credential.
    pub(crate) fn objects(&self) -> [(&'static str, Value); 3] {
        let url = self.registry.url(REPOSITORY);
        let mut account = specs::secure_jwt(&url);
        account["credential"] = json!("ServiceAccountToken");
        account["serviceAccountName"] = json!("puller");
        [
            ("jwt", specs::secure_jwt(&url)),
            ("account", account),
            ("certificate", specs::certificate(&url)),
        ]
    }

    /// Creates an object per credential and waits until all failed with `reason` and `text`.
    pub(crate) async fn all_fail(&self, reason: &str, text: &str) -> Result<()> {
        try_join_all(self.objects().map(async |(name, spec)| {
            self.env.create(&self.tenant, name, spec).await?;
            self.env.failed(&self.tenant, name, reason, text).await?;
            self.env.event(&self.tenant, name, reason).await
        }))
        .await?;
        Ok(())
    }

    /// The tokens that the objects' own registry got.
    pub(crate) fn tokens(&self) -> Vec<String> {
        let requests = self.registry.requests();
        requests
            .iter()
            .filter_map(|request| token(request.authorization()?))
            .collect()
    }

    /// No stranger got anything that identifies anybody, and nothing the controller wrote holds a secret.
    pub(crate) async fn check(&self) -> Result<()> {
        let tokens = self.tokens();
        for stranger in [&self.store, &self.clear] {
            for connection in stranger.connections() {
                assert_eq!(
                    connection.client_certificate, None,
                    "a client certificate at a stranger"
                );
            }
            for request in stranger.requests() {
                for header in ["authorization", "proxy-authorization", "cookie", "referer"] {
                    assert_eq!(
                        request.header(header),
                        None,
                        "{header} at a stranger: {}",
                        request.target
                    );
                }
                assert!(
                    !tokens.iter().any(|token| request.contains(token)),
                    "a token at a stranger"
                );
            }
        }
        let written = self.written().await?;
        for (place, text) in &written {
            assert!(!text.contains(PLANTED), "{PLANTED} in {place}");
            assert!(!tokens.iter().any(|token| text.contains(token)), "a token in {place}");
        }
        Ok(())
    }

    /// Everything that the controller lets people read.
    async fn written(&self) -> Result<[(&'static str, String); 4]> {
        let metrics = reqwest::get(self.env.ports.metrics_url()).await?.text().await?;
        let objects = self.env.repositories(&self.tenant).list(&ListParams::default()).await?;
        let status: Vec<_> = objects.items.iter().map(|object| &object.status).collect();
        Ok([
            ("log", self.controller.log()?),
            ("metrics", metrics),
            ("events", serde_json::to_string(&self.env.events(&self.tenant).await?)?),
            ("status", serde_json::to_string(&status)?),
        ])
    }
}

pub(crate) fn has_identity(request: &Recorded) -> bool {
    request.connection.client_certificate.is_some() || request.authorization().is_some()
}

/// The token in an Authorization header: of Bearer, or the password of Basic.
pub(crate) fn token(authorization: &str) -> Option<String> {
    let (scheme, rest) = authorization.split_once(' ')?;
    if scheme == "Bearer" {
        return Some(rest.to_owned());
    }
    let plain = String::from_utf8(BASE64_STANDARD.decode(rest).ok()?).ok()?;
    Some(plain.split_once(':')?.1.to_owned())
}

pub(crate) fn blob_of(server: &FaultRegistry) -> String {
    let digest = sha256(&artifact().layer());
    format!(
        "{}/v2/{REPOSITORY}/blobs/{digest}?X-Signature={PLANTED}&X-Token={PLANTED}",
        server.origin()
    )
}
