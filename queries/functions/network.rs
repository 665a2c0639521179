//! `cidr_match(address, networks)`: whether an address lies in one of the networks.

use std::{net::IpAddr, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, BooleanArray, StringViewArray},
        datatypes::DataType,
    },
    error::{DataFusionError, Result},
    logical_expr::ScalarUDF,
};
use ipnet::IpNet;

use super::by_column;

/// Networks in one argument: a list by hand, not a feed (that is an indicator).
const NETWORKS_MAX: usize = 1_000;

pub(super) fn cidr_match() -> ScalarUDF {
    by_column("cidr_match", 2, DataType::Boolean, |texts, rows| match texts {
        [addresses, networks] => Ok(Arc::new(matches(addresses, networks, rows)?)),
        _ => Err(DataFusionError::Internal("cidr_match takes two arguments".to_owned())),
    })
}

fn matches(addresses: &StringViewArray, networks: &StringViewArray, rows: usize) -> Result<BooleanArray> {
    // Nearly always one text for all rows.
    let mut parsed: Option<(&str, Vec<IpNet>)> = None;
    (0..rows)
        .map(|row| {
            if addresses.is_null(row) || networks.is_null(row) {
                return Ok(None);
            }
            let text = networks.value(row);
            if parsed.as_ref().is_none_or(|(known, _)| *known != text) {
                parsed = Some((text, parse(text)?));
            }
            let address = addresses.value(row).trim().parse::<IpAddr>().map(|address| address.to_canonical());
            let within = |list: &[IpNet]| address.is_ok_and(|address| list.iter().any(|net| net.contains(&address)));
            Ok(Some(parsed.as_ref().is_some_and(|(_, list)| within(list))))
        })
        .collect()
}

/// Networks or single addresses, separated by commas. What is none is an error: a rule with a typing mistake must not
/// quietly match nothing.
fn parse(text: &str) -> Result<Vec<IpNet>> {
    let network = |part: &str| {
        let network = part.parse::<IpNet>().or_else(|_| part.parse::<IpAddr>().map(IpNet::from));
        network.map_err(|_| {
            DataFusionError::Execution(format!("cidr_match: {part:?} is no network; write 10.0.0.0/8 or fe80::/10"))
        })
    };
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.len() > NETWORKS_MAX {
        return Err(DataFusionError::Execution(format!("cidr_match takes at most {NETWORKS_MAX} networks")));
    }
    parts.into_iter().map(network).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, networks: &str, expect: Option<bool>) {
        let (addresses, texts) = (StringViewArray::from(vec![address]), StringViewArray::from(vec![networks]));
        assert_eq!(matches(&addresses, &texts, 1).ok().map(|found| found.value(0)), expect, "{address} in {networks}");
    }

    #[test]
    fn addresses_lie_in_networks() {
        check("10.1.2.3", "10.0.0.0/8", Some(true));
        check("11.1.2.3", "10.0.0.0/8", Some(false));
        check("::ffff:10.1.2.3", "10.0.0.0/8", Some(true)); // as the address entity is written
        check("192.168.7.1", "10.0.0.0/8, 192.168.0.0/16", Some(true));
        check("fe80::1", "fe80::/10", Some(true));
        check("fe80::1", "10.0.0.0/8", Some(false));
        check("10.0.0.1", "10.0.0.1", Some(true));
        check("10.0.0.2", "10.0.0.1", Some(false));
        check("web01", "10.0.0.0/8", Some(false));
        check("10.0.0.1", "10.0.0.0/33", None);
        check("10.0.0.1", "", None);
    }

    #[test]
    fn membership_is_that_of_the_masked_bits() {
        // Beside arithmetic on the bits themselves.
        let mut dice = 7_u64;
        for _ in 0..2_000 {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bits = |shift: u64| u32::try_from((dice >> shift) & 0xffff_ffff).unwrap();
            let (address, near, prefix) = (bits(0), bits(0) ^ (1 << (bits(8) % 32)), bits(20) % 33);
            let mask = if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) };
            let network = format!("{}/{prefix}", std::net::Ipv4Addr::from(near));
            let expect = address & mask == near & mask;
            check(&std::net::Ipv4Addr::from(address).to_string(), &network, Some(expect));
        }
    }
}
