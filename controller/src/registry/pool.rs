//! Connection pools. Without a client certificate a connection carries no identity and is shared by everybody who talks to
//! the same origin with the same CA set; with one it *is* the identity and belongs to one object and credential generation.
//!
//! Each pool is one HTTP client: dropping it closes its idle connections. Building one may fail on unusable key material.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use http::HeaderValue;
use hyper_util::client::proxy::matcher::Intercept;
use reqwest::{Client, ClientBuilder, Proxy, redirect::Policy};
use rustls::{ClientConfig, client::WebPkiServerVerifier};
use url::Url;

use super::{
    address::{AddressPolicy, Reach},
    config::RegistryConfig,
    error::Failure,
    failure,
    lru::Lru,
    proxy::{ProxyId, ProxySettings},
    resolver::FilteringResolver,
    tls::{CaBundle, CaId, TlsFactory},
    url::Origin,
};
use crate::credential::{CertificateCredential, CredentialGeneration};

/// What TLS without a client certificate depends on: counted by `--registry-max-transports`.
type TransportId = (Option<CaId>, Option<ProxyId>);

/// What connections have to have in common to be shared. Environment proxies follow from the origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Route {
    origin: Origin,
    ca: Option<CaId>,
    proxy: Option<ProxyId>,
    reach: Reach,
}

impl Route {
    /// None over plain HTTP.
    fn transport(&self) -> Option<TransportId> {
        let id = || (self.ca, self.proxy);
        self.origin.is_https().then(id)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum PoolKey {
    Shared(Route),
    Identity(Arc<str>),
}

/// One HTTP client and who may use it.
pub(super) struct Pool {
    client: Client,
    key: PoolKey,
    route: Route,
    generation: Option<CredentialGeneration>,
    proxied: bool,
    in_flight: AtomicUsize,
    peak: AtomicUsize,
}

impl Pool {
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Whether a proxy stands between, so that peer addresses are the proxy's.
    pub(super) fn is_proxied(&self) -> bool {
        self.proxied
    }

    fn weight(&self) -> usize {
        self.peak.load(Ordering::Relaxed).max(1)
    }
}

/// See [`Pools::begin`].
pub(super) struct InFlight(Arc<Pool>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where a request goes and on whose behalf.
#[derive(Clone, Copy)]
pub(super) struct Destination<'a> {
    pub(super) origin: &'a Origin,
    pub(super) ca: Option<&'a CaBundle>,
    pub(super) proxy: Option<&'a ProxySettings>,
    pub(super) reach: Reach,
    pub(super) namespace: &'a Arc<str>,
}

impl Destination<'_> {
    fn route(&self) -> Route {
        Route {
            origin: self.origin.clone(),
            ca: self.ca.map(CaBundle::id),
            proxy: self.proxy.map(ProxySettings::id),
            reach: self.reach,
        }
    }
}

/// All pools of the process.
pub(super) struct Pools {
    config: Arc<RegistryConfig>,
    addresses: Arc<AddressPolicy>,
    tls: TlsFactory,
    open: Mutex<Lru<PoolKey, Arc<Pool>>>,
    transports: Mutex<Lru<TransportId, Transport>>,
}

/// The parts of a TLS configuration that depend on the CA set alone.
#[derive(Clone)]
struct Transport {
    verifier: Arc<WebPkiServerVerifier>,
    shared: ClientConfig,
}

impl Pools {
    pub(super) fn new(config: Arc<RegistryConfig>) -> Self {
        Self {
            addresses: Arc::new(config.addresses.clone()),
            tls: TlsFactory::new(),
            open: Mutex::new(Lru::new(config.idle_connections)),
            transports: Mutex::new(Lru::new(config.max_transports)),
            config,
        }
    }

    /// The pool for requests without a client certificate.
    pub(super) fn shared(&self, to: Destination<'_>) -> Result<Arc<Pool>, Failure> {
        let route = to.route();
        let key = PoolKey::Shared(route.clone());
        if let Some(pool) = self.find(&key, &route) {
            return Ok(pool);
        }
        let tls = match route.transport() {
            Some(id) => self.transport(id, to)?.shared,
            None => self.tls.unused()?,
        };
        let builder = self.builder().tls_backend_preconfigured(tls);
        self.build(builder, to, key, None)
    }

    /// The pool of one object's certificate. A pool of another generation or destination of that object goes.
    pub(super) fn identity(
        &self,
        to: Destination<'_>,
        object: &Arc<str>,
        credential: &CertificateCredential,
    ) -> Result<Arc<Pool>, Failure> {
        let route = to.route();
        let key = PoolKey::Identity(Arc::clone(object));
        if let Some(pool) = self.find(&key, &route)
            && pool.generation.as_ref() == Some(&credential.generation)
            && pool.route == route
        {
            return Ok(pool);
        }
        let id = route.transport().ok_or(Failure::InsecureCredential)?;
        let transport = self.transport(id, to)?;
        let (config, asked) = self.tls.with_identity(transport.verifier, credential)?;
        let builder = self
            .builder()
            .tls_backend_preconfigured(config)
            .pool_max_idle_per_host(1);
        let builder = match asked {
            Some(asked) => builder.connector_layer(asked),
            None => builder,
        };
        self.build(builder, to, key, Some(credential.generation.clone()))
    }

    /// Counts a request for as long as the guard lives. The most at a time bounds the connections that stay; where there
    /// are more than ever, others make room.
    pub(super) fn begin(&self, pool: &Arc<Pool>) -> InFlight {
        let now = pool.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        if pool.peak.fetch_max(now, Ordering::Relaxed) < now && now > 1 {
            lock(&self.open).reweigh(&pool.key, |pool| pool.weight());
        }
        InFlight(Arc::clone(pool))
    }

