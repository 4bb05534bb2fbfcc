//! One pass of one object at its registry: resolving a revision, fetching its manifest, streaming its blob.
//!
//! Takes a permit of the registry's host and then a worker slot before the first request, gives both back while it waits
//! between attempts, and keeps all its I/O within one time budget.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Method;
use mintmark_api::digest::Digest;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, timeout, timeout_at},
};
use url::Url;

use super::{
    Shared,
    body::{Answer, Body},
    config::RetryPolicy,
    error::{Failure, InvalidContent, RegistryError},
    hash,
    manifest::{self, Descriptor, Document, ResolvedManifest},
    permits::Permit,
    proxy::ProxySettings,
    tls::CaBundle,
    url::{Origin, RepositoryUrl},
};
use crate::credential::{CertificateCredential, CredentialSource, Presented};

/// How long a session waits for a worker slot. If none is free by then, those who have them wait for registries that do not
/// answer: they leave the processor alone, and nobody has to wait for them.
const WORKER_PATIENCE: Duration = Duration::from_secs(1);

/// Called before a session waits for its next attempt: with the cause and the length of the wait.
pub type WaitListener = Arc<dyn Fn(&RegistryError, Duration) + Send + Sync>;

/// What one pass needs to know of its object.
#[derive(Clone)]
pub struct SessionSpec {
    /// `spec.url`.
    pub url: RepositoryUrl,
    /// `spec.insecure`: plain HTTP.
    pub insecure: bool,
    /// Additional roots.
    pub ca: Option<CaBundle>,
    /// Presented to the registry's own origin whatever else is: the user's own client certificate. A minted one takes its
    /// place.
    pub client_certificate: Option<CertificateCredential>,
    /// The proxy to go through, in place of the environment's.
    pub proxy: Option<ProxySettings>,
    /// UID of the object: owner of its certificate's connections and of exchanged tokens.
    pub object_uid: Arc<str>,
    /// Namespace of the object: the unit of fairness.
    pub namespace: Arc<str>,
    /// `spec.timeout`: budget of all registry I/O, counted from the moment the first permit is had.
    pub timeout: Duration,
    /// Told before each wait between attempts.
    pub on_wait: Option<WaitListener>,
}

/// One pass at a registry; see the module.
pub struct Session {
    pub(super) client: Arc<Shared>,
    pub(super) spec: SessionSpec,
    pub(super) source: Arc<dyn CredentialSource>,
    pub(super) origin: Origin,
    /// Whether the registry was last seen at a private address, which lets it name other private ones.
    pub(super) private: bool,
    host: Arc<str>,
    started: Option<Instant>,
    slot: Option<Slot>,
}

struct Slot {
    _worker: Option<OwnedSemaphorePermit>,
    _permit: Permit,
}

/// One request as the distribution specification names it.
pub(super) struct Call {
    pub(super) method: Method,
    /// Path below `/v2/<repository>/`.
    pub(super) path: String,
    pub(super) accept: Option<&'static str>,
    /// First byte wanted, when not all are.
    pub(super) from: u64,
    /// Where it goes when that is more than the path: a page of a list, on the registry's own origin.
    pub(super) target: Option<Url>,
}

impl Call {
    fn manifest(method: Method, reference: &str) -> Self {
        Self {
            method,
            path: format!("manifests/{reference}"),
            accept: Some(manifest::ACCEPT),
            from: 0,
            target: None,
        }
    }

    pub(super) fn blob(digest: &Digest) -> Self {
        Self {
            method: Method::GET,
            path: format!("blobs/{digest}"),
            accept: None,
            from: 0,
            target: None,
        }
    }
}

impl Session {
    pub(super) fn new(client: Arc<Shared>, spec: SessionSpec, source: Arc<dyn CredentialSource>) -> Self {
        let origin = spec.url.origin(spec.insecure);
        let private = origin
            .literal()
            .is_some_and(|address| client.pools.addresses().is_private(address));
        let host = origin.host_port().into();
        Self {
            client,
            spec,
            source,
            origin,
            private,
            host,
            started: None,
            slot: None,
        }
    }

    /// The certificate of connections to the registry's own origin.
    pub(super) fn certificate(&self, presented: &Presented) -> Option<CertificateCredential> {
        match presented {
            Presented::Certificate(certificate) => Some(certificate.clone()),
            _ => self.spec.client_certificate.clone(),
        }
    }

