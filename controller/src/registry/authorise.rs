//! Presents the credential and answers the registry's challenge.
//!
//! What each kind of credential sends first, and what it does on 401, is one table; a credential is never replaced by a
//! weaker one. `WWW-Authenticate` counts on 401 only: registries send misleading ones elsewhere.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{
    body::Answer,
    challenge::{self, Challenge},
    error::Failure,
    ledger::{Grant, Holder},
    observe::{Outcome, Presentation},
    request::Identity,
    session::{Call, Session},
    token::TokenRequest,
    url::Origin,
};
use crate::credential::{CredentialGeneration, JwtCredential, LoginCredential, Presented};

/// User name beside a JWT as password where none is configured.
const JWT_USER: &str = "jwt";

/// How long a pull secret's bearer token is sent unasked, once a registry took it: nothing says how long it lives.
const REGISTRY_TOKEN_KEPT: Duration = Duration::from_hours(1);

impl Session {
    /// Sends a call with the current credential, once more with a fresh one if a token was refused. Tells whether the object
    /// presents nothing.
    pub(super) async fn authorised(&mut self, call: &Call) -> Result<(Answer, bool), Failure> {
        let presented = self.source.current().await?;
        // A refused exchanged token was already replaced once when `present` fails.
        let exchanged = matches!(self.grant(&presented), Some(Grant::Token { .. }));
        let refused = match self.present(call, &presented, false).await {
            Err(Failure::NotAccepted { .. }) if !exchanged => presented,
            other => return other.map(|answer| (answer, self.is_anonymous(&presented))),
        };
        if !matches!(refused, Presented::Jwt(_)) {
            return Err(Failure::NotAccepted { fresh: false });
        }
        // Keys may have changed since it was minted, or the registry could not reach the issuer just then.
        let renewed = self.source.renew(&refused).await?;
        self.present(call, &renewed, true).await.map(|answer| (answer, false))
    }

    /// First request and answer to a challenge. The answer is anything but 401.
    async fn present(&mut self, call: &Call, presented: &Presented, fresh: bool) -> Result<Answer, Failure> {
        let certificate = self.certificate(presented);
        let grant = self.grant(presented);
        let first = authorization(presented, grant.as_ref())?;
        let result = self
            .follow(
                call,
                Identity {
                    certificate: certificate.as_ref(),
                    authorization: first.as_ref(),
                    minted: is_minted(presented),
                },
            )
            .await;
        // A login is presented only where the registry asks for it.
        if first.is_some() || matches!(presented, Presented::Certificate(_)) {
            self.note_presentation(presented, &self.origin.clone(), &result);
        }
        let answer = result?;
        if answer.response.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let challenges = self.challenges(answer).await?;
        if grant.is_some() {
            self.client.ledger.revoke(&self.spec.object_uid);
        }
        let is_anonymous = self.is_anonymous(presented);
        let refused = || match presented {
            Presented::Anonymous if is_anonymous => Failure::CredentialRequired,
            Presented::Login(_) => Failure::LoginRefused,
            _ => Failure::NotAccepted { fresh },
        };
        let grant = self
            .answer(presented, &challenges, grant.as_ref())
            .await
            .map_err(|failure| match failure {
                Failure::NotAccepted { .. } => refused(),
                other => other,
            })?;
        let second = authorization(presented, Some(&grant))?;
        let result = self
            .follow(
                call,
                Identity {
                    certificate: certificate.as_ref(),
                    authorization: second.as_ref(),
                    minted: is_minted(presented),
                },
            )
            .await;
        if matches!(presented, Presented::Login(_)) && matches!(grant, Grant::Basic) {
            self.note_presentation(presented, &self.origin.clone(), &result);
        }
        let answer = result?;
        if answer.response.status() == StatusCode::UNAUTHORIZED {
            self.challenges(answer).await?;
            return Err(refused());
        }
        self.client.ledger.keep(self.holder(&generation(presented)), grant);
        Ok(answer)
    }

    /// What to do about a 401: the grant to try next.
    async fn answer(
        &mut self,
        presented: &Presented,
        challenges: &[Challenge],
        refused: Option<&Grant>,
    ) -> Result<Grant, Failure> {
        if let Presented::Login(LoginCredential { login, .. }) = presented
            && let Some(token) = &login.registry_token
        {
            return match refused {
                Some(_) => Err(Failure::LoginRefused),
                None => Ok(Grant::Token {
                    token: token.clone(),
                    expires: Instant::now() + REGISTRY_TOKEN_KEPT,
                }),
            };
        }
        if let Some(request) = TokenRequest::for_challenge(challenges) {
            return self.exchange(presented, request).await;
        }
        match presented {
            // Basic was tried already: at first with a user name, or as a grant.
            Presented::Jwt(jwt) if jwt.username.is_none() && !matches!(refused, Some(Grant::Basic)) => Ok(Grant::Basic),
            Presented::Login(credential)
                if credential.login.has_password() && !matches!(refused, Some(Grant::Basic)) =>
            {
                Ok(Grant::Basic)
            }
            _ => Err(Failure::NotAccepted { fresh: false }),
        }
    }

