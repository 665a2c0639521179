//! What ATT&CK tags say of an alert: techniques, tactics, and how the attacker gets there (RSK-05).

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::entity::{Entity, EntityKind};

/// How the attacker gets there: CVSS 3.1, section 2.1.1. The order is that of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vector {
    /// Nothing says.
    Unknown,
    /// With a hand on it.
    Physical,
    /// From the machine itself.
    Local,
    /// From the same network.
    Adjacent,
    /// From anywhere.
    Network,
}

impl Vector {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Vector::Unknown => "unknown",
            Vector::Physical => "physical",
            Vector::Local => "local",
            Vector::Adjacent => "adjacent",
            Vector::Network => "network",
        }
    }

    /// 900 + 100 × AV / 0.85 with CVSS 3.1's values of AV (section 7.4), rounded down; the unknown is the worst.
    pub(super) const fn weight_permille(self) -> u16 {
        match self {
            Vector::Physical => 923,
            Vector::Local => 964,
            Vector::Adjacent => 972,
            Vector::Network | Vector::Unknown => 1_000,
        }
    }
}

/// Techniques whose vector is plain from what they are. By technique, without its part; others by their tactic.
const VECTORS: &[(Vector, &[&str])] = &[
    (
        Vector::Network,
        &[
            "T1021", "T1041", "T1046", "T1048", "T1071", "T1078", "T1090", "T1095", "T1102", "T1105", "T1110", "T1133",
            "T1189", "T1190", "T1203", "T1210", "T1219", "T1498", "T1499", "T1528", "T1534", "T1537", "T1563", "T1566",
            "T1567", "T1568", "T1571", "T1572", "T1573", "T1583", "T1589", "T1590", "T1592", "T1595", "T1621",
        ],
    ),
    (Vector::Adjacent, &["T1040", "T1557", "T1570"]),
    (
        Vector::Local,
        &[
            "T1003", "T1027", "T1036", "T1053", "T1055", "T1059", "T1068", "T1070", "T1112", "T1134", "T1136", "T1140",
            "T1218", "T1222", "T1485", "T1486", "T1489", "T1490", "T1543", "T1546", "T1547", "T1548", "T1552", "T1555",
            "T1562", "T1564", "T1569", "T1574",
        ],
    ),
    (Vector::Physical, &["T1052", "T1091", "T1200"]),
];

/// Technique ids (`T1059.001`) and tactics (`lateral-movement`) of a rule's tags, sorted, without repeats.
pub(super) fn of_tags(tags: &[Arc<str>]) -> (Vec<Arc<str>>, Vec<Arc<str>>) {
    let (mut techniques, mut tactics) = (Vec::new(), Vec::new());
    for tag in tags {
        let tag = tag.to_ascii_lowercase();
        let Some(word) = tag.strip_prefix("attack.") else { continue };
        let digits = word.strip_prefix('t').map(|number| number.split('.').next().unwrap_or(""));
        if digits.is_some_and(|digits| digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit())) {
            techniques.push(Arc::from(word.to_ascii_uppercase()));
        } else if let Some(tactic) = known_tactic(&word.replace('_', "-")) {
            tactics.push(Arc::from(tactic));
        }
    }
    for list in [&mut techniques, &mut tactics] {
        list.sort();
        list.dedup();
    }
    (techniques, tactics)
}

fn known_tactic(word: &str) -> Option<&'static str> {
    TACTICS.iter().map(|(tactic, ..)| *tactic).find(|tactic| *tactic == word)
}

/// Tactics in the order of the kill chain: what they weigh, and from where they are done.
const TACTICS: &[(&str, u16, Vector)] = &[
    ("reconnaissance", 900, Vector::Network),
    ("resource-development", 900, Vector::Network),
    ("initial-access", 1_000, Vector::Network),
    ("execution", 1_000, Vector::Local),
    ("persistence", 1_000, Vector::Local),
    ("privilege-escalation", 1_050, Vector::Local),
    ("defense-evasion", 1_000, Vector::Local),
    ("stealth", 1_000, Vector::Local),
    ("defense-impairment", 1_000, Vector::Local),
    ("credential-access", 1_000, Vector::Unknown),
    ("discovery", 950, Vector::Local),
    ("lateral-movement", 1_050, Vector::Network),
    ("collection", 1_000, Vector::Local),
    ("command-and-control", 1_050, Vector::Network),
    ("exfiltration", 1_100, Vector::Network),
    ("impact", 1_100, Vector::Unknown),
];

/// What a tactic weighs, in thousandths.
pub(super) fn tactic_permille(tactic: &str) -> u16 {
    TACTICS.iter().find(|(known, ..)| *known == tactic).map_or(1_000, |(_, weight, _)| *weight)
}

/// What a technique weighs, in thousandths.
pub(super) fn technique_permille(technique: &str) -> u16 {
    match root(technique) {
        "T1485" | "T1486" | "T1490" | "T1561" => 1_150,
        "T1003" | "T1207" | "T1558" => 1_100,
        _ => 1_000,
    }
}

/// The one that weighs most, of several the first.
pub(super) fn worst(names: &[Arc<str>], weight: fn(&str) -> u16) -> Option<(&str, u16)> {
    let weighed = names.iter().map(|name| (&**name, weight(name)));
    weighed.reduce(|worst, one| if one.1 > worst.1 { one } else { worst })
}

/// By technique; else by tactic; else by whom the alert speaks of. Of several the one of the furthest reach, as CVSS
/// scores the worst case.
pub(super) fn vector(techniques: &[Arc<str>], tactics: &[Arc<str>], entities: &[Entity]) -> Vector {
    let of_technique = |technique: &Arc<str>| {
        let found = VECTORS.iter().find(|(_, ids)| ids.contains(&root(technique)));
        found.map_or(Vector::Unknown, |(vector, _)| *vector)
    };
    let of_tactic = |tactic: &Arc<str>| {
        TACTICS.iter().find(|(known, ..)| *known == &**tactic).map_or(Vector::Unknown, |(_, _, vector)| *vector)
    };
    let steps = [
        techniques.iter().map(of_technique).max(),
        tactics.iter().map(of_tactic).max(),
        entities.iter().map(of_entity).max(),
    ];
    steps.into_iter().flatten().find(|vector| *vector != Vector::Unknown).unwrap_or(Vector::Unknown)
}

fn of_entity(entity: &Entity) -> Vector {
    match entity.kind {
        EntityKind::Address => match entity.value.parse::<IpAddr>() {
            Ok(address) if is_of_the_site(address) => Vector::Adjacent,
            Ok(_) => Vector::Network,
            Err(_) => Vector::Unknown,
        },
        EntityKind::Process | EntityKind::FileHash => Vector::Local,
        EntityKind::Host | EntityKind::User | EntityKind::Domain => Vector::Unknown,
    }
}

/// Private, link-local and loopback addresses (RFC 1918, 3927, 4193, 4291).
fn is_of_the_site(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

fn root(technique: &str) -> &str {
    technique.split('.').next().unwrap_or(technique)
}
