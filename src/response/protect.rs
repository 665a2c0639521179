//! What no action may touch: networks of the settings, the machine's own addresses, and always loopback, the
//! unspecified addresses and multicast.
//!
//! Everything is compared in one space, that of IPv6 with IPv4 as `::ffff:0:0/96`, so that no way of writing an address
//! slips past: mapped forms, networks around a protected address, and the IPv4 inside 6to4, NAT64 and IPv4-compatible
//! addresses.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What is protected, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Protected {
    networks: Vec<(Ipv6Net, IpNet, &'static str)>,
}

/// Why a target must not be touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is no single IP address.
    NotAnAddress(String),
    /// It lies in, or around, something protected.
    Protected {
        /// The target as given.
        target: String,
        /// What protects it.
        network: IpNet,
        /// Where that comes from.
        origin: &'static str,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotAnAddress(target) => write!(f, "target {target:?} is not one IP address"),
            Refusal::Protected { target, network, origin } => {
                write!(f, "target {target} is protected by {network} ({origin})")
            }
        }
    }
}

/// Protected everywhere, whatever the settings say.
const ALWAYS: &[(&str, &str)] = &[
    ("127.0.0.0/8", "loopback"),
    ("::1/128", "loopback"),
    ("0.0.0.0/8", "unspecified"),
    ("::/128", "unspecified"),
    ("224.0.0.0/4", "multicast"),
    ("255.255.255.255/32", "broadcast"),
    ("ff00::/8", "multicast"),
];

impl Protected {
    /// What the settings protect, and what is always protected.
    #[must_use]
    pub fn new(networks: &[IpNet]) -> Protected {
        let always = ALWAYS.iter().filter_map(|(network, origin)| Some((network.parse().ok()?, *origin)));
        let given = networks.iter().map(|network| (*network, "settings"));
        let networks = always.chain(given).map(|(network, origin)| (widened(network), network, origin)).collect();
        Protected { networks }
    }

    /// The same with these addresses too.
    #[must_use]
    pub fn with_own(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Protected {
        self.networks.extend(addresses.into_iter().map(|address| {
            let network = IpNet::from(address);
            (widened(network), network, "own address")
        }));
        self
    }

    /// Lets a target through as one address in canonical form, or says why not.
    ///
    /// # Errors
    /// It is no address, or touches something protected.
    pub fn check(&self, target: &str) -> Result<IpAddr, Refusal> {
        let not = || Refusal::NotAnAddress(target.chars().take(128).collect());
        let network: IpNet = match target.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => target.parse().map_err(|_| not())?,
        };
        let wide = widened(network);
        let hidden = embedded(wide.addr()).map(|address| widened(IpNet::from(IpAddr::V4(address))));
        for tried in std::iter::once(wide).chain(hidden) {
            if let Some((_, by, origin)) = self.networks.iter().find(|(held, ..)| overlap(held, &tried)) {
                return Err(Refusal::Protected { target: network.to_string(), network: *by, origin });
            }
        }
        if network.prefix_len() != network.max_prefix_len() {
            return Err(not());
        }
        Ok(network.addr().to_canonical())
    }
}

/// Two networks overlap when one contains the other's first address.
fn overlap(one: &Ipv6Net, other: &Ipv6Net) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// A network in the space of IPv6.
fn widened(network: IpNet) -> Ipv6Net {
    match network {
        IpNet::V4(network) => mapped(network),
        IpNet::V6(network) => network.trunc(),
    }
}

fn mapped(network: Ipv4Net) -> Ipv6Net {
    Ipv6Net::new(network.network().to_ipv6_mapped(), network.prefix_len().saturating_add(96))
        .expect("an IPv4 prefix has at most 32 bits, 96 more are 128")
}

/// The IPv4 address that another way of writing carries: 6to4 (RFC 3056), NAT64 (RFC 6052), IPv4-compatible (RFC 4291).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.octets();
    match (a, b) {
        (0x20, 0x02) => Some(Ipv4Addr::new(c, d, e, f)),
        (0x00, 0x64) if (c, d) == (0xff, 0x9b) => Some(Ipv4Addr::new(m, n, o, p)),
        (0, 0) if [c, d, e, f, g, h, i, j, k, l] == [0; 10] && m != 0 => Some(Ipv4Addr::new(m, n, o, p)),
        _ => None,
    }
}

