//! `attack_tactic(tag)`: which of ATT&CK's tactics a technique or a tag stands for.
//!
//! A technique may serve several tactics; the first in the order of the kill chain is given, so that grouping by it counts
//! every alert once; what is not in the table gives null.
//!
//! Where the table is from: the tactics with which the public Sigma rules tag techniques (SigmaHQ's collection, which
//! follows ATT&CK 19), and a test holds it against them (`attack_tactics_are_those_of_the_rules`). The 42 techniques that no
//! rule of them names ([`UNNAMED`]) are of ATT&CK 16 by hand. What ATT&CK 19 calls stealth and defense-impairment is
//! defense-evasion here, as in incidents.

use cf_types::incident::Tactic;

/// Techniques by their first tactic.
const TECHNIQUES: &[(Tactic, &[u16])] = &[
    (Tactic::Reconnaissance, &[1589, 1590, 1591, 1592, 1593, 1594, 1595, 1596, 1597, 1598]),
    (Tactic::ResourceDevelopment, &[1583, 1584, 1585, 1586, 1587, 1588, 1608, 1650]),
    (Tactic::InitialAccess, &[1078, 1091, 1133, 1189, 1190, 1195, 1199, 1200, 1566, 1659]),
    (
        Tactic::Execution,
        &[1047, 1053, 1059, 1072, 1106, 1129, 1203, 1204, 1559, 1569, 1609, 1610, 1648, 1651, 1674, 1675],
    ),
    (
        Tactic::Persistence,
        &[1037, 1098, 1136, 1137, 1176, 1197, 1205, 1505, 1525, 1542, 1543, 1546, 1547, 1554, 1556, 1574, 1653, 1668],
    ),
    (Tactic::PrivilegeEscalation, &[1055, 1068, 1134, 1484, 1548, 1611]),
    (
        Tactic::DefenseEvasion,
        &[
            1006, 1014, 1027, 1036, 1070, 1112, 1127, 1140, 1202, 1207, 1211, 1216, 1218, 1220, 1221, 1222, 1480, 1497,
            1535, 1553, 1562, 1564, 1578, 1599, 1600, 1601, 1612, 1620, 1622, 1647, 1656, 1666, 1672, 1685, 1686, 1689,
            1690,
        ],
    ),
    (
        Tactic::CredentialAccess,
        &[1003, 1040, 1056, 1110, 1111, 1187, 1212, 1528, 1539, 1552, 1555, 1557, 1558, 1606, 1621, 1649],
    ),
    (
        Tactic::Discovery,
        &[
            1007, 1010, 1012, 1016, 1018, 1033, 1046, 1049, 1057, 1069, 1082, 1083, 1087, 1120, 1124, 1135, 1201, 1217,
            1482, 1518, 1526, 1538, 1580, 1613, 1614, 1615, 1619, 1652, 1654, 1673,
        ],
    ),
    (Tactic::LateralMovement, &[1021, 1080, 1210, 1534, 1550, 1563, 1570]),
    (Tactic::Collection, &[1005, 1025, 1039, 1074, 1113, 1114, 1115, 1119, 1123, 1125, 1185, 1213, 1530, 1560, 1602]),
    (
        Tactic::CommandAndControl,
        &[1001, 1008, 1071, 1090, 1092, 1095, 1102, 1104, 1105, 1132, 1219, 1568, 1571, 1572, 1573, 1665],
    ),
    (Tactic::Exfiltration, &[1011, 1020, 1029, 1030, 1041, 1048, 1052, 1537, 1567]),
    (Tactic::Impact, &[1485, 1486, 1489, 1490, 1491, 1495, 1496, 1498, 1499, 1529, 1531, 1561, 1565, 1657, 1667]),
];

/// Techniques of the table that no rule of the public collection names: nothing there says their tactic.
#[cfg(test)]
const UNNAMED: &[u16] = &[
    1011, 1025, 1029, 1052, 1080, 1092, 1104, 1111, 1205, 1480, 1530, 1534, 1535, 1538, 1562, 1583, 1585, 1594, 1596,
    1597, 1600, 1601, 1602, 1610, 1612, 1647, 1648, 1650, 1651, 1652, 1654, 1656, 1657, 1659, 1665, 1666, 1667, 1668,
    1672, 1673, 1674, 1675,
];

/// The tactic of `T1059.001`, `attack.t1059.001`, `attack.execution` or `execution`.
pub(super) fn tactic(text: &str) -> Option<&'static str> {
    let text = text.trim().to_ascii_lowercase();
    let word = text.strip_prefix("attack.").unwrap_or(&text);
    let technique = word.strip_prefix('t').map(|number| number.split('.').next().unwrap_or_default());
    let number = technique.filter(|digits| digits.len() == 4).and_then(|digits| digits.parse::<u16>().ok());
    let tactic = match number {
        Some(number) => TECHNIQUES.iter().find(|(_, list)| list.contains(&number)).map(|(tactic, _)| *tactic),
        None => Tactic::of_tag(&format!("attack.{word}")),
    };
    tactic.map(Tactic::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn techniques_and_tags_have_a_tactic() {
        for (text, expect) in [
            ("T1059.001", Some("execution")),
            ("t1110", Some("credential-access")),
            ("attack.t1078.004", Some("initial-access")), // serves four tactics
            ("attack.lateral_movement", Some("lateral-movement")),
            ("Impact", Some("impact")),
            ("T9999", None),
            ("T105", None),
            ("cve.2021.44228", None),
            ("", None),
        ] {
            assert_eq!(tactic(text), expect, "{text}");
        }
    }

    #[test]
    fn a_technique_stands_once() {
        let mut all: Vec<u16> = TECHNIQUES.iter().flat_map(|(_, list)| list.iter().copied()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!((all.len(), count > 200), (count, true));
        assert!(UNNAMED.iter().all(|number| all.binary_search(number).is_ok()));
        assert!(TECHNIQUES.windows(2).all(|pair| pair[0].0 < pair[1].0), "in the order of the kill chain");
    }
}