    /// Whether nothing at all says who asks.
    pub(super) fn is_anonymous(&self, presented: &Presented) -> bool {
        matches!(presented, Presented::Anonymous) && self.spec.client_certificate.is_none()
    }

    /// Waits for a permit of the registry's host, then for a worker slot, though not for long. The budget starts when the first permit is had.
    /// Every operation does this by itself; call it first to wait before other work of the pass.
    pub async fn enter(&mut self) {
        if self.slot.is_some() {
            return;
        }
        let permit = self.client.permits.acquire(&self.host, &self.spec.namespace).await;
        let worker = match &self.client.config.workers {
            // A closed semaphore means shutdown: nothing is left to be fair about.
            Some(workers) => {
                let slot = timeout(WORKER_PATIENCE, Arc::clone(workers).acquire_owned()).await;
                slot.ok().and_then(Result::ok)
            }
            None => None,
        };
        self.slot = Some(Slot {
            _worker: worker,
            _permit: permit,
        });
        self.started.get_or_insert_with(Instant::now);
    }

    /// Gives back permit and worker slot, for work of the pass that needs no registry.
    pub fn leave(&mut self) {
        self.slot = None;
    }

    /// The digest a tag points to: one HEAD, or a GET where the answer to HEAD does not name it.
    pub async fn resolve(&mut self, tag: &str) -> Result<Digest, RegistryError> {
        if let Some(digest) = self.head(tag).await? {
            return Ok(digest);
        }
        let call = Call::manifest(Method::GET, tag);
        let (bytes, _) = self.document(&call, None).await?;
        Ok(hash::sha256(&bytes))
    }

    /// The manifest with this digest; of an index the `linux/amd64` child, else its only one.
    pub async fn manifest(&mut self, revision: &Digest) -> Result<ResolvedManifest, RegistryError> {
        let call = Call::manifest(Method::GET, revision.as_str());
        let (_, document) = self.document(&call, Some(revision)).await?;
        match document {
            Document::Image(image) => self.resolved(&call, *image, revision, revision.clone()),
            Document::Index(index) => {
                let child = manifest::choose(&index).map_err(|error| self.error(&call, error.into()))?;
                self.child(revision, &child).await
            }
        }
    }

    async fn child(&mut self, revision: &Digest, child: &Descriptor) -> Result<ResolvedManifest, RegistryError> {
        let call = Call::manifest(Method::GET, child.digest.as_str());
        let (bytes, document) = self.document(&call, Some(&child.digest)).await?;
        if bytes.len() as u64 != child.size {
            let wrong = InvalidContent::Length {
                what: "manifest",
                declared: child.size,
            };
            return Err(self.error(&call, wrong.into()));
        }
        match document {
            Document::Image(image) => self.resolved(&call, *image, revision, child.digest.clone()),
            Document::Index(_) => Err(self.error(&call, InvalidContent::NestedIndex.into())),
        }
    }

    fn resolved(
        &self,
        call: &Call,
        image: oci_distribution::manifest::OciImageManifest,
        revision: &Digest,
        digest: Digest,
    ) -> Result<ResolvedManifest, RegistryError> {
        manifest::resolve(image, revision.clone(), digest).map_err(|error| self.error(call, error.into()))
    }

    /// HEAD of a manifest; none when the registry cannot do that or does not tell the digest.
    async fn head(&mut self, reference: &str) -> Result<Option<Digest>, RegistryError> {
        let call = Call::manifest(Method::HEAD, reference);
        let mut retries = Retries::default();
        loop {
            self.enter().await;
            match self.send(&call).await {
                Ok(answer) => {
                    let digest = answer.response.headers().get("docker-content-digest");
                    return Ok(digest.and_then(|digest| Digest::parse(digest.to_str().ok()?).ok()));
                }
                Err(Failure::UnexpectedStatus { status: 405 | 501 }) => return Ok(None),
                Err(failure) => self.wait(&mut retries, &call, failure).await?,
            }
        }
    }

    /// GET of a manifest document, its hash checked against `expected`.
    async fn document(&mut self, call: &Call, expected: Option<&Digest>) -> Result<(Vec<u8>, Document), RegistryError> {
        let mut retries = Retries::default();
        loop {
            self.enter().await;
            match self.try_document(call, expected).await {
                Ok(found) => return Ok(found),
                Err(failure) => self.wait(&mut retries, call, failure).await?,
            }
        }
    }

