//! The token endpoint a registry's challenge names: who may be sent there, and what its answer has to look like.
//!
//! Token requests follow no redirects. A minted JWT goes to the registry's own origin, or to a realm that one of its
//! audiences names; a client certificate never leaves the registry's origin; a pull secret's login goes to any https realm
//! that the registry itself names.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use zeroize::Zeroizing;

use super::{
    authorise::{basic, basic_login, is_minted},
    body::Answer,
    challenge::Challenge,
    error::{Failure, InvalidContent, sanitise},
    failure,
    ledger::Grant,
    request::{Ask, Identity},
    session::Session,
    url::Origin,
};
use crate::credential::{JwtCredential, Login, LoginCredential, Presented};

/// Largest answer of a token endpoint, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;
/// Largest token, in bytes.
const MAX_TOKEN: usize = 16 * 1024;
/// Life of a token that does not say.
const DEFAULT_LIFE: Duration = Duration::from_mins(1);
/// Longest life believed.
const MAX_LIFE: Duration = Duration::from_hours(1);
/// How we call ourselves in an OAuth request, which wants a name.
const CLIENT_ID: &str = "mintmark";
/// User name beside an identity token as password, as Docker writes it.
const TOKEN_USER: &str = "<token>";

/// A challenge that can be answered by an exchange.
pub(super) struct TokenRequest {
    pub(super) realm: Url,
    pub(super) origin: Origin,
    pub(super) service: Option<String>,
}

impl TokenRequest {
    /// For the first bearer challenge whose realm is a URL. Several registries name none, or a word.
    pub(super) fn for_challenge(challenges: &[Challenge]) -> Option<Self> {
        challenges
            .iter()
            .filter(|challenge| challenge.scheme == "bearer")
            .find_map(|challenge| {
                let realm = Url::parse(challenge.param("realm")?).ok()?;
                let service = challenge
                    .param("service")
                    .filter(|service| !service.is_empty())
                    .map(str::to_owned);
                Some(Self {
                    origin: Origin::of(&realm)?,
                    realm,
                    service,
                })
            })
    }
}

impl Session {
    /// Exchanges the credential for a token with our own scope.
    pub(super) async fn exchange(&mut self, presented: &Presented, request: TokenRequest) -> Result<Grant, Failure> {
        check_realm(&self.origin, &request, presented).map_err(|reason| Failure::RealmRefused {
            realm: sanitise(&request.origin.to_string()),
            reason,
        })?;
        let mut url = request.realm.clone();
        url.set_fragment(None);
        if let Some(service) = &request.service {
            url.query_pairs_mut().append_pair("service", service);
        }
        url.query_pairs_mut()
            .append_pair("scope", self.spec.url.scope().as_str());
        let refreshed = self.refresh(presented, &request).await?;
        let mut answer = if let Some(answer) = refreshed {
            answer
        } else {
            let ask = Ask::new(Method::GET, &url, HeaderMap::new());
            self.ask_realm(presented, &request.origin, ask).await?
        };
        let (status, headers) = (answer.response.status(), std::mem::take(answer.response.headers_mut()));
        if status == StatusCode::OK {
            let body = self.body(answer).read("token answer", MAX_ANSWER).await?;
            return parse_answer(&body, Timestamp::now(), Instant::now());
        }
        let body = self.body(answer).drain().await;
        Err(match status {
            StatusCode::UNAUTHORIZED => Failure::NotAccepted { fresh: false },
            status if status.is_redirection() => Failure::RedirectRefused("a token request is not redirected"),
            status => failure::of_status(status, &headers, &body, self.is_anonymous(presented), Self::now()),
        })
    }

    /// The way of OAuth, for a login that is an identity token: the token goes in the body of a POST. No answer for other
    /// credentials, nor from a token server that does not know this way.
    async fn refresh(&mut self, presented: &Presented, request: &TokenRequest) -> Result<Option<Answer>, Failure> {
        let Presented::Login(LoginCredential { login, .. }) = presented else {
            return Ok(None);
        };
        let Some(identity_token) = &login.identity_token else {
            return Ok(None);
        };
        let mut url = request.realm.clone();
        url.set_fragment(None);
        let form = refresh_form(
            identity_token,
            request.service.as_deref(),
            self.spec.url.scope().as_str(),
        );
        let mut headers = HeaderMap::new();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        let ask = Ask {
            method: Method::POST,
            url: &url,
            headers,
            form: Some(form),
        };
        let result = self.send_to_realm(presented, &request.origin, ask, None).await;
        self.note_presentation(presented, &request.origin, &result);
        let answer = result?;
        if answer.response.status() == StatusCode::NOT_FOUND {
            self.body(answer).drain().await;
            return Ok(None);
        }
        Ok(Some(answer))
    }

    /// The way of the distribution specification: whatever the credential is goes into the Authorization header.
    async fn ask_realm(&mut self, presented: &Presented, realm: &Origin, ask: Ask<'_>) -> Result<Answer, Failure> {
        let authorization = match presented {
            Presented::Jwt(jwt) => Some(basic(jwt)?),
            Presented::Login(LoginCredential { login, .. }) => realm_login(login)?,
            Presented::Anonymous | Presented::Certificate(_) => None,
        };
        let result = self.send_to_realm(presented, realm, ask, authorization).await;
        self.note_presentation(presented, realm, &result);
        result
    }

