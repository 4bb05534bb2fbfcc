//! An issuing task with two Secrets in memory, a leadership and clocks that the test sets, and everything it tells.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD as STANDARD};
use http::{HeaderMap, HeaderValue, header::DATE};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use mintmark_issuer::{
    Authority, AuthorityError, Documents, IssuerUrl, KeyUses, LoadOptions, RingPolicy, SigningSecret, SigningSet,
    StoredState, TrustDomain,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use super::super::{
    Annotations, Change, Held, Inputs, IoError, Issuing, IssuingTask, News, RingStore, SecretData, SecretIo,
    ServerClock, Which,
};
use crate::{
    runtime::{
        lease::{LeaderState, Leadership},
        metrics::Metrics,
    },
    watch::SigningReading,
};

/// The overlap of the rig's JWT keys.
pub(super) const OVERLAP: Duration = Duration::from_mins(5);

/// One request that the API server got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Request {
    Get(Which),
    Put(Which),
}

/// The API server.
#[derive(Clone)]
pub(super) struct Server(Arc<Mutex<Inner>>);

pub(super) struct Inner {
    secrets: BTreeMap<&'static str, Held>,
    version: u64,
    /// What the next requests of a kind are answered with.
    failures: Vec<(Request, VecDeque<IoError>)>,
    requests: Vec<Request>,
    /// While set, nothing is answered.
    is_down: bool,
    /// The server's clock minus ours.
    ahead: SignedDuration,
    clock: Arc<ServerClock>,
    wall: Wall,
    changes: mpsc::Sender<Change>,
}

/// Wall time that passes with tokio's paused clock.
#[derive(Clone)]
pub(super) struct Wall {
    base: Timestamp,
    start: Instant,
}

impl Wall {
    pub(super) fn now(&self) -> Timestamp {
        self.base + self.start.elapsed()
    }
}

impl Server {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Somebody with kubectl replaces the data; `None` deletes the Secret.
    pub(super) fn set(&self, which: Which, data: Option<SecretData>) {
        let mut inner = self.lock();
        if let Some(data) = data {
            inner.replace(which, data);
        } else {
            inner.secrets.remove(which.name());
            inner.tell(which, None);
        }
    }

    pub(super) fn data(&self, which: Which) -> SecretData {
        self.lock()
            .secrets
            .get(which.name())
            .map(|held| held.data.clone())
            .unwrap_or_default()
    }

    /// The stored state.
    pub(super) fn state(&self) -> Option<StoredState> {
        let data = self.data(Which::State);
        let fields = data.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        let now = self.lock().wall.now();
        StoredState::from_data(fields, now).unwrap()
    }

    pub(super) fn fail(&self, request: Request, errors: impl IntoIterator<Item = IoError>) {
        self.lock().failures.push((request, errors.into_iter().collect()));
    }

    pub(super) fn set_down(&self, is_down: bool) {
        self.lock().is_down = is_down;
    }

    pub(super) fn set_ahead(&self, seconds: i64) {
        self.lock().ahead = SignedDuration::from_secs(seconds);
    }

    /// The requests since the last call.
    pub(super) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.lock().requests)
    }
}

impl Inner {
    pub(super) fn clear_failures(&mut self) {
        self.failures.clear();
    }

    fn replace(&mut self, which: Which, data: SecretData) -> Held {
        self.version += 1;
        let version = self.version.to_string();
        let mut frame = Secret::default();
        frame.metadata.resource_version = Some(version.clone());
        let held = Held { frame, data };
        self.secrets.insert(which.name(), held.clone());
        self.tell(which, Some(version));
        held
    }

    fn tell(&self, which: Which, version: Option<String>) {
        // A watch that nobody reads in time is read anew; here nobody is that slow.
        self.changes.try_send(Change { which, version }).unwrap();
    }

    fn answer(&mut self, request: Request) -> Result<(), IoError> {
        self.requests.push(request);
        let (Request::Get(which) | Request::Put(which)) = request;
        if self.is_down {
            let (name, message) = (which.name(), "down".to_owned());
            return Err(IoError::Unreachable { name, message });
        }
        let date = httpdate::fmt_http_date((self.wall.now() + self.ahead).into());
        let headers = HeaderMap::from_iter([(DATE, HeaderValue::try_from(date).unwrap())]);
        self.clock.observe(&headers);
        let planned = self
            .failures
            .iter_mut()
            .find(|(of, errors)| *of == request && !errors.is_empty());
        planned.and_then(|(_, errors)| errors.pop_front()).map_or(Ok(()), Err)
    }
}

impl SecretIo for Server {
    async fn get(&self, which: Which) -> Result<Held, IoError> {
        let mut inner = self.lock();
        inner.answer(Request::Get(which))?;
        let held = inner.secrets.get(which.name());
        held.cloned().ok_or(IoError::Missing(which.name()))
    }

    async fn put(&self, which: Which, frame: Secret, data: SecretData) -> Result<Held, IoError> {
        let mut inner = self.lock();
        inner.answer(Request::Put(which))?;
        let held = inner.secrets.get(which.name()).ok_or(IoError::Missing(which.name()))?;
        if held.version() != frame.metadata.resource_version.as_deref() {
            return Err(IoError::Conflict(which.name()));
        }
        Ok(inner.replace(which, data))
    }
}

/// A task and all its ends.
pub(super) struct Rig {
    pub(super) server: Server,
    pub(super) leadership: Leadership,
    pub(super) issuing: Issuing,
    readings: mpsc::Sender<SigningReading>,
    news: Arc<Mutex<Vec<News>>>,
    task: JoinHandle<()>,
    changes: mpsc::Receiver<Change>,
    forward: mpsc::Sender<Change>,
    pub(super) metrics: Metrics,
}

