//! Addresses in networks (`cidr`): "Supports both IPv4 and IPv6 notations".

use std::net::IpAddr;

/// An address and how many of its first bits count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// `10.0.0.0/8`; an address alone is a network of one.
    pub(crate) fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse().ok()?, Some(bits.parse().ok()?)),
            None => (text.parse().ok()?, None),
        };
        let most = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Network { address, bits })
    }

    /// Whether the text is an address in it. Taken as addresses: `[::1]` with brackets, `fe80::1%eth0` with a zone, and
    /// an IPv4 address in its IPv6 form (`::ffff:10.0.0.1`) as well as in its own.
    pub(crate) fn has(self, text: &str) -> bool {
        let text = text.trim().trim_matches(['[', ']']);
        let bare = text.split_once('%').map_or(text, |(bare, _)| bare);
        let Ok(address) = bare.parse::<IpAddr>() else { return false };
        [address, address.to_canonical()].into_iter().any(|address| self.holds(address))
    }

    fn holds(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let keep = |bits: u32| u64::from(bits) >> (32 - self.bits);
                keep(net.to_bits()) == keep(address.to_bits())
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let keep = |bits: u128| bits.checked_shr(128 - self.bits).unwrap_or(0);
                keep(net.to_bits()) == keep(address.to_bits())
            }
            _ => false,
        }
    }
}
