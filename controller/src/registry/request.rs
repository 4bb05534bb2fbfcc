//! One request over the network: the right pool, the address rules, redirects, and the meaning of what comes back.
//!
//! Redirects are followed here and not by the HTTP library, because off the registry's origin neither the Authorization
//! header nor the client certificate may go along.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{ACCEPT, AUTHORIZATION, LOCATION, RANGE},
};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::{
    address::Reach,
    body::Answer,
    error::Failure,
    failure,
    observe::Outcome,
    pool::{Destination, Pool},
    session::{Call, Session},
    url::Origin,
};
use crate::credential::CertificateCredential;

use std::sync::Arc;

/// Redirects followed for one request.
const MAX_REDIRECTS: usize = 5;

/// Statuses whose `Location` is followed for GET and HEAD.
const REDIRECTS: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

/// What a request carries of an identity.
#[derive(Clone, Copy)]
pub(super) struct Identity<'a> {
    pub(super) certificate: Option<&'a CertificateCredential>,
    pub(super) authorization: Option<&'a HeaderValue>,
    /// Whether the credential was minted for the object, and so never travels in the clear.
    pub(super) minted: bool,
}

/// One request over the network, before it has an identity.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: &'a Url,
    pub(super) headers: HeaderMap,
    /// The body of a POST, form-encoded.
    pub(super) form: Option<Bytes>,
}

impl<'a> Ask<'a> {
    /// A request without a body.
    pub(super) fn new(method: Method, url: &'a Url, headers: HeaderMap) -> Self {
        Self {
            method,
            url,
            headers,
            form: None,
        }
    }

    fn build(self) -> reqwest::Request {
        let mut request = reqwest::Request::new(self.method, self.url.clone());
        *request.headers_mut() = self.headers;
        *request.body_mut() = self.form.map(Into::into);
        request
    }
}

impl Session {
    /// Sends a call with its credential and returns a successful answer.
    pub(super) async fn send(&mut self, call: &Call) -> Result<Answer, Failure> {
        let (answer, anonymous) = self.authorised(call).await?;
        if answer.response.status().is_success() {
            return Ok(answer);
        }
        let (status, headers) = (answer.response.status(), answer.response.headers().clone());
        let body = self.body(answer).drain().await;
        Err(failure::of_status(status, &headers, &body, anonymous, Self::now()))
    }

    /// `path` below `/v2/<repository>/` on the registry's own origin.
    pub(super) fn own_url(&self, path: &str) -> Result<Url, Failure> {
        let url = format!("{}/v2/{}/{path}", self.origin, self.spec.url.repository());
        Url::parse(&url).map_err(|_| Failure::Setup("request URL"))
    }

    /// Sends a call and follows its redirects. The answer has any status but a redirect's.
    pub(super) async fn follow(&mut self, call: &Call, identity: Identity<'_>) -> Result<Answer, Failure> {
        let mut url = match &call.target {
            Some(target) => target.clone(),
            None => self.own_url(&call.path)?,
        };
        let mut origin = self.origin.clone();
        // Once off the origin, a way back does not bring the credential back.
        let mut own = true;
        for _ in 0..=MAX_REDIRECTS {
            let mut headers = HeaderMap::new();
            if let Some(accept) = call.accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            if call.from > 0 {
                let range = format!("bytes={}-", call.from);
                headers.insert(
                    RANGE,
                    HeaderValue::from_str(&range).map_err(|_| Failure::Setup("range"))?,
                );
            }
            let ask = Ask::new(call.method.clone(), &url, headers);
            let answer = if own {
                self.ask_registry(ask, identity).await?
            } else {
                self.ask_elsewhere(ask, &origin).await?
            };
            if !REDIRECTS.contains(&answer.response.status()) {
                return Ok(answer);
            }
            let target = redirect_target(&url, answer.response.headers())?;
            self.body(answer).drain().await;
            let next = Origin::of(&target).ok_or(Failure::RedirectRefused("neither http nor https"))?;
            if origin.is_https() && !next.is_https() {
                return Err(Failure::RedirectRefused("from https to http"));
            }
            own = own && next == self.origin;
            (url, origin) = (target, next);
        }
        Err(Failure::RedirectRefused("more than five in a row"))
    }

    /// A request to the registry's own origin, with the identity.
    pub(super) async fn ask_registry(&mut self, mut ask: Ask<'_>, identity: Identity<'_>) -> Result<Answer, Failure> {
        let reach = self.own_reach(identity)?;
        let origin = self.origin.clone();
        let to = Destination {
            origin: &origin,
            ca: self.spec.ca.as_ref(),
            proxy: self.spec.proxy.as_ref(),
            reach,
            namespace: &self.spec.namespace,
        };
        let pool = match identity.certificate {
            Some(certificate) => self.client.pools.identity(to, &self.spec.object_uid, certificate)?,
            None => self.client.pools.shared(to)?,
        };
        if let Some(authorization) = identity.authorization {
            ask.headers.insert(AUTHORIZATION, authorization.clone());
        }
        let issuer = identity.certificate.map(|certificate| &*certificate.issuer);
        let in_flight = self.client.pools.begin(&pool);
        let response = self.dispatch(&pool, &origin, reach, ask.build(), issuer).await?;
        if let Some(peer) = response.remote_addr().filter(|_| !pool.is_proxied()) {
            self.private = self.client.pools.addresses().is_private(peer.ip());
        }
        Ok(Answer {
            response,
            own: true,
            in_flight,
        })
    }