    async fn send_to_realm(
        &mut self,
        presented: &Presented,
        realm: &Origin,
        mut ask: Ask<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Answer, Failure> {
        if *realm != self.origin {
            ask.headers
                .extend(authorization.map(|authorization| (AUTHORIZATION, authorization)));
            return self.ask_elsewhere(ask, realm).await;
        }
        let certificate = self.certificate(presented);
        let identity = Identity {
            certificate: certificate.as_ref(),
            authorization: authorization.as_ref(),
            minted: is_minted(presented),
        };
        self.ask_registry(ask, identity).await
    }
}

/// The form of RFC 6749 §6, with what token servers of registries want besides.
fn refresh_form(identity_token: &SecretString, service: Option<&str>, scope: &str) -> Bytes {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "refresh_token");
    form.append_pair("refresh_token", identity_token.expose_secret());
    form.append_pair("client_id", CLIENT_ID);
    form.append_pair("scope", scope);
    if let Some(service) = service {
        form.append_pair("service", service);
    }
    Bytes::from_owner(Zeroizing::new(form.finish()))
}

/// A login as HTTP basic authentication; an identity token stands in for a missing password.
fn realm_login(login: &Login) -> Result<Option<HeaderValue>, Failure> {
    match &login.identity_token {
        Some(token) if login.password.expose_secret().is_empty() => {
            let user = Some(login.username.as_str()).filter(|user| !user.is_empty());
            basic_login(user.unwrap_or(TOKEN_USER), token).map(Some)
        }
        _ if login.has_password() => basic_login(&login.username, &login.password).map(Some),
        _ => Ok(None),
    }
}

/// Whether the credential may be sent to the realm; if not, the rule it breaks.
pub(super) fn check_realm(
    registry: &Origin,
    request: &TokenRequest,
    presented: &Presented,
) -> Result<(), &'static str> {
    if !request.realm.username().is_empty() || request.realm.password().is_some() {
        return Err("it carries user information");
    }
    if request.origin == *registry {
        return Ok(());
    }
    match presented {
        Presented::Certificate(_) => Err("a client certificate is presented to the registry's own origin only"),
        Presented::Login(_) if !request.origin.is_https() => Err("it is not https"),
        Presented::Anonymous if registry.is_https() && !request.origin.is_https() => Err("it is not https"),
        Presented::Anonymous | Presented::Login(_) => Ok(()),
        Presented::Jwt(jwt) => check_foreign_realm(registry, request, jwt),
    }
}

fn check_foreign_realm(registry: &Origin, request: &TokenRequest, jwt: &JwtCredential) -> Result<(), &'static str> {
    if !request.origin.is_https() {
        return Err("it is not https");
    }
    if !jwt
        .audiences
        .iter()
        .any(|audience| request.origin.is_named_by(audience))
    {
        return Err("it is not the registry's own origin, and no audience names it");
    }
    let service = request.service.as_deref().unwrap_or_default();
    let registry_itself = service.eq_ignore_ascii_case(&registry.host_port());
    if registry_itself || jwt.audiences.iter().any(|audience| audience.as_str() == service) {
        Ok(())
    } else {
        Err("the challenge's service is neither the registry nor an audience")
    }
}

/// `token` or `access_token`, used until `issued_at + expires_in`, at most an hour from now.
fn parse_answer(body: &[u8], wall: Timestamp, now: Instant) -> Result<Grant, Failure> {
    #[derive(Deserialize)]
    struct Wire {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<u64>,
        issued_at: Option<String>,
    }

    let wire: Wire = serde_json::from_slice(body).map_err(|error| Failure::json("token answer", &error))?;
    let usable = |token: &String| token.len() <= MAX_TOKEN && token.bytes().all(|byte| byte.is_ascii_graphic());
    let token = [wire.token, wire.access_token]
        .into_iter()
        .flatten()
        .find(|token| !token.is_empty());
    let token = SecretString::from(token.filter(usable).ok_or(InvalidContent::Token)?);
    let life = wire.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs).min(MAX_LIFE);
    let issued = wire.issued_at.and_then(|text| text.parse::<Timestamp>().ok());
    let age = issued
        .and_then(|issued| Duration::try_from(wall.duration_since(issued)).ok())
        .unwrap_or_default();
    // A little early: it still has to arrive.
    let usable_for = life.saturating_sub(age).mul_f64(0.9);
    Ok(Grant::Token {
        token,
        expires: now + usable_for,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn life(body: &str) -> Option<(String, Duration)> {
        let (wall, now) = ("2026-01-01T00:10:00Z".parse().unwrap(), Instant::now());
        match parse_answer(body.as_bytes(), wall, now).ok()? {
            Grant::Token { token, expires } => Some((token.expose_secret().to_owned(), expires - now)),
            Grant::Basic => None,
        }
    }

    /// Nine tenths of the life named.
    #[rstest]
    #[case::nothing_said(r#"{"token":"t"}"#, 54)]
    #[case::said(r#"{"access_token":"t","expires_in":300}"#, 270)]
    #[case::capped(r#"{"token":"t","expires_in":86400}"#, 3240)]
    #[case::aged(r#"{"token":"t","expires_in":300,"issued_at":"2026-01-01T00:08:20Z"}"#, 180)]
    #[case::expired(r#"{"token":"t","expires_in":300,"issued_at":"2025-01-01T00:00:00Z"}"#, 0)]
    #[case::from_the_future(r#"{"token":"t","expires_in":300,"issued_at":"2027-01-01T00:00:00Z"}"#, 270)]
    #[case::empty_token_first(r#"{"token":"","access_token":"t","expires_in":100}"#, 90)]
    fn a_token_lives_as_long_as_its_answer_says(#[case] body: &str, #[case] seconds: u64) {
        assert_eq!(life(body), Some(("t".to_owned(), Duration::from_secs(seconds))));
    }

    #[test]
    fn a_token_has_a_largest_size() {
        let answer = |length| format!(r#"{{"token":"{}"}}"#, "x".repeat(length));
        assert!(life(&answer(MAX_TOKEN)).is_some());
        assert!(life(&answer(MAX_TOKEN + 1)).is_none());
    }
}
