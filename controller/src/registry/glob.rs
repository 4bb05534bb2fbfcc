//! Host patterns of the operator's flags.
//!
//! Pure. A pattern is read once at start, so a bad one is an error of the command line.

use super::url::Origin;

/// A pattern for hosts, as `--allow-insecure-credentials` takes it: `*` stands for any run of characters within one
/// label; with a `:port` the port has to match too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostGlob {
    host: String,
    port: Option<u16>,
}

/// Why a text is not a [`HostGlob`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a host pattern such as *.registry.internal or 10.0.0.1:5000")]
pub struct HostGlobError(String);

impl HostGlob {
    /// Parses a pattern of 1–255 characters.
    pub fn parse(text: &str) -> Result<Self, HostGlobError> {
        let refuse = || HostGlobError(text.to_owned());
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().map_err(|_| refuse())?)),
            _ => (text, None),
        };
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"*.-_[]:".contains(&b);
        if host.is_empty() || host.len() > 255 || !host.bytes().all(allowed) {
            return Err(refuse());
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
        })
    }

    /// Whether the origin's host (and port, when the pattern has one) fits.
    pub fn matches(&self, origin: &Origin) -> bool {
        if self.port.is_some_and(|port| port != origin.port()) {
            return false;
        }
        let host = origin.host();
        if host.starts_with('[') {
            return self.host == host;
        }
        self.host.split('.').count() == host.split('.').count()
            && self
                .host
                .split('.')
                .zip(host.split('.'))
                .all(|(glob, label)| label_matches(glob, label))
    }
}

fn label_matches(glob: &str, label: &str) -> bool {
    let Some((head, tail)) = glob.split_once('*') else {
        return glob == label;
    };
    let Some(rest) = label.strip_prefix(head) else {
        return false;
    };
    (0..=rest.len()).any(|skip| rest.get(skip..).is_some_and(|rest| label_matches(tail, rest)))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::registry::RepositoryUrl;

    #[rstest]
    #[case("*.internal", "oci://registry.internal/app", true)]
    #[case("*.internal", "oci://a.b.internal/app", false)]
    #[case("reg*y.internal", "oci://registry.internal/app", true)]
    #[case("registry.internal:5000", "oci://registry.internal:5000/app", true)]
    #[case("registry.internal:5000", "oci://registry.internal/app", false)]
    #[case("10.0.0.*", "oci://10.0.0.7:5000/app", true)]
    fn host_globs(#[case] glob: &str, #[case] url: &str, #[case] expected: bool) {
        let origin = RepositoryUrl::parse(url, true).unwrap().origin(true);
        assert_eq!(HostGlob::parse(glob).unwrap().matches(&origin), expected);
    }

    #[rstest]
    #[case("")]
    #[case("registry.internal:port")]
    #[case("registry.internal/path")]
    fn refuses(#[case] glob: &str) {
        assert_eq!(HostGlob::parse(glob), Err(HostGlobError(glob.to_owned())));
    }
}