    /// The challenges of a 401 of the registry; of nobody else.
    async fn challenges(&self, answer: Answer) -> Result<Vec<Challenge>, Failure> {
        let own = answer.own;
        let headers = answer.response.headers().get_all(WWW_AUTHENTICATE).into_iter();
        let challenges = challenge::parse(headers.filter_map(|line| line.to_str().ok()));
        self.body(answer).drain().await;
        if own {
            Ok(challenges)
        } else {
            Err(Failure::UnexpectedStatus { status: 401 })
        }
    }

    fn grant(&self, presented: &Presented) -> Option<Grant> {
        self.client
            .ledger
            .grant(self.holder(&generation(presented)), Instant::now())
    }

    fn holder<'a>(&'a self, generation: &'a CredentialGeneration) -> Holder<'a> {
        Holder {
            object: &self.spec.object_uid,
            generation,
            origin: &self.origin,
            url: &self.spec.url,
        }
    }

    /// Tells the audit log when an origin meets a credential for the first time.
    pub(super) fn note_presentation(&self, presented: &Presented, origin: &Origin, result: &Result<Answer, Failure>) {
        if matches!(presented, Presented::Anonymous) {
            return;
        }
        let outcome = match result {
            Ok(answer) => Outcome::of_status(answer.response.status().as_u16()),
            Err(Failure::CertificateRefused { .. }) => Outcome::Unauthorized,
            // Nothing was presented, or nobody knows what became of it.
            Err(_) => return,
        };
        let generation = generation(presented);
        if self.client.ledger.is_first(&self.spec.object_uid, &generation, origin) {
            self.client.config.observer.presented(Presentation {
                object_uid: &self.spec.object_uid,
                namespace: &self.spec.namespace,
                generation: &generation,
                origin,
                outcome,
            });
        }
    }
}

/// Which minting this is; anonymous pulls share one name that no minting has.
fn generation(presented: &Presented) -> CredentialGeneration {
    let generation = presented.generation().cloned();
    generation.unwrap_or_else(|| CredentialGeneration("anonymous".into()))
}

/// Whether it is a credential that speaks for the object: the user chose how a login of their own travels.
pub(super) fn is_minted(presented: &Presented) -> bool {
    matches!(presented, Presented::Jwt(_) | Presented::Certificate(_))
}

/// The Authorization header for a credential and what was learned about the registry.
fn authorization(presented: &Presented, grant: Option<&Grant>) -> Result<Option<HeaderValue>, Failure> {
    match (presented, grant) {
        (_, Some(Grant::Token { token, .. })) => bearer(token).map(Some),
        (Presented::Jwt(jwt), None) if jwt.username.is_none() => bearer(&jwt.token).map(Some),
        (Presented::Jwt(jwt), _) => basic(jwt).map(Some),
        (Presented::Login(credential), Some(Grant::Basic)) => {
            basic_login(&credential.login.username, &credential.login.password).map(Some)
        }
        _ => Ok(None),
    }
}

fn bearer(token: &SecretString) -> Result<HeaderValue, Failure> {
    secret_header(&Zeroizing::new(format!("Bearer {}", token.expose_secret())))
}

/// The JWT as password of HTTP basic authentication (RFC 7617).
pub(super) fn basic(jwt: &JwtCredential) -> Result<HeaderValue, Failure> {
    basic_login(jwt.username.as_deref().unwrap_or(JWT_USER), &jwt.token)
}

/// User name and password for HTTP basic authentication (RFC 7617).
pub(super) fn basic_login(user: &str, password: &SecretString) -> Result<HeaderValue, Failure> {
    let plain = Zeroizing::new(format!("{user}:{}", password.expose_secret()));
    secret_header(&Zeroizing::new(format!(
        "Basic {}",
        Zeroizing::new(BASE64_STANDARD.encode(plain.as_bytes())).as_str()
    )))
}

fn secret_header(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text).map_err(|_| Failure::Setup("the token does not fit into a header"))?;
    value.set_sensitive(true);
    Ok(value)
}
