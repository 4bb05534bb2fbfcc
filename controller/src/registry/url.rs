//! Names of registries and repositories: `oci://host[:port]/repository`, the origin behind it, the scope asked of it.
//!
//! Everything here is pure. Parsing refuses what would make a request go somewhere else than the text says: tags and
//! digests, user information, queries, dot segments, and Docker Hub shorthand where a credential is in force.

use std::{fmt, net::IpAddr, sync::Arc};

use url::{Host, Url};

use crate::credential::Audience;

const DOCKER_HUB: &str = "index.docker.io";

/// Why a text is not a repository URL. Shown in the condition `URLInvalid`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Does not begin with `oci://`.
    #[error("a repository URL begins with oci://")]
    Scheme,
    /// No repository after the host.
    #[error("the URL names no repository")]
    NoRepository,
    /// The repository part carries `:tag` or `@digest`.
    #[error("the URL names a tag or digest, which belongs into spec.ref")]
    Reference,
    /// The host carries `user:password@`.
    #[error("the URL carries user information")]
    UserInfo,
    /// The host or port cannot be read.
    #[error("'{0}' is not a host with an optional port")]
    Host(String),
    /// The repository has fewer than 2 or more than 255 characters.
    #[error("a repository name has 2 to 255 characters, this one has {0}")]
    Length(usize),
    /// The repository has other characters than the specification allows.
    #[error("a repository name consists of a-z, 0-9, '_', '-', '.' and '/'")]
    Characters,
    /// The repository has an empty part, or `.` or `..`.
    #[error("a repository name has no empty part and no part '.' or '..'")]
    Part,
    /// No registry host is named, which would mean Docker Hub, while a credential is to be presented.
    #[error("the URL names no registry host; with a credential Docker Hub is not assumed")]
    Shorthand,
}

/// A repository in a registry, parsed from `oci://host[:port]/repository` (at most 255 characters of repository).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepositoryUrl {
    authority: Authority,
    repository: Arc<str>,
}

/// Host and port as given, the host in lower case; without a port the scheme's default applies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Authority {
    host: Host<String>,
    port: Option<u16>,
}

impl RepositoryUrl {
    /// Parses a `spec.url`. With `credential_in_force` a URL without a registry host is refused instead of meaning
    /// Docker Hub.
    pub fn parse(text: &str, credential_in_force: bool) -> Result<Self, UrlError> {
        let rest = text.strip_prefix("oci://").ok_or(UrlError::Scheme)?;
        let (first, path) = rest
            .split_once('/')
            .map_or((rest, None), |(first, path)| (first, Some(path)));
        if first.contains('@') && (path.is_some() || first.contains(':')) && !first.contains("@sha") {
            return Err(UrlError::UserInfo);
        }
        let names_host = first.contains(['.', ':']) || first == "localhost";
        let (authority, repository) = match path {
            Some(path) if names_host => (Authority::parse(first)?, path.to_owned()),
            None if names_host && first.contains('.') && !first.contains(':') => return Err(UrlError::NoRepository),
            None if first == "localhost" || first.is_empty() => return Err(UrlError::NoRepository),
            _ if credential_in_force => return Err(UrlError::Shorthand),
            _ => (Authority::docker_hub(), rest.to_owned()),
        };
        let repository = if authority.is_docker_hub() && !repository.contains('/') && !repository.is_empty() {
            format!("library/{repository}")
        } else {
            repository
        };
        check_repository(&repository)?;
        Ok(Self {
            authority,
            repository: repository.into(),
        })
    }

    /// The repository's name without the host.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Where its requests go: `https`, or `http` with `insecure`.
    pub fn origin(&self, insecure: bool) -> Origin {
        let port = self.authority.port.unwrap_or(if insecure { 80 } else { 443 });
        Origin {
            https: !insecure,
            host: self.authority.host.clone(),
            port,
        }
    }

    /// The scope a token for pulling from it has to cover.
    pub fn scope(&self) -> Scope {
        Scope(format!("repository:{}:pull", self.repository).into())
    }
}

