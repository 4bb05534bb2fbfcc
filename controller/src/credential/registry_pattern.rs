//! Which registries and repositories an entry of a pull secret is for: the kubelet's rules, which are `path.Match` for
//! every label of the host, equal ports, and the path as a plain prefix.

use crate::content::Glob;

/// Docker Hub as requests name it; its entries have several names.
const DOCKER_HUB: &str = "index.docker.io";

/// What is pulled from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// Host in lower case; IPv6 addresses in brackets.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// Port of the scheme, meant by an entry without one.
    pub default_port: u16,
    /// Repository without leading slash.
    pub repository: &'a str,
}

/// The key of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryPattern {
    host: String,
    labels: Vec<Glob>,
    port: Option<u16>,
    /// Empty, or begins with a slash.
    path: String,
}

impl RegistryPattern {
    /// Reads `[http[s]://]host[:port][/path]`; the scheme does not matter, nor do the paths `/v1/` and `/v2/` of
    /// registry APIs. None when there is no host, or a port that is none: such an entry matches nothing.
    pub fn parse(key: &str) -> Option<Self> {
        let rest = key
            .strip_prefix("https://")
            .or_else(|| key.strip_prefix("http://"))
            .unwrap_or(key);
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let authority = authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        let (host, port) = split_port(&authority)?;
        let is_hub = port.is_none() && matches!(host, "docker.io" | DOCKER_HUB);
        let host = if is_hub { DOCKER_HUB } else { host };
        Some(Self {
            labels: host.split('.').map(Glob::new).collect(),
            host: host.to_owned(),
            port,
            path: path_of(path, is_hub).to_owned(),
        })
    }

    /// Whether the entry is for `target`.
    pub fn matches(&self, target: &Target<'_>) -> bool {
        if self.port.unwrap_or(target.default_port) != target.port {
            return false;
        }
        let path = self.path.strip_prefix('/').unwrap_or_default();
        target.repository.starts_with(path) && self.matches_host(target.host)
    }

    /// Orders entries that match one target: the longest path, then a host without wildcards, then the longest host.
    pub(super) fn specificity(&self) -> impl Ord + use<> {
        let is_literal = !self.host.contains(['*', '?', '[', '\\']);
        (self.path.len(), is_literal, self.host.len(), self.host.clone())
    }

    fn matches_host(&self, host: &str) -> bool {
        if host.starts_with('[') {
            return self.host == host;
        }
        self.labels.len() == host.split('.').count()
            && self
                .labels
                .iter()
                .zip(host.split('.'))
                .all(|(glob, label)| glob.matches(label, &mut 0))
    }
}

/// Host and port of an authority.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    // A colon within brackets belongs to an IPv6 address.
    let after_address = authority.rfind(']').map_or(0, |at| at + 1);
    let colon = authority.get(after_address..)?.find(':').map(|at| at + after_address);
    let (host, port) = match colon {
        Some(at) => (authority.get(..at)?, authority.get(at + 1..)?),
        None => (authority, ""),
    };
    let port = match port {
        "" => None,
        port => Some(port.parse().ok()?),
    };
    (!host.is_empty()).then_some((host, port))
}

/// The path without the API version in front and without being a mere slash.
fn path_of(path: &str, is_hub: bool) -> &str {
    let path = match path {
        "/v1" | "/v2" if is_hub => "",
        path if path.starts_with("/v1/") || path.starts_with("/v2/") => path.get(3..).unwrap_or_default(),
        path => path,
    };
    if path == "/" { "" } else { path }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn matches(key: &str, target: &str) -> bool {
        let (authority, repository) = target.split_once('/').unwrap();
        let (host, port) = split_port(authority).unwrap();
        let target = Target {
            host,
            port: port.unwrap_or(443),
            default_port: 443,
            repository,
        };
        RegistryPattern::parse(key).is_some_and(|pattern| pattern.matches(&target))
    }

    #[rstest]
    #[case::host("r.example", "r.example/app", true)]
    #[case::other_host("r.example", "s.example/app", false)]
    #[case::case("R.Example", "r.example/app", true)]
    #[case::scheme("https://r.example", "r.example/app", true)]
    #[case::plain_scheme("http://r.example/", "r.example/app", true)]
    #[case::api_v1("https://r.example/v1/", "r.example/app", true)]
    #[case::api_v2("r.example/v2/team", "r.example/team/app", true)]
    #[case::not_the_api("r.example/v1", "r.example/app", false)]
    #[case::glob("*.example", "r.example/app", true)]
    #[case::glob_within("r*1.example", "reg-1.example/app", true)]
    #[case::glob_is_one_label("*.example", "a.b.example/app", false)]
    #[case::glob_is_no_suffix("*.example", "example/app", false)]
    #[case::glob_twice("*.*.example", "a.b.example/app", true)]
    #[case::class("r[0-9].example", "r7.example/app", true)]
    #[case::port("r.example:5000", "r.example:5000/app", true)]
    #[case::other_port("r.example:5000", "r.example:5001/app", false)]
    #[case::port_missing("r.example", "r.example:5000/app", false)]
    #[case::port_too_much("r.example:5000", "r.example/app", false)]
    #[case::default_port("r.example:443", "r.example/app", true)]
    #[case::no_port_number("r.example:x", "r.example/app", false)]
    #[case::path("r.example/team", "r.example/team/app", true)]
    #[case::path_is_a_plain_prefix("r.example/tea", "r.example/team/app", true)]
    #[case::path_with_slash("r.example/team/", "r.example/team/app", true)]
    #[case::other_path("r.example/team", "r.example/other/app", false)]
    #[case::longer_path("r.example/team/app/x", "r.example/team/app", false)]
    #[case::path_has_no_globs("r.example/*", "r.example/team", false)]
    #[case::hub("https://index.docker.io/v1/", "index.docker.io/library/alpine", true)]
    #[case::hub_short("docker.io", "index.docker.io/library/alpine", true)]
    #[case::hub_plain("index.docker.io", "index.docker.io/library/alpine", true)]
    #[case::hub_without_last_slash("https://index.docker.io/v1", "index.docker.io/library/alpine", true)]
    #[case::hub_path("docker.io/team", "index.docker.io/team/app", true)]
    #[case::hub_other_path("docker.io/team", "index.docker.io/other/app", false)]
    #[case::no_hub("docker.io.example", "index.docker.io/team/app", false)]
    #[case::v6("[::1]:5000", "[::1]:5000/app", true)]
    #[case::other_v6("[::2]:5000", "[::1]:5000/app", false)]
    #[case::user_info("user@r.example", "r.example/app", true)]
    #[case::nothing("", "r.example/app", false)]
    #[case::only_a_path("/team", "r.example/team", false)]
    fn as_the_kubelet_does(#[case] key: &str, #[case] target: &str, #[case] expected: bool) {
        assert_eq!(matches(key, target), expected);
    }

    proptest! {
        #[test]
        fn never_panics(key in "\\PC{0,40}", host in "[a-z.*\\[\\]:]{1,20}") {
            let target = Target { host: &host, port: 1, default_port: 2, repository: "a/b" };
            let _ = RegistryPattern::parse(&key).map(|pattern| pattern.matches(&target));
        }

        #[test]
        fn a_host_matches_itself_and_no_other(host in "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}", other in "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}") {
            let target = |host| Target { host, port: 443, default_port: 443, repository: "a" };
            let pattern = RegistryPattern::parse(&host).unwrap();
            prop_assert!(pattern.matches(&target(&host)));
            prop_assert_eq!(pattern.matches(&target(&other)), host == other);
        }
    }
}