/// The addresses of a machine, from the text of `/proc/net/fib_trie` and `/proc/net/if_inet6`.
pub(crate) fn own_addresses(proc_text: &str) -> Vec<IpAddr> {
    let mut own = Vec::new();
    let mut last = None;
    for line in proc_text.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.starts_with("/32 host LOCAL") {
            own.extend(last.map(IpAddr::V4));
        } else if let Some(hex) = line.split(' ').next().filter(|hex| hex.len() == 32) {
            own.extend(u128::from_str_radix(hex, 16).ok().map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))));
        }
    }
    own.sort();
    own.dedup();
    own
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn protected() -> Protected {
        let networks = ["10.0.0.0/24", "2001:db8:1::/48", "::ffff:192.0.2.0/120"].map(|text| text.parse().unwrap());
        Protected::new(&networks).with_own(["198.51.100.7".parse().unwrap(), "2001:db8:9::7".parse().unwrap()])
    }

    #[track_caller]
    fn check(target: &str, expect: &str) {
        let shown = match protected().check(target) {
            Ok(address) => address.to_string(),
            Err(Refusal::NotAnAddress(_)) => "no address".to_owned(),
            Err(Refusal::Protected { origin, .. }) => origin.to_owned(),
        };
        assert_eq!(shown, expect, "{target}");
    }

    #[test]
    fn every_way_of_writing_is_seen_through() {
        for (target, expect) in [
            ("203.0.113.9", "203.0.113.9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("203.0.113.9/32", "203.0.113.9"),
            ("2001:DB8:2::1", "2001:db8:2::1"),
            ("10.0.0.200", "settings"),
            ("::ffff:10.0.0.200", "settings"),
            ("::ffff:a00:c8", "settings"),
            ("192.0.2.1", "settings"),
            ("2002:a00:1::1", "settings"),
            ("64:ff9b::10.0.0.1", "settings"),
            ("::10.0.0.1", "settings"),
            ("10.0.0.0/16", "settings"),
            ("0.0.0.0/0", "loopback"),
            ("::/0", "loopback"),
            ("::ffff:0:0/96", "loopback"),
            ("2001:db8:1:2::3", "settings"),
            ("198.51.100.7", "own address"),
            ("2001:db8:9::7", "own address"),
            ("127.8.8.8", "loopback"),
            ("::1", "loopback"),
            ("224.0.0.1", "multicast"),
            ("203.0.113.0/24", "no address"),
            ("host.example.", "no address"),
            ("203.0.113.9 ; flush ruleset", "no address"),
            ("0xa.0.0.1", "no address"),
            ("", "no address"),
        ] {
            check(target, expect);
        }
    }

    #[test]
    fn own_addresses_are_read_from_proc() {
        let text = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 10.9.0.0\n        /24 link UNICAST\n     |-- 10.9.0.1\n        /32 host LOCAL\n\
                    00000000000000000000000000000001 01 80 10 80       lo\n";
        assert_eq!(own_addresses(text), ["10.9.0.1", "::1"].map(|text| text.parse::<IpAddr>().unwrap()));
    }

    fn spelled(address: Ipv4Addr, form: u8, prefix: u8) -> String {
        let [a, b, c, d] = address.octets();
        match form {
            0 => address.to_string(),
            1 => format!("::ffff:{address}"),
            2 => format!("::FFFF:{:x}:{:x}", u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
            3 => format!("{address}/{}", prefix % 33),
            4 => format!("::ffff:{address}/{}", prefix % 129),
            5 => format!("64:ff9b::{address}"),
            6 => format!("2002:{:x}:{:x}::1", u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
            _ => format!("0000:0000:0000:0000:0000:ffff:{address}"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 100_000, ..ProptestConfig::default() })]

        /// Whatever the spelling and the prefix: nothing that touches a protected address passes, and what passes is one
        /// address that is not protected.
        #[test]
        fn nothing_protected_ever_passes(bits: u32, near in 0u8..4, form in 0u8..8, prefix: u8) {
            // Half of them in or near a protected network.
            let address = Ipv4Addr::from_bits(match near {
                0 => 0x0a00_0000 | (bits & 0x3ff),
                1 => 0xc000_0200 | (bits & 0x3ff),
                _ => bits,
            });
            if let Ok(passed) = protected().check(&spelled(address, form, prefix)) {
                let v4: Vec<Ipv4Addr> = match passed {
                    IpAddr::V4(address) => vec![address],
                    IpAddr::V6(address) => embedded(address).into_iter().collect(),
                };
                for address in v4 {
                    let [a, b, c, d] = address.octets();
                    prop_assert!((a, b, c) != (10, 0, 0) && (a, b, c) != (192, 0, 2));
                    prop_assert!((a, b, c, d) != (198, 51, 100, 7) && a != 127 && a != 0 && !(224..240).contains(&a));
                    prop_assert!(address != Ipv4Addr::BROADCAST);
                }
            } else if near > 1 && form < 2 {
                let [a, ..] = address.octets();
                prop_assert!(a == 0 || a == 10 || a == 127 || a >= 224 || a == 192 || a == 198);
            }
        }
    }
}