    async fn try_document(&mut self, call: &Call, expected: Option<&Digest>) -> Result<(Vec<u8>, Document), Failure> {
        let answer = self.send(call).await?;
        let content_type = answer.response.headers().get(http::header::CONTENT_TYPE);
        let content_type = content_type.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let bytes = self
            .body(answer)
            .read("manifest", self.client.config.manifest_max_size)
            .await?;
        if expected.is_some_and(|expected| !hash::matches(&bytes, expected)) {
            // A web page in place of a manifest is better named than its hash.
            manifest::parse(&bytes, content_type.as_deref())?;
            return Err(InvalidContent::Digest { what: "manifest" }.into());
        }
        let document = manifest::parse(&bytes, content_type.as_deref())?;
        Ok((bytes, document))
    }

    pub(super) fn body(&self, answer: Answer) -> Body {
        Body::new(answer, &self.client.config, self.deadline())
    }

    /// When the budget ends.
    pub(super) fn deadline(&self) -> Instant {
        self.started.unwrap_or_else(Instant::now) + self.spec.timeout
    }

    pub(super) fn error(&self, call: &Call, failure: Failure) -> RegistryError {
        let repository = self.spec.url.repository();
        RegistryError::new(
            format!("{} {}/v2/{repository}/{}", call.method, self.origin, call.path),
            failure,
        )
    }

    /// Waits before the next attempt, holding nothing; or returns the error when there is none to be made, or none in time.
    pub(super) async fn wait(
        &mut self,
        retries: &mut Retries,
        call: &Call,
        failure: Failure,
    ) -> Result<(), RegistryError> {
        let delay = retries.next(&self.client.config.retry, &failure);
        let error = self.error(call, failure);
        let Some(delay) = delay.filter(|delay| Instant::now() + *delay < self.deadline()) else {
            return Err(error);
        };
        self.pause_and_enter(error, delay).await
    }

    /// Sleeps without permit and worker slot, then takes them again; fails with `error` when there are none in time.
    pub(super) async fn pause_and_enter(&mut self, error: RegistryError, delay: Duration) -> Result<(), RegistryError> {
        self.leave();
        if let Some(listener) = &self.spec.on_wait {
            listener(&error, delay);
        }
        sleep(delay).await;
        // Waiting for the permit counts once the budget runs.
        timeout_at(self.deadline(), self.enter()).await.map_err(|_| error)
    }

    pub(super) fn now() -> SystemTime {
        SystemTime::now()
    }
}

/// Counts the attempts of one request.
#[derive(Default)]
pub(super) struct Retries {
    made: usize,
}

impl Retries {
    /// The wait before the next attempt, none when the failure is final.
    pub(super) fn next(&mut self, policy: &RetryPolicy, failure: &Failure) -> Option<Duration> {
        if !failure.is_momentary() {
            return None;
        }
        let delay = *policy.delays.get(self.made)?;
        self.made += 1;
        match failure.retry_after() {
            Some(asked) => (asked <= policy.retry_after_max).then_some(asked),
            None => Some(vary(delay, policy.jitter)),
        }
    }
}

/// `delay` by up to `share` of itself longer or shorter.
pub(super) fn vary(delay: Duration, share: f64) -> Duration {
    let share = share.clamp(0.0, 1.0);
    delay.mul_f64(rand::random_range(1.0 - share..=1.0 + share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_attempts_then_final() {
        let (policy, mut retries) = (RetryPolicy::default(), Retries::default());
        let first = retries.next(&policy, &Failure::ConnectionLost).unwrap();
        assert!((0.9..=1.1).contains(&first.as_secs_f64()), "{first:?}");
        let second = retries.next(&policy, &Failure::Unreachable).unwrap();
        assert!((2.7..=3.3).contains(&second.as_secs_f64()), "{second:?}");
        assert_eq!(retries.next(&policy, &Failure::Unreachable), None);
    }

    #[test]
    fn retry_after_is_obeyed_up_to_a_minute() {
        let policy = RetryPolicy::default();
        let limited = |seconds| Failure::RateLimited {
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(
            Retries::default().next(&policy, &limited(60)),
            Some(Duration::from_mins(1))
        );
        assert_eq!(Retries::default().next(&policy, &limited(61)), None);
    }

    #[test]
    fn other_client_errors_are_final() {
        let policy = RetryPolicy::default();
        for failure in [
            Failure::Denied,
            Failure::NotFound { code: None },
            Failure::UnexpectedStatus { status: 400 },
        ] {
            assert_eq!(Retries::default().next(&policy, &failure), None);
        }
    }
}