impl fmt::Display for RepositoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}", self.authority.host)?;
        if let Some(port) = self.authority.port {
            write!(f, ":{port}")?;
        }
        write!(f, "/{}", self.repository)
    }
}

impl Authority {
    fn parse(text: &str) -> Result<Self, UrlError> {
        let refuse = || UrlError::Host(text.chars().filter(|c| !c.is_control()).take(255).collect());
        if !text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
        {
            return Err(refuse());
        }
        // A scheme without default port keeps a written port as it is.
        let url = Url::parse(&format!("http://{text}/")).map_err(|_| refuse())?;
        let explicit = Url::parse(&format!("https://{text}/")).map_err(|_| refuse())?;
        let host = url.host().ok_or_else(refuse)?.to_owned();
        let port = url.port().or_else(|| explicit.port());
        let (host, port) = match host {
            Host::Domain(name) if name == "docker.io" && port.is_none() => (Host::Domain(DOCKER_HUB.to_owned()), None),
            other => (other, port),
        };
        Ok(Self { host, port })
    }

    fn docker_hub() -> Self {
        Self {
            host: Host::Domain(DOCKER_HUB.to_owned()),
            port: None,
        }
    }

    fn is_docker_hub(&self) -> bool {
        self.port.is_none() && matches!(&self.host, Host::Domain(name) if name == DOCKER_HUB)
    }
}

fn check_repository(repository: &str) -> Result<(), UrlError> {
    if repository.is_empty() {
        return Err(UrlError::NoRepository);
    }
    if repository.contains([':', '@']) {
        return Err(UrlError::Reference);
    }
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-./".contains(&b);
    if !repository.bytes().all(allowed) {
        return Err(UrlError::Characters);
    }
    if !(2..=255).contains(&repository.len()) {
        return Err(UrlError::Length(repository.len()));
    }
    if repository.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(UrlError::Part);
    }
    Ok(())
}

/// Scheme, host and port: what a credential is presented to (RFC 6454).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    https: bool,
    host: Host<String>,
    port: u16,
}

