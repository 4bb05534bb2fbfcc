//! ServiceAccount tokens: asks the API server for a token with exactly the wanted audiences and checks what it returns.
//! Tokens are shared by all objects that use the same account with the same audiences, for the identity is the account's.
//! Needs create on `serviceaccounts/token`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, Client, api::PostParams};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{Audience, CredentialError, freshness::Freshness};
use crate::runtime::api_server::timely;

/// An account and the audiences a token is wanted for, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenKey {
    /// The account's namespace.
    pub namespace: Arc<str>,
    /// The account's name.
    pub account: Arc<str>,
    /// What the token is for.
    pub audiences: Arc<[Audience]>,
    /// How long it is to live, if not as long as all.
    pub life: Option<Duration>,
}

impl TokenKey {
    /// What the token's `sub` claim says.
    pub fn subject(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.account)
    }
}

/// A token as the API server issued it.
#[derive(Clone)]
pub struct ServiceAccountToken {
    /// The compact JWS.
    pub token: SecretString,
    /// UID of the account it speaks for.
    pub account_uid: Arc<str>,
    /// Identifies this token among those of its account.
    pub id: Arc<str>,
    /// Key that signed it.
    pub key_id: Option<Arc<str>>,
    /// When it was asked for.
    pub requested_at: Instant,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When it is to be renewed.
    pub freshness: Freshness,
}

type Slot = Arc<tokio::sync::Mutex<Option<ServiceAccountToken>>>;

/// Requests tokens and keeps them until they are to be renewed.
pub struct ServiceAccountTokens {
    client: Client,
    ttl: Duration,
    slots: Mutex<HashMap<TokenKey, Slot>>,
}

impl ServiceAccountTokens {
    /// Requests tokens of `ttl` (10 minutes to 1 hour; the API server has the last word).
    pub fn new(client: Client, ttl: Duration) -> Self {
        Self {
            client,
            ttl,
            slots: Mutex::default(),
        }
    }

    /// A token for `key`: kept, or requested. `refused` names a token that a registry did not accept: it is not handed
    /// out again. Returns whether it was requested now.
    pub async fn get(
        &self,
        key: &TokenKey,
        refused: Option<&str>,
    ) -> Result<(ServiceAccountToken, bool), CredentialError> {
        let slot = self
            .slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key.clone())
            .or_default()
            .clone();
        // One request at a time for one account and audience: the others wait for its answer.
        let mut held = slot.lock().await;
        if let Some(token) = held.as_ref()
            && token.freshness.is_fresh()
            && refused != Some(&token.id)
        {
            return Ok((token.clone(), false));
        }
        let token = self.request(key).await?;
        *held = Some(token.clone());
        Ok((token, true))
    }

    /// Whether a token for `key` is kept that need not be renewed yet.
    pub fn has_fresh(&self, key: &TokenKey) -> bool {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.get(key).and_then(is_fresh).unwrap_or(false)
    }

    /// Drops tokens that are no longer fresh: nobody has asked for them since.
    pub fn sweep(&self) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| is_fresh(slot).unwrap_or(true));
    }

    async fn request(&self, key: &TokenKey) -> Result<ServiceAccountToken, CredentialError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.namespace);
        let wanted: Vec<_> = key
            .audiences
            .iter()
            .map(|audience| audience.as_str().to_owned())
            .collect();
        let seconds = i64::try_from(key.life.unwrap_or(self.ttl).as_secs()).unwrap_or(i64::MAX);
        let spec = TokenRequestSpec {
            audiences: wanted.clone(),
            expiration_seconds: Some(seconds),
            bound_object_ref: None,
        };
        let request = TokenRequest {
            spec,
            ..TokenRequest::default()
        };
        let params = PostParams::default();
        let answer = timely(api.create_token_request(&key.account, &params, &request))
            .await
            .map_err(|error| refusal(key, &error))?;
        let status = answer
            .status
            .ok_or_else(|| failed(key, "the API server answered without a token"))?;
        let claims = Claims::read(&status.token).ok_or_else(|| failed(key, "the API server's token is no JWT"))?;
        if !claims.aud.same_as(&wanted) {
            return Err(failed(
                key,
                "the API server's token has other audiences than were asked for",
            ));
        }
        let expires_at = status.expiration_timestamp.0;
        let life = expires_at.duration_since(Timestamp::now()).unsigned_abs();
        Ok(ServiceAccountToken {
            id: token_id(&claims, &status.token),
            account_uid: claims.account_uid(),
            key_id: key_id(&status.token),
            freshness: Freshness::for_life(life, 0.8),
            expires_at,
            requested_at: Instant::now(),
            token: status.token.into(),
        })
    }
}

