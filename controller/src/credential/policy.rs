//! Which audiences a ServiceAccount token may be requested for, and for which hosts. Pure rules over flag values; a
//! refusal names the flag that decides it.

use std::collections::BTreeSet;

use super::Audience;
use crate::registry::{HostGlob, Origin};

/// One `--allowed-audiences` value: an audience, and the hosts it may be used for (all when absent).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedAudience {
    audience: Audience,
    hosts: Option<HostGlob>,
}

impl AllowedAudience {
    /// Parses `AUDIENCE` or `AUDIENCE=HOST_GLOB` (split at the last `=`).
    pub fn parse(value: &str) -> Result<Self, String> {
        let (audience, hosts) = match value.rsplit_once('=') {
            Some((audience, hosts)) => (
                audience,
                Some(HostGlob::parse(hosts).map_err(|error| error.to_string())?),
            ),
            None => (value, None),
        };
        let audience = Audience::new(audience).map_err(|error| error.to_string())?;
        Ok(Self { audience, hosts })
    }
}

/// Why a ServiceAccount token is not requested for an audience.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AudienceRefusal {
    /// The API server would accept the token: a registry could act as the account.
    #[error("audience {0:?} is one the Kubernetes API server accepts; a registry must never hold such a token")]
    ApiServer(String),
    /// Listed by the operator.
    #[error("audience {0:?} is refused by --denied-audiences")]
    Denied(String),
    /// Not on the operator's list for this host.
    #[error("audience {0:?} is not among --allowed-audiences for host {1}")]
    NotAllowed(String, String),
}

/// The audiences that ServiceAccount tokens may carry.
#[derive(Debug, Clone, Default)]
pub struct AudiencePolicy {
    /// What the API server itself accepts.
    pub api_server: BTreeSet<String>,
    /// `--denied-audiences`.
    pub denied: Vec<Audience>,
    /// `--allowed-audiences`; empty = every audience that is not denied.
    pub allowed: Vec<AllowedAudience>,
}

impl AudiencePolicy {
    /// Checks every audience of a token meant for the registry at `origin`.
    pub fn check(&self, audiences: &[Audience], origin: &Origin) -> Result<(), AudienceRefusal> {
        for audience in audiences {
            let text = || audience.as_str().to_owned();
            if self.api_server.contains(audience.as_str()) {
                return Err(AudienceRefusal::ApiServer(text()));
            }
            if self.denied.contains(audience) {
                return Err(AudienceRefusal::Denied(text()));
            }
            let allows = |allowed: &AllowedAudience| {
                allowed.audience == *audience && allowed.hosts.as_ref().is_none_or(|hosts| hosts.matches(origin))
            };
            if !self.allowed.is_empty() && !self.allowed.iter().any(allows) {
                return Err(AudienceRefusal::NotAllowed(text(), origin.host_port()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::RepositoryUrl;

    fn origin(url: &str) -> Origin {
        RepositoryUrl::parse(url, true).unwrap().origin(false)
    }

    #[test]
    fn audiences_of_the_api_server_are_refused_first() {
        let audiences = [Audience::new("https://kubernetes.default.svc").unwrap()];
        let policy = AudiencePolicy {
            api_server: ["https://kubernetes.default.svc".to_owned()].into(),
            allowed: vec![AllowedAudience::parse("https://kubernetes.default.svc").unwrap()],
            ..AudiencePolicy::default()
        };
        assert!(matches!(
            policy.check(&audiences, &origin("oci://zot.example/app")),
            Err(AudienceRefusal::ApiServer(_))
        ));
    }

    #[test]
    fn an_allow_list_binds_audiences_to_hosts() {
        let policy = AudiencePolicy {
            allowed: vec![AllowedAudience::parse("zot=*.example").unwrap()],
            denied: vec![Audience::new("vault").unwrap()],
            ..AudiencePolicy::default()
        };
        let one = |text: &str| [Audience::new(text).unwrap()];
        assert_eq!(policy.check(&one("zot"), &origin("oci://zot.example/app")), Ok(()));
        assert!(matches!(
            policy.check(&one("zot"), &origin("oci://zot.other/app")),
            Err(AudienceRefusal::NotAllowed(..))
        ));
        assert!(matches!(
            policy.check(&one("harbor"), &origin("oci://zot.example/app")),
            Err(AudienceRefusal::NotAllowed(..))
        ));
        assert!(matches!(
            policy.check(&one("vault"), &origin("oci://zot.example/app")),
            Err(AudienceRefusal::Denied(_))
        ));
    }
}