    /// How many CA sets and how many pools are kept.
    pub(super) fn kept(&self) -> (usize, usize) {
        (lock(&self.transports).len(), lock(&self.open).len())
    }

    /// Closes what belongs to an object that is gone.
    pub(super) fn forget(&self, object: &Arc<str>) {
        lock(&self.open).remove(&PoolKey::Identity(Arc::clone(object)));
    }

    /// An open pool; it and its transport are in use.
    fn find(&self, key: &PoolKey, route: &Route) -> Option<Arc<Pool>> {
        let pool = Arc::clone(lock(&self.open).get(key)?);
        if let Some(id) = route.transport() {
            lock(&self.transports).get(&id);
        }
        Some(pool)
    }

    /// The transport for a destination over TLS. One that has to go takes its connections along: they hold its roots.
    fn transport(&self, id: TransportId, to: Destination<'_>) -> Result<Transport, Failure> {
        if let Some(transport) = lock(&self.transports).get(&id) {
            return Ok(transport.clone());
        }
        let verifier = self.tls.verifier(to.ca)?;
        let transport = Transport {
            shared: self.tls.without_identity(Arc::clone(&verifier))?,
            verifier,
        };
        let evicted = lock(&self.transports).insert(&id, to.namespace, transport.clone(), |_| 1);
        if !evicted.is_empty() {
            lock(&self.open).retain(|pool| pool.route.transport().is_none_or(|id| !evicted.contains(&id)));
        }
        Ok(transport)
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder()
            .user_agent(self.config.user_agent.as_str())
            .redirect(Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .no_proxy()
            .http1_only()
            .tcp_nodelay(true)
            .connect_timeout(self.config.connect_timeout)
            .pool_idle_timeout(self.config.idle_timeout)
            .pool_max_idle_per_host(self.config.concurrency)
    }

    /// Makes a pool and keeps it.
    fn build(
        &self,
        builder: ClientBuilder,
        to: Destination<'_>,
        key: PoolKey,
        generation: Option<CredentialGeneration>,
    ) -> Result<Arc<Pool>, Failure> {
        // A token in the clear is for loopback itself, not for a proxy that might carry it further.
        let proxy = match to.proxy {
            _ if to.reach == Reach::Loopback => None,
            Some(proxy) => Some(
                self.check_proxy(proxy.address(), generation.is_some())
                    .and_then(|()| proxy.to_reqwest())?,
            ),
            None => self.environment_proxy(to.origin, generation.is_some())?,
        };
        let proxied = proxy.is_some();
        // The operator or the object chose the proxy, whoever chose what lies behind it.
        let reach = if proxied { Reach::Configured } else { to.reach };
        let builder = match proxy {
            None => builder,
            Some(proxy) => builder.proxy(proxy),
        };
        let resolver = FilteringResolver {
            lookup: Arc::clone(&self.config.lookup),
            policy: Arc::clone(&self.addresses),
            reach,
        };
        let client = builder
            .dns_resolver(resolver)
            .build()
            .map_err(|_| Failure::Setup("HTTP client"))?;
        let pool = Arc::new(Pool {
            client,
            key,
            route: to.route(),
            generation,
            proxied,
            in_flight: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        });
        lock(&self.open).insert(&pool.key, to.namespace, Arc::clone(&pool), |pool| pool.weight());
        Ok(pool)
    }

    fn environment_proxy(&self, origin: &Origin, carries_identity: bool) -> Result<Option<Proxy>, Failure> {
        let uri = origin.to_string().parse().ok();
        let Some(proxy) = uri.and_then(|uri| self.config.environment_proxies.intercept(&uri)) else {
            return Ok(None);
        };
        let url = Url::parse(&proxy.uri().to_string());
        let url = url.map_err(|_| Failure::Setup("the environment names an unusable proxy"))?;
        self.check_proxy(&url, carries_identity)?;
        to_reqwest(&proxy).map(Some)
    }

    fn check_proxy(&self, url: &Url, carries_identity: bool) -> Result<(), Failure> {
        // Its TLS would be configured like the registry's, and the proxy could ask for the client certificate.
        if url.scheme() == "https" && carries_identity {
            return Err(Failure::Setup("a client certificate cannot go through an https proxy"));
        }
        let origin = Origin::of(url).ok_or(Failure::Setup("the proxy is neither http nor https"))?;
        self.check_literal(&origin, Reach::Configured)
    }

    /// The address rule for hosts that are addresses: the resolver never sees those.
    pub(super) fn check_literal(&self, origin: &Origin, reach: Reach) -> Result<(), Failure> {
        let Some(address) = origin.literal() else { return Ok(()) };
        self.addresses
            .check(address, reach)
            .map_err(|reason| failure::of_denied(reason, &origin.host_port()))
    }

    pub(super) fn addresses(&self) -> &AddressPolicy {
        &self.addresses
    }
}

fn to_reqwest(proxy: &Intercept) -> Result<Proxy, Failure> {
    let unusable = |_| Failure::Setup("the environment names an unusable proxy");
    let built = Proxy::all(proxy.uri().to_string()).map_err(unusable)?;
    let Some(authorization) = proxy.basic_auth() else {
        return Ok(built);
    };
    let mut value: HeaderValue = authorization.clone();
    value.set_sensitive(true);
    Ok(built.custom_http_auth(value))
}

/// A poisoned lock only means that another pass panicked; the maps stay consistent.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