/// Whether a slot holds a token that need not be renewed; unknown while it is requested.
fn is_fresh(slot: &Slot) -> Option<bool> {
    let held = slot.try_lock().ok()?;
    Some(held.as_ref().is_some_and(|token| token.freshness.is_fresh()))
}

fn failed(key: &TokenKey, what: &str) -> CredentialError {
    CredentialError {
        message: format!("no token for {}: {what}", key.subject()),
        transient: true,
    }
}

fn refusal(key: &TokenKey, error: &kube::Error) -> CredentialError {
    match error {
        kube::Error::Api(status) if status.code == 404 => failed(
            key,
            &format!("ServiceAccount '{}/{}' does not exist", key.namespace, key.account),
        ),
        kube::Error::Api(status) if status.code == 403 => failed(
            key,
            &format!(
                "the API server refuses the TokenRequest (are the rights of config/token-creator installed?): {}",
                status.message
            ),
        ),
        kube::Error::Api(status) => failed(key, &format!("TokenRequest: {}", status.message)),
        _ => failed(key, "the API server cannot be reached"),
    }
}

/// The claims this controller reads from a token that it just got from the API server over TLS.
#[derive(Deserialize)]
struct Claims {
    aud: AudClaim,
    sub: Option<String>,
    jti: Option<String>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<KubernetesClaim>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AudClaim {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct KubernetesClaim {
    serviceaccount: Option<AccountClaim>,
}

#[derive(Deserialize)]
struct AccountClaim {
    uid: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    kid: Option<String>,
}

impl Claims {
    fn read(token: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?).ok()
    }

    fn account_uid(&self) -> Arc<str> {
        let account = self.kubernetes.as_ref().and_then(|claim| claim.serviceaccount.as_ref());
        account
            .and_then(|account| account.uid.as_deref())
            .unwrap_or_default()
            .into()
    }
}

impl AudClaim {
    fn same_as(&self, wanted: &[String]) -> bool {
        match self {
            Self::One(audience) => wanted == std::slice::from_ref(audience),
            Self::Many(audiences) => {
                audiences.len() == wanted.len() && wanted.iter().all(|audience| audiences.contains(audience))
            }
        }
    }

    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(audience) => vec![audience],
            Self::Many(audiences) => audiences,
        }
    }
}

fn key_id(token: &str) -> Option<Arc<str>> {
    serde_json::from_slice::<Header>(&URL_SAFE_NO_PAD.decode(token.split('.').next()?).ok()?)
        .ok()?
        .kid
        .map(Into::into)
}

/// The token's `jti`; API servers before 1.30 set none, then a digest of the token stands in.
fn token_id(claims: &Claims, token: &str) -> Arc<str> {
    claims.jti.as_deref().map_or_else(
        || {
            let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
            URL_SAFE_NO_PAD
                .encode(digest.as_ref().get(..16).unwrap_or_default())
                .into()
        },
        Into::into,
    )
}

/// The audiences of a bearer token, unverified: used on the controller's own token, to learn what the API server accepts.
pub fn audiences_of(token: &SecretString) -> Vec<String> {
    Claims::read(token.expose_secret())
        .map(|claims| claims.aud.into_vec())
        .unwrap_or_default()
}

/// The subject of a bearer token, unverified: used on the controller's own token.
pub fn subject_of(token: &SecretString) -> Option<String> {
    Claims::read(token.expose_secret())?.sub
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(payload: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.sig", part(r#"{"alg":"RS256","kid":"k1"}"#), part(payload))
    }

    #[test]
    fn reads_both_forms_of_aud() {
        let one = token(r#"{"aud":"zot"}"#);
        let many = token(r#"{"aud":["b","a"],"jti":"j","kubernetes.io":{"serviceaccount":{"uid":"u"}}}"#);
        assert_eq!(audiences_of(&one.clone().into()), ["zot"]);
        let claims = Claims::read(&many).unwrap();
        assert!(claims.aud.same_as(&["a".into(), "b".into()]));
        assert!(!claims.aud.same_as(&["a".into()]));
        assert_eq!((&*claims.account_uid(), &*token_id(&claims, &many)), ("u", "j"));
        assert_eq!(key_id(&many).as_deref(), Some("k1"));
        assert!(!token_id(&Claims::read(&one).unwrap(), &one).is_empty());
        assert!(audiences_of(&"garbage".to_owned().into()).is_empty());
    }
}