impl Rig {
    /// Both Secrets are there and empty; the task leads.
    pub(super) fn new() -> Self {
        let (sender, changes) = mpsc::channel(1_000);
        let wall = Wall {
            base: Timestamp::now(),
            start: Instant::now(),
        };
        let server = Server(Arc::new(Mutex::new(Inner {
            secrets: BTreeMap::new(),
            version: 0,
            failures: Vec::new(),
            requests: Vec::new(),
            is_down: false,
            ahead: SignedDuration::ZERO,
            clock: Arc::default(),
            wall,
            changes: sender,
        })));
        server.set(Which::State, Some(SecretData::new()));
        server.set(Which::Ring, Some(SecretData::new()));
        Self::start(server, changes, Leadership::always())
    }

    fn start(server: Server, changes: mpsc::Receiver<Change>, leadership: Leadership) -> Self {
        let (readings, readings_receiver) = mpsc::channel(8);
        let (forward, changes_receiver) = mpsc::channel(1_000);
        let wall = server.lock().wall.clone();
        let inputs = Inputs {
            readings: readings_receiver,
            changes: changes_receiver,
            leadership: leadership.clone(),
            clock: server.lock().clock.clone(),
            wall: Arc::new(move || wall.now()),
        };
        let leads = leadership.clone();
        let store = RingStore::new(server.clone(), Arc::new(move || leads.is_leading()));
        let news = Arc::<Mutex<Vec<News>>>::default();
        let told = news.clone();
        let on_news = Box::new(move |news: &News| told.lock().unwrap().push(news.clone()));
        let metrics = Metrics::new(false, 0);
        let (task, issuing) = IssuingTask::new(policy(), store, inputs, on_news, metrics.clone());
        Self {
            server,
            leadership,
            issuing,
            readings,
            news,
            task: tokio::spawn(task.run()),
            changes,
            forward,
            metrics,
        }
    }

    /// The process ends and another one begins with what is stored.
    pub(super) fn restart(self) -> Self {
        self.restart_as(Leadership::always())
    }

    pub(super) fn restart_as(self, leadership: Leadership) -> Self {
        self.task.abort();
        Self::start(self.server, self.changes, leadership)
    }

    pub(super) async fn read(&self, outcome: Result<Arc<Authority>, AuthorityError>, annotations: &[(&str, &str)]) {
        let annotations = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let reading = SigningReading {
            uses: KeyUses::Both,
            outcome,
            annotations: Annotations::of(Some(&annotations.collect())),
        };
        self.readings.send(reading).await.unwrap();
    }

    /// Lets the task do whatever it can do now, watches included.
    pub(super) async fn settle(&mut self) {
        for _ in 0..50 {
            while let Ok(change) = self.changes.try_recv() {
                self.forward.try_send(change).unwrap();
            }
            tokio::task::yield_now().await;
        }
    }

    /// Lets time pass in steps of a second.
    pub(super) async fn pass(&mut self, time: Duration) {
        self.settle().await;
        for _ in 0..time.as_secs() {
            tokio::time::advance(Duration::from_secs(1)).await;
            self.settle().await;
        }
    }

    pub(super) fn lead(&self, state: LeaderState) {
        self.leadership.become_state(state);
    }

    pub(super) fn signing(&self) -> Arc<SigningSet> {
        self.issuing.signing.borrow().clone()
    }

    /// The id of the JWT key that signs.
    pub(super) fn kid(&self) -> Option<String> {
        self.signing().jwt.as_ref().ok().map(|jwt| jwt.kid().to_owned())
    }

    pub(super) fn documents(&self) -> Option<Arc<Documents>> {
        self.issuing.documents.borrow().clone()
    }

    pub(super) fn publishes(&self, kid: &str) -> bool {
        let documents = self.documents();
        let keys = documents.as_ref().and_then(|documents| documents.keys());
        keys.is_some_and(|keys| String::from_utf8_lossy(&keys.body).contains(kid))
    }

    /// The reasons of the news since the last call.
    pub(super) fn take_news(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.news.lock().unwrap())
            .iter()
            .map(|news| news.reason)
            .collect()
    }
}

pub(super) fn policy() -> RingPolicy {
    RingPolicy {
        trust_domain: TrustDomain::parse("example.org").unwrap(),
        issuer: Some(IssuerUrl::parse("https://issuer.example", false).unwrap()),
        jwt_ttl: Duration::from_mins(5),
        x509_ttl: Duration::from_hours(1),
        jwt_overlap: OVERLAP,
        x509_overlap: OVERLAP,
        bundle_root: false,
    }
}

/// A fresh key with its own CA.
pub(super) fn authority() -> Arc<Authority> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = pem("CERTIFICATE", params.self_signed(&key).unwrap().der());
    let secret = SigningSecret::from_data([
        ("tls.key", pem("PRIVATE KEY", &key.serialize_der()).as_bytes()),
        ("tls.crt", certificate.as_bytes()),
    ]);
    let trust_domain = TrustDomain::parse("example.org").unwrap();
    let options = LoadOptions {
        trust_domain: &trust_domain,
        cluster_cas: &[],
    };
    Arc::new(Authority::load(&secret, &options, Timestamp::now()).unwrap())
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

pub(super) fn kid_of(authority: &Authority) -> String {
    authority.jwt().unwrap().kid().to_owned()
}
