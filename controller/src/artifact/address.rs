//! The address that artifact URLs name: `--storage-adv-addr`, or what `--storage-addr` implies.

/// Why no advertised address can be derived.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// `--storage-addr` is not `host:port`.
    #[error("--storage-addr: '{0}' is not <host>:<port>")]
    ListenAddress(String),
    /// `--storage-adv-addr` holds white space or a path.
    #[error("--storage-adv-addr: '{0}' is not <host>[:<port>]")]
    Advertised(String),
    /// `--storage-addr` names all addresses and this machine has no name.
    #[error("--storage-adv-addr is needed: this machine's host name is not known")]
    NoHostName,
}

/// `http://<host>[:<port>]` that consumers reach the artifact server under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertisedAddress {
    base: String,
}

impl AdvertisedAddress {
    /// `advertised` as given (`host[:port]`, or with `http://` or `https://`), else derived from `listen`: an empty host
    /// is `localhost`, `0.0.0.0` and `[::]` are what `host_name` answers.
    pub fn new(
        advertised: Option<&str>,
        listen: &str,
        host_name: impl FnOnce() -> Option<String>,
    ) -> Result<Self, AddressError> {
        let base = match advertised.filter(|advertised| !advertised.is_empty()) {
            Some(advertised) => check(advertised)?,
            None => format!("http://{}", derive(listen, host_name)?),
        };
        Ok(Self { base })
    }

    /// The URL of a path in the storage.
    pub fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    /// Whether a URL, such as that of an artifact in a status, names this address.
    pub fn names(&self, url: &str) -> bool {
        url.strip_prefix(self.base.as_str())
            .is_some_and(|rest| rest.starts_with('/'))
    }
}

/// `HOSTNAME`, which Kubernetes sets to the pod's name, else what the kernel says.
pub fn host_name() -> Option<String> {
    let given = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    given.or_else(|| hostname::get().ok()?.into_string().ok())
}

fn check(advertised: &str) -> Result<String, AddressError> {
    let (scheme, host) = match advertised.split_once("://") {
        Some((scheme @ ("http" | "https"), host)) => (scheme, host),
        Some(_) => return Err(AddressError::Advertised(advertised.to_owned())),
        None => ("http", advertised),
    };
    let host = host.trim_end_matches('/');
    let is_host_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']' | b'_');
    if host.is_empty() || !host.bytes().all(is_host_byte) {
        return Err(AddressError::Advertised(advertised.to_owned()));
    }
    Ok(format!("{scheme}://{host}"))
}

fn derive(listen: &str, host_name: impl FnOnce() -> Option<String>) -> Result<String, AddressError> {
    let malformed = || AddressError::ListenAddress(listen.to_owned());
    let (host, port) = listen.rsplit_once(':').ok_or_else(malformed)?;
    if port.parse::<u16>().is_err() {
        return Err(malformed());
    }
    match host {
        "" => Ok(format!("localhost:{port}")),
        "0.0.0.0" | "[::]" => Ok(format!("{}:{port}", host_name().ok_or(AddressError::NoHostName)?)),
        host => Ok(format!("{host}:{port}")),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(None, ":9090", "http://localhost:9090/p")]
    #[case(Some(""), ":9090", "http://localhost:9090/p")]
    #[case(None, "0.0.0.0:9090", "http://pod-1:9090/p")]
    #[case(None, "[::]:9090", "http://pod-1:9090/p")]
    #[case(None, "127.0.0.1:1", "http://127.0.0.1:1/p")]
    #[case(
        Some("mintmark.ns.svc.cluster.local."),
        ":9090",
        "http://mintmark.ns.svc.cluster.local./p"
    )]
    #[case(Some("127.0.0.1:34567"), "x", "http://127.0.0.1:34567/p")]
    #[case(Some("https://artifacts.example/"), ":1", "https://artifacts.example/p")]
    fn urls(#[case] advertised: Option<&str>, #[case] listen: &str, #[case] expected: &str) {
        let address = AdvertisedAddress::new(advertised, listen, || Some("pod-1".to_owned())).unwrap();
        assert_eq!(address.url("p"), expected);
        assert!(address.names(expected));
    }

    #[rstest]
    #[case(None, "9090")]
    #[case(None, ":port")]
    #[case(None, "0.0.0.0:1")]
    #[case(Some("ftp://x"), ":1")]
    #[case(Some("host/path"), ":1")]
    #[case(Some("a b"), ":1")]
    fn bad_addresses(#[case] advertised: Option<&str>, #[case] listen: &str) {
        assert!(AdvertisedAddress::new(advertised, listen, || None).is_err());
    }

    #[test]
    fn other_hosts_are_not_ours() {
        let address = AdvertisedAddress::new(Some("mintmark.ns"), ":1", || None).unwrap();
        assert!(!address.names("http://mintmark.ns.evil/x"));
        assert!(!address.names("http://source-controller.flux-system/x"));
    }
}