    /// A request to a place the registry named, without any identity.
    pub(super) async fn ask_elsewhere(&mut self, ask: Ask<'_>, origin: &Origin) -> Result<Answer, Failure> {
        let reach = if self.private {
            Reach::Configured
        } else {
            Reach::RegistryChosen
        };
        let to = Destination {
            origin,
            ca: self.spec.ca.as_ref(),
            proxy: self.spec.proxy.as_ref(),
            reach,
            namespace: &self.spec.namespace,
        };
        let pool = self.client.pools.shared(to)?;
        let in_flight = self.client.pools.begin(&pool);
        let response = self.dispatch(&pool, origin, reach, ask.build(), None).await?;
        Ok(Answer {
            response,
            own: false,
            in_flight,
        })
    }

    /// A minted credential goes over TLS, to loopback, or where the operator allows it. What the user wrote into a pull
    /// secret goes where the user says, and `insecure` says so.
    fn own_reach(&self, identity: Identity<'_>) -> Result<Reach, Failure> {
        if self.origin.is_https() {
            return Ok(Reach::Configured);
        }
        if identity.certificate.is_some() {
            return Err(Failure::InsecureCredential);
        }
        let allowed = &self.client.config.insecure_credential_hosts;
        if !identity.minted || identity.authorization.is_none() || allowed.iter().any(|glob| glob.matches(&self.origin))
        {
            return Ok(Reach::Configured);
        }
        Ok(Reach::Loopback)
    }

    async fn dispatch(
        &self,
        pool: &Arc<Pool>,
        origin: &Origin,
        reach: Reach,
        request: reqwest::Request,
        issuer: Option<&str>,
    ) -> Result<reqwest::Response, Failure> {
        let host = origin.host_port();
        let result = self.execute(pool, origin, &host, reach, request, issuer).await;
        let outcome = match &result {
            Ok(response) => Outcome::of_status(response.status().as_u16()),
            Err(failure) => outcome_of(failure),
        };
        self.client.config.observer.request(&host, outcome);
        result
    }

    async fn execute(
        &self,
        pool: &Arc<Pool>,
        origin: &Origin,
        host: &str,
        reach: Reach,
        request: reqwest::Request,
        issuer: Option<&str>,
    ) -> Result<reqwest::Response, Failure> {
        let policy = &self.client.config.retry;
        self.client.pools.check_literal(origin, reach)?;
        // A proxy that a tenant chose says nothing about the host to others.
        let circuits = self.spec.proxy.is_none().then_some(&self.client.circuits);
        if let Some(circuits) = circuits {
            circuits
                .admit(host, policy, self.client.config.connect_timeout, Instant::now())
                .map_err(|retry_in| Failure::CircuitOpen { retry_in })?;
        }
        let Ok(result) = timeout_at(self.deadline(), pool.client().execute(request)).await else {
            return Err(Failure::TimedOut);
        };
        match result.map_err(|error| failure::of_error(&error, host, issuer)) {
            Err(Failure::Unreachable) => {
                if let Some(circuits) = circuits {
                    circuits.failed(host, policy, Instant::now());
                }
                Err(Failure::Unreachable)
            }
            Err(failure @ (Failure::AddressDenied { .. } | Failure::InsecureCredential)) => Err(failure),
            other => {
                if let Some(circuits) = circuits {
                    circuits.connected(host);
                }
                other
            }
        }
    }
}

fn redirect_target(from: &Url, headers: &HeaderMap) -> Result<Url, Failure> {
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let location = location.ok_or(Failure::RedirectRefused("without a Location"))?;
    let target = from
        .join(location)
        .map_err(|_| Failure::RedirectRefused("its Location is not a URL"))?;
    if !target.username().is_empty() || target.password().is_some() {
        return Err(Failure::RedirectRefused("its Location carries user information"));
    }
    Ok(target)
}

fn outcome_of(failure: &Failure) -> Outcome {
    match failure {
        Failure::TimedOut => Outcome::TimedOut,
        Failure::ConnectionLost => Outcome::Interrupted,
        Failure::CertificateRefused { .. } => Outcome::Unauthorized,
        Failure::AddressDenied { .. } | Failure::InsecureCredential | Failure::CircuitOpen { .. } => Outcome::Refused,
        _ => Outcome::ConnectFailed,
    }
}
