//! Which network addresses the registry client may dial.
//!
//! Repository URLs come from tenants, realms and redirects from registries: both must not reach the pod's own ports, the
//! node's metadata service or the cluster network behind the operator's back. The address that is actually dialled is
//! what counts, so the check sits in the resolver ([`super::resolver`]) and, for literal hosts, before the request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Denied unless the operator says otherwise: loopback, "this host", link-local with its metadata services, the metadata
/// addresses outside of it (AWS IPv6, Alibaba, Azure, Oracle), multicast and broadcast. The caller adds its own pod IP and
/// the API server.
const DEFAULT_DENIED: [&str; 13] = [
    "127.0.0.0/8",
    "::1/128",
    "0.0.0.0/8",
    "::/128",
    "169.254.0.0/16",
    "fe80::/10",
    "fd00:ec2::254/128",
    "100.100.100.200/32",
    "168.63.129.16/32",
    "192.0.0.192/32",
    "224.0.0.0/4",
    "ff00::/8",
    "255.255.255.255/32",
];

/// Addresses that are not of the public Internet, where the registry may not send us on its own account.
const PRIVATE: [&str; 15] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "0.0.0.0/8",
    "192.0.0.0/24",
    "198.18.0.0/15",
    "240.0.0.0/4",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "::/128",
    "::1/128",
];

/// Who chose the target, and so which addresses it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// The object's own registry: everything that is not denied.
    Configured,
    /// A realm or redirect the registry named: neither denied nor private.
    RegistryChosen,
    /// A token over plain HTTP: loopback and nothing else, and that not denied.
    Loopback,
}

/// A target's address is not allowed. The text names the rule, not the address a name resolved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressDenied {
    /// On the deny list and not on the allow list.
    #[error("its address is denied by --registry-deny-cidrs")]
    Denied,
    /// Chosen by the registry, and private.
    #[error("the registry chose it, and its address is private")]
    Private,
    /// A token may not travel there in the clear.
    #[error("a token is not sent over plain HTTP to a peer that is not loopback")]
    NotLoopback,
}

/// The operator's rules: an address on the deny list is refused unless the allow list has it too.
#[derive(Debug, Clone)]
pub struct AddressPolicy {
    deny: Vec<IpNet>,
    allow: Vec<IpNet>,
    private: Vec<IpNet>,
}

impl AddressPolicy {
    /// Rules from `--registry-deny-cidrs` and `--registry-allow-cidrs`.
    pub fn new(deny: Vec<IpNet>, allow: Vec<IpNet>) -> Self {
        Self {
            deny,
            allow,
            private: parse(&PRIVATE),
        }
    }

    /// The networks that `--registry-deny-cidrs` holds when it is not given.
    pub fn default_denied() -> Vec<IpNet> {
        parse(&DEFAULT_DENIED)
    }

    /// Whether `address` may be dialled.
    pub(super) fn check(&self, address: IpAddr, reach: Reach) -> Result<(), AddressDenied> {
        let address = unwrap_embedded(address);
        let listed = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&address));
        if listed(&self.deny) && !listed(&self.allow) {
            return Err(AddressDenied::Denied);
        }
        match reach {
            Reach::RegistryChosen if listed(&self.private) => Err(AddressDenied::Private),
            Reach::Loopback if !address.is_loopback() => Err(AddressDenied::NotLoopback),
            _ => Ok(()),
        }
    }

    /// Whether `address` is outside the public Internet.
    pub(super) fn is_private(&self, address: IpAddr) -> bool {
        let address = unwrap_embedded(address);
        self.private.iter().any(|network| network.contains(&address))
    }
}

impl Default for AddressPolicy {
    fn default() -> Self {
        Self::new(Self::default_denied(), Vec::new())
    }
}

fn parse(networks: &[&str]) -> Vec<IpNet> {
    networks.iter().filter_map(|network| network.parse().ok()).collect()
}

/// The IPv4 address inside an IPv4-mapped or -compatible address (RFC 4291 §2.5.5), the NAT64 prefix (RFC 6052) or a 6to4
/// address (RFC 3056): that one is reached in the end.
fn unwrap_embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let ipv4 = |high: u16, low: u16| IpAddr::from(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    let [first, second, third, .., penultimate, last] = v6.segments();
    if let Some(v4) = v6.to_ipv4_mapped() {
        return v4.into();
    }
    let upper = v6.to_bits() >> 32;
    let compatible = upper == 0 && v6 != Ipv6Addr::LOCALHOST && v6 != Ipv6Addr::UNSPECIFIED;
    if compatible || upper == 0x0064_ff9b_u128 << 64 {
        return ipv4(penultimate, last);
    }
    if first == 0x2002 {
        return ipv4(second, third);
    }
    address
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn all_constants_parse() {
        assert_eq!(AddressPolicy::default_denied().len(), DEFAULT_DENIED.len());
        assert_eq!(AddressPolicy::default().private.len(), PRIVATE.len());
    }

    #[rstest]
    #[case::loopback("127.0.0.1")]
    #[case::loopback_v6("::1")]
    #[case::mapped("::ffff:127.0.0.1")]
    #[case::compatible("::7f00:1")]
    #[case::nat64("64:ff9b::a9fe:a9fe")]
    #[case::six_to_four("2002:7f00:1::")]
    #[case::unspecified("0.0.0.0")]
    #[case::unspecified_v6("::")]
    #[case::metadata("169.254.169.254")]
    #[case::metadata_v6("fd00:ec2::254")]
    #[case::link_local("fe80::1")]
    #[case::multicast("224.0.0.1")]
    fn denied_by_default(#[case] text: &str) {
        assert_eq!(
            AddressPolicy::default().check(address(text), Reach::Configured),
            Err(AddressDenied::Denied)
        );
    }

    #[rstest]
    #[case("10.1.2.3")]
    #[case("192.168.1.1")]
    #[case("fd00::1")]
    #[case("::ffff:10.0.0.1")]
    fn private_is_for_the_object_to_choose_and_not_for_the_registry(#[case] text: &str) {
        let policy = AddressPolicy::default();
        assert_eq!(policy.check(address(text), Reach::Configured), Ok(()));
        assert_eq!(
            policy.check(address(text), Reach::RegistryChosen),
            Err(AddressDenied::Private)
        );
        assert!(policy.is_private(address(text)));
    }

    #[test]
    fn allow_overrides_deny_only() {
        let policy = AddressPolicy::new(AddressPolicy::default_denied(), vec!["127.0.0.0/8".parse().unwrap()]);
        assert_eq!(policy.check(address("127.0.0.1"), Reach::Configured), Ok(()));
        assert_eq!(policy.check(address("127.0.0.1"), Reach::Loopback), Ok(()));
        assert_eq!(
            policy.check(address("127.0.0.1"), Reach::RegistryChosen),
            Err(AddressDenied::Private)
        );
        assert_eq!(
            policy.check(address("10.0.0.1"), Reach::Loopback),
            Err(AddressDenied::NotLoopback)
        );
        assert_eq!(policy.check(address("8.8.8.8"), Reach::RegistryChosen), Ok(()));
    }
}