impl Origin {
    /// The origin of an `http` or `https` URL, none for other schemes.
    pub fn of(url: &Url) -> Option<Self> {
        let https = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        Some(Self {
            https,
            host: url.host()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }

    /// Whether TLS is used.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The host's address when the host is one, not a name.
    pub fn literal(&self) -> Option<IpAddr> {
        match self.host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
        }
    }

    /// The port, the scheme's default included.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port of the scheme.
    pub fn default_port(&self) -> u16 {
        if self.https { 443 } else { 80 }
    }

    /// Host without port; IPv6 addresses in brackets.
    pub fn host(&self) -> String {
        self.host.to_string()
    }

    /// `host`, followed by `:port` unless it is the scheme's default.
    pub fn host_port(&self) -> String {
        if self.has_default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether `audience` names this origin: it equals the `host[:port]`, or is an https URL with that authority.
    /// Letter case and default ports do not matter; a plain word names none.
    pub fn is_named_by(&self, audience: &Audience) -> bool {
        let text = audience.as_str();
        if text.contains("://") {
            let Ok(url) = Url::parse(text) else { return false };
            let anonymous = url.username().is_empty() && url.password().is_none();
            return anonymous && self.https && Self::of(&url).as_ref() == Some(self);
        }
        if !text.contains(['.', ':']) || text.contains(['/', '@', '?', '#', '\\']) || !text.is_ascii() {
            return false;
        }
        let scheme = if self.https { "https" } else { "http" };
        Url::parse(&format!("{scheme}://{text}/")).is_ok_and(|url| Self::of(&url).as_ref() == Some(self))
    }

    fn has_default_port(&self) -> bool {
        self.port == self.default_port()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        if self.has_default_port() {
            write!(f, "{scheme}://{}", self.host)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// What a token is asked for: `repository:<name>:pull`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope(Arc<str>);

impl Scope {
    /// The text for the `scope` parameter of a token request.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(
        "oci://registry.example/team/app",
        "oci://registry.example/team/app",
        "https://registry.example"
    )]
    #[case(
        "oci://Registry.Example:5000/app",
        "oci://registry.example:5000/app",
        "https://registry.example:5000"
    )]
    #[case("oci://localhost/app", "oci://localhost/app", "https://localhost")]
    #[case("oci://[::1]:5000/app", "oci://[::1]:5000/app", "https://[::1]:5000")]
    #[case(
        "oci://registry.example:80/app",
        "oci://registry.example:80/app",
        "https://registry.example:80"
    )]
    #[case(
        "oci://docker.io/alpine",
        "oci://index.docker.io/library/alpine",
        "https://index.docker.io"
    )]
    #[case(
        "oci://stefan/podinfo",
        "oci://index.docker.io/stefan/podinfo",
        "https://index.docker.io"
    )]
    #[case("oci://alpine", "oci://index.docker.io/library/alpine", "https://index.docker.io")]
    fn parses(#[case] text: &str, #[case] printed: &str, #[case] origin: &str) {
        let url = RepositoryUrl::parse(text, false).unwrap();
        assert_eq!(url.to_string(), printed);
        assert_eq!(url.origin(false).to_string(), origin);
    }

    #[rstest]
    #[case("https://registry.example/app", UrlError::Scheme)]
    #[case("oci://registry.example", UrlError::NoRepository)]
    #[case("oci://registry.example/", UrlError::NoRepository)]
    #[case("oci://", UrlError::NoRepository)]
    #[case("oci://registry.example/app:v1", UrlError::Reference)]
    #[case("oci://registry.example/app@sha256:00", UrlError::Reference)]
    #[case("oci://user:secret@registry.example/app", UrlError::UserInfo)]
    #[case("oci://registry.example/App", UrlError::Characters)]
    #[case("oci://registry.example/app?x=1", UrlError::Characters)]
    #[case("oci://registry.example/a", UrlError::Length(1))]
    #[case("oci://registry.example/a/../b", UrlError::Part)]
    #[case("oci://registry.example/a//b", UrlError::Part)]
    #[case("oci://registry.example/app/", UrlError::Part)]
    #[case("oci://registry.example:99999/app", UrlError::Host("registry.example:99999".into()))]
    fn refuses(#[case] text: &str, #[case] error: UrlError) {
        assert_eq!(RepositoryUrl::parse(text, false), Err(error));
    }

    #[rstest]
    #[case("oci://stefan/podinfo")]
    #[case("oci://alpine")]
    fn shorthand_is_refused_with_a_credential(#[case] text: &str) {
        assert_eq!(RepositoryUrl::parse(text, true), Err(UrlError::Shorthand));
    }

    #[rstest]
    #[case("registry.example", true)]
    #[case("REGISTRY.example:443", true)]
    #[case("https://registry.example", true)]
    #[case("https://registry.example:443/anything", true)]
    #[case("registry.example:5000", false)]
    #[case("http://registry.example", false)]
    #[case("https://user@registry.example", false)]
    #[case("registry", false)]
    #[case("evil.example", false)]
    #[case("registry.example/x", false)]
    #[case("x@registry.example", false)]
    fn audience_names_origin(#[case] audience: &str, #[case] expected: bool) {
        let origin = RepositoryUrl::parse("oci://registry.example/app", true)
            .unwrap()
            .origin(false);
        assert_eq!(origin.is_named_by(&Audience::new(audience).unwrap()), expected);
    }

    #[test]
    fn scope_names_the_repository() {
        assert_eq!(
            RepositoryUrl::parse("oci://r.example/team/app", true)
                .unwrap()
                .scope()
                .as_str(),
            "repository:team/app:pull"
        );
    }

    proptest! {
        #[test]
        fn what_parses_prints_to_itself(text in "oci://[a-z]{1,8}\\.[a-z]{2,4}(:[1-9][0-9]{0,3})?/[a-z0-9][a-z0-9_/.-]{1,20}") {
            if let Ok(url) = RepositoryUrl::parse(&text, true) {
                prop_assert_eq!(RepositoryUrl::parse(&url.to_string(), true).unwrap(), url);
            }
        }

        #[test]
        fn never_panics(text in "(oci://)?\\PC{0,60}") {
            let _ = RepositoryUrl::parse(&text, false);
        }
    }
}
