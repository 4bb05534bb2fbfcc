//! The proxy that an object names for itself. It takes the place of the environment's.
//!
//! Pure. Credentials are part of what tells two proxies apart and of nothing that is shown: no text here quotes an address.

use std::fmt;

use http::HeaderValue;
use reqwest::Proxy;
use ring::digest::{Context, SHA256};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::{authorise::basic_login, error::Failure};

/// Why a proxy's address is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Not a URL with a host.
    #[error("the address is not a URL such as http://proxy.example:3128")]
    Url,
    /// A scheme that is not spoken.
    #[error("the address is neither http nor https")]
    Scheme,
    /// User name and password do not fit into a header.
    #[error("user name and password are unusable")]
    Login,
}

/// Address and login of a proxy.
#[derive(Clone)]
pub struct ProxySettings {
    /// Without user information.
    address: Url,
    authorization: Option<HeaderValue>,
    id: ProxyId,
}

/// SHA-256 over address and login: connections are shared by those who have the same.
pub(super) type ProxyId = [u8; 32];

impl ProxySettings {
    /// A proxy at an http or https URL. Without `username`, the login is what the address carries, if anything.
    pub fn new(address: &str, username: Option<&str>, password: &SecretString) -> Result<Self, ProxyError> {
        let mut url = Url::parse(address).map_err(|_| ProxyError::Url)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(ProxyError::Scheme);
        }
        let own = (!url.username().is_empty()).then(|| {
            let decode = |text: &str| form_decoded(text);
            (decode(url.username()), decode(url.password().unwrap_or_default()))
        });
        let given = username.filter(|name| !name.is_empty());
        let login = match (given, own) {
            (Some(username), _) => Some((username.to_owned(), password.expose_secret().to_owned())),
            (None, own) => own,
        };
        url.set_username("").map_err(|()| ProxyError::Url)?;
        url.set_password(None).map_err(|()| ProxyError::Url)?;
        url.set_path("");
        url.set_query(None);
        url.set_fragment(None);
        let authorization = match login {
            None => None,
            Some((username, password)) => {
                Some(basic_login(&username, &password.into()).map_err(|_| ProxyError::Login)?)
            }
        };
        let mut hash = Context::new(&SHA256);
        hash.update(url.as_str().as_bytes());
        hash.update(&[0]);
        hash.update(authorization.as_ref().map(HeaderValue::as_bytes).unwrap_or_default());
        let mut id = ProxyId::default();
        id.copy_from_slice(hash.finish().as_ref());
        Ok(Self {
            address: url,
            authorization,
            id,
        })
    }

    pub(super) fn id(&self) -> ProxyId {
        self.id
    }

    pub(super) fn address(&self) -> &Url {
        &self.address
    }

    pub(super) fn to_reqwest(&self) -> Result<Proxy, Failure> {
        let proxy = Proxy::all(self.address.clone()).map_err(|_| Failure::Setup("the proxy is unusable"))?;
        Ok(match &self.authorization {
            Some(authorization) => proxy.custom_http_auth(authorization.clone()),
            None => proxy,
        })
    }
}

/// Percent-decoded; what is not UTF-8 then is replaced.
fn form_decoded(text: &str) -> String {
    // A plus sign is no space here.
    let text = text.replace('+', "%2B");
    url::form_urlencoded::parse(format!("v={text}").as_bytes())
        .map(|(_, value)| value.into_owned())
        .collect()
}

impl fmt::Debug for ProxySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxySettings").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn proxy(address: &str, username: Option<&str>, password: &str) -> Result<ProxySettings, ProxyError> {
        ProxySettings::new(address, username, &password.into())
    }

    fn header(address: &str, username: Option<&str>, password: &str) -> Option<String> {
        let proxy = proxy(address, username, password).unwrap();
        assert_eq!(proxy.address().as_str(), "http://proxy.example:3128/");
        assert!(!format!("{proxy:?}").contains("proxy.example"));
        let header = proxy.authorization?;
        assert!(header.is_sensitive());
        Some(header.to_str().unwrap().to_owned())
    }

    #[rstest]
    #[case::none("http://proxy.example:3128", None, None)]
    #[case::empty("http://proxy.example:3128/path?query", Some(""), None)]
    #[case::given("http://proxy.example:3128", Some("u"), Some("Basic dTpw"))]
    #[case::in_the_address("http://u:p@proxy.example:3128", None, Some("Basic dTpw"))]
    #[case::encoded_in_the_address("http://u:%70@proxy.example:3128", None, Some("Basic dTpw"))]
    #[case::given_goes_first("http://x:y@proxy.example:3128", Some("u"), Some("Basic dTpw"))]
    fn the_login(#[case] address: &str, #[case] username: Option<&str>, #[case] expected: Option<&str>) {
        assert_eq!(header(address, username, "p").as_deref(), expected);
    }

    #[rstest]
    #[case("proxy.example:3128", ProxyError::Scheme)]
    #[case("socks5://proxy.example", ProxyError::Scheme)]
    #[case("http://", ProxyError::Url)]
    #[case("", ProxyError::Url)]
    fn unusable_addresses(#[case] address: &str, #[case] expected: ProxyError) {
        assert_eq!(proxy(address, None, "").unwrap_err(), expected);
    }

    #[test]
    fn another_address_or_login_is_another_proxy() {
        let id = |address, username, password| proxy(address, username, password).unwrap().id();
        let base = id("http://proxy.example", Some("u"), "p");
        assert_eq!(base, id("http://proxy.example/", Some("u"), "p"));
        assert_ne!(base, id("https://proxy.example", Some("u"), "p"));
        assert_ne!(base, id("http://proxy.example", Some("u"), "q"));
        assert_ne!(base, id("http://proxy.example", None, "p"));
    }
}
