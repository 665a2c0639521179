//! Incidents: alerts connected by shared entities. What is here is pure, a function of the alerts; numbers and states are
//! the ledger's.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    entity::Entity,
    id::{AlertId, IncidentId, Tenant},
    risk::Score,
    time::Cell,
};

/// A component of the graph of alerts and entities, and what its alerts say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incident {
    /// Whose.
    pub tenant: Tenant,
    /// By its smallest (anchor, alert).
    pub id: IncidentId,
    /// Its alerts, sorted by anchor, then id.
    pub alerts: Vec<(Cell, AlertId)>,
    /// The entities of its alerts, sorted.
    pub entities: Vec<Entity>,
    /// What kind of attack its strongest alert speaks of.
    #[serde(default, rename = "type")]
    pub kind: IncidentKind,
    /// How urgent it is.
    #[serde(default)]
    pub severity: IncidentSeverity,
    /// The tactics of its alerts, in the order of the kill chain.
    #[serde(default)]
    pub tactics: Vec<Tactic>,
    /// Entities of its alerts that did not connect on their own, because of the day before; sorted.
    #[serde(default)]
    pub hubs: Vec<Hub>,
}

/// A day of event time, counted since 1970 (UTC).
pub type Day = i64;

/// The day that a cell lies in.
#[must_use]
pub const fn day_of(cell: Cell) -> Day {
    cell.div_euclid(86_400)
}

/// An entity that was near so many others on one day that on the next it connects nothing on its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hub {
    /// Which.
    pub entity: Entity,
    /// The day on which it does not connect: the one after that of its neighbours.
    pub day: Day,
    /// Its distinct neighbours on the day before: entities that one alert named together with it.
    pub neighbours: u32,
}

/// ATT&CK's tactics for enterprises, in the order of the kill chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tactic {
    /// TA0043.
    Reconnaissance,
    /// TA0042.
    ResourceDevelopment,
    /// TA0001.
    InitialAccess,
    /// TA0002.
    Execution,
    /// TA0003.
    Persistence,
    /// TA0004.
    PrivilegeEscalation,
    /// TA0005; newer versions of ATT&CK part it into stealth and the impairment of defences.
    DefenseEvasion,
    /// TA0006.
    CredentialAccess,
    /// TA0007.
    Discovery,
    /// TA0008.
    LateralMovement,
    /// TA0009.
    Collection,
    /// TA0011.
    CommandAndControl,
    /// TA0010.
    Exfiltration,
    /// TA0040.
    Impact,
}

impl Tactic {
    /// The tactic that a rule's tag names: `attack.initial-access`, `attack.initial_access`.
    ///
    /// ```
    /// use cf_types::incident::Tactic;
    /// assert_eq!(Tactic::of_tag("attack.lateral_movement"), Some(Tactic::LateralMovement));
    /// assert_eq!(Tactic::of_tag("attack.t1110"), None);
    /// ```
    #[must_use]
    pub fn of_tag(tag: &str) -> Option<Tactic> {
        let name = tag.to_ascii_lowercase();
        Some(match name.strip_prefix("attack.")?.replace('_', "-").as_str() {
            "reconnaissance" => Tactic::Reconnaissance,
            "resource-development" => Tactic::ResourceDevelopment,
            "initial-access" => Tactic::InitialAccess,
            "execution" => Tactic::Execution,
            "persistence" => Tactic::Persistence,
            "privilege-escalation" => Tactic::PrivilegeEscalation,
            "defense-evasion" | "stealth" | "defense-impairment" => Tactic::DefenseEvasion,
            "credential-access" => Tactic::CredentialAccess,
            "discovery" => Tactic::Discovery,
            "lateral-movement" => Tactic::LateralMovement,
            "collection" => Tactic::Collection,
            "command-and-control" => Tactic::CommandAndControl,
            "exfiltration" => Tactic::Exfiltration,
            "impact" => Tactic::Impact,
            _ => return None,
        })
    }

    /// Its name, as published.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Tactic::Reconnaissance => "reconnaissance",
            Tactic::ResourceDevelopment => "resource-development",
            Tactic::InitialAccess => "initial-access",
            Tactic::Execution => "execution",
            Tactic::Persistence => "persistence",
            Tactic::PrivilegeEscalation => "privilege-escalation",
            Tactic::DefenseEvasion => "defense-evasion",
            Tactic::CredentialAccess => "credential-access",
            Tactic::Discovery => "discovery",
            Tactic::LateralMovement => "lateral-movement",
            Tactic::Collection => "collection",
            Tactic::CommandAndControl => "command-and-control",
            Tactic::Exfiltration => "exfiltration",
            Tactic::Impact => "impact",
        }
    }
}

impl fmt::Display for Tactic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What kind of attack an incident is. Of two that its alerts speak of equally loudly, the later one here counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// No tag says it.
    #[default]
    Other,
    /// Someone looks around, from outside or within.
    Reconnaissance,
    /// A policy of the house was broken.
    PolicyViolation,
    /// Guessing of passwords.
    BruteForce,
    /// Attacks on what faces the web.
    WebAttack,
    /// Messages that lure.
    Phishing,
    /// A service is drowned.
    DenialOfService,
    /// An account is used by somebody else.
    AccountCompromise,
    /// Credentials are taken.
    CredentialTheft,
    /// Foreign code runs.
    Malware,
    /// More rights than were given.
    PrivilegeEscalation,
    /// From machine to machine.
    LateralMovement,
    /// A channel to somebody outside.
    CommandAndControl,
    /// Data leaves.
    Exfiltration,
    /// Data is destroyed or held for ransom.
    Ransomware,
}

impl IncidentKind {
    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            IncidentKind::Other => "other",
            IncidentKind::Reconnaissance => "reconnaissance",
            IncidentKind::PolicyViolation => "policy_violation",
            IncidentKind::BruteForce => "brute_force",
            IncidentKind::WebAttack => "web_attack",
            IncidentKind::Phishing => "phishing",
            IncidentKind::DenialOfService => "denial_of_service",
            IncidentKind::AccountCompromise => "account_compromise",
            IncidentKind::CredentialTheft => "credential_theft",
            IncidentKind::Malware => "malware",
            IncidentKind::PrivilegeEscalation => "privilege_escalation",
            IncidentKind::LateralMovement => "lateral_movement",
            IncidentKind::CommandAndControl => "command_and_control",
            IncidentKind::Exfiltration => "exfiltration",
            IncidentKind::Ransomware => "ransomware",
        }
    }

    /// The kind that a rule's tags speak of. The most telling tag counts: `incident.KIND` is the rule's own word, then
    /// techniques ([`TECHNIQUES`]), then tactics. Of several equally telling ones, the later kind.
    ///
    /// ```
    /// use cf_types::incident::IncidentKind;
    /// let of = |tags: &[&str]| IncidentKind::of_tags(tags.iter().copied());
    /// assert_eq!(of(&["attack.credential-access", "attack.t1110.001"]), IncidentKind::BruteForce);
    /// assert_eq!(of(&["attack.t1110", "incident.web_attack"]), IncidentKind::WebAttack);
    /// assert_eq!(of(&["attack.exfiltration"]), IncidentKind::Exfiltration);
    /// assert_eq!(of(&["car.2013-01-002"]), IncidentKind::Other);
    /// ```
    #[must_use]
    pub fn of_tags<'a>(tags: impl Iterator<Item = &'a str>) -> IncidentKind {
        tags.filter_map(told_by).max().map_or(IncidentKind::Other, |(_, kind)| kind)
    }
}

impl fmt::Display for IncidentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How telling a tag is, and what it tells.
fn told_by(tag: &str) -> Option<(u8, IncidentKind)> {
    let tag = tag.to_ascii_lowercase();
    if let Some(word) = tag.strip_prefix("incident.") {
        let word = word.replace('-', "_");
        return serde_json::from_value(serde_json::Value::from(word)).ok().map(|kind| (2, kind));
    }
    if let Some(tactic) = Tactic::of_tag(&tag) {
        return of_tactic(tactic).map(|kind| (0, kind));
    }
    let technique = tag.strip_prefix("attack.")?;
    let begins = |known: &str| technique == known || technique.strip_prefix(known).is_some_and(|r| r.starts_with('.'));
    TECHNIQUES.iter().find(|(known, _)| begins(known)).map(|(_, kind)| (1, *kind))
}

/// Which kind a technique of ATT&CK speaks of; a sub-technique stands before its technique where they differ.
pub const TECHNIQUES: &[(&str, IncidentKind)] = &[
    ("t1595", IncidentKind::Reconnaissance),
    ("t1592", IncidentKind::Reconnaissance),
    ("t1046", IncidentKind::Reconnaissance),
    ("t1018", IncidentKind::Reconnaissance),
    ("t1566", IncidentKind::Phishing),
    ("t1598", IncidentKind::Phishing),
    ("t1534", IncidentKind::Phishing),
    ("t1110", IncidentKind::BruteForce),
    ("t1190", IncidentKind::WebAttack),
    ("t1505.003", IncidentKind::WebAttack),
    ("t1189", IncidentKind::WebAttack),
    ("t1498", IncidentKind::DenialOfService),
    ("t1499", IncidentKind::DenialOfService),
    ("t1078", IncidentKind::AccountCompromise),
    ("t1098", IncidentKind::AccountCompromise),
    ("t1136", IncidentKind::AccountCompromise),
    ("t1621", IncidentKind::AccountCompromise),
    ("t1003", IncidentKind::CredentialTheft),
    ("t1552", IncidentKind::CredentialTheft),
    ("t1555", IncidentKind::CredentialTheft),
    ("t1558", IncidentKind::CredentialTheft),
    ("t1204", IncidentKind::Malware),
    ("t1059", IncidentKind::Malware),
    ("t1055", IncidentKind::Malware),
    ("t1105", IncidentKind::Malware),
    ("t1218", IncidentKind::Malware),
    ("t1027", IncidentKind::Malware),
    ("t1068", IncidentKind::PrivilegeEscalation),
    ("t1548", IncidentKind::PrivilegeEscalation),
    ("t1021", IncidentKind::LateralMovement),
    ("t1570", IncidentKind::LateralMovement),
    ("t1550", IncidentKind::LateralMovement),
    ("t1071", IncidentKind::CommandAndControl),
    ("t1090", IncidentKind::CommandAndControl),
    ("t1572", IncidentKind::CommandAndControl),
    ("t1041", IncidentKind::Exfiltration),
    ("t1048", IncidentKind::Exfiltration),
    ("t1567", IncidentKind::Exfiltration),
    ("t1537", IncidentKind::Exfiltration),
    ("t1020", IncidentKind::Exfiltration),
    ("t1485", IncidentKind::Ransomware),
    ("t1486", IncidentKind::Ransomware),
    ("t1490", IncidentKind::Ransomware),
];

/// Which kind a tactic alone speaks of. Access, persistence and evasion are of many.
const fn of_tactic(tactic: Tactic) -> Option<IncidentKind> {
    Some(match tactic {
        Tactic::Reconnaissance | Tactic::Discovery => IncidentKind::Reconnaissance,
        Tactic::Execution => IncidentKind::Malware,
        Tactic::PrivilegeEscalation => IncidentKind::PrivilegeEscalation,
        Tactic::CredentialAccess => IncidentKind::CredentialTheft,
        Tactic::LateralMovement => IncidentKind::LateralMovement,
        Tactic::CommandAndControl => IncidentKind::CommandAndControl,
        Tactic::Exfiltration => IncidentKind::Exfiltration,
        Tactic::ResourceDevelopment
        | Tactic::InitialAccess
        | Tactic::Persistence
        | Tactic::DefenseEvasion
        | Tactic::Collection
        | Tactic::Impact => return None,
    })
}

/// How urgent an incident is (INC-06). SEV1 is the most urgent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum IncidentSeverity {
    /// Drop everything.
    #[serde(rename = "SEV1")]
    Sev1,
    /// Today, by whoever is on call.
    #[serde(rename = "SEV2")]
    Sev2,
    /// Soon.
    #[serde(rename = "SEV3")]
    Sev3,
    /// When there is time.
    #[default]
    #[serde(rename = "SEV4")]
    Sev4,
}

impl IncidentSeverity {
    /// By the highest score of its alerts (9.0 and above SEV2, 7.0 SEV3, else SEV4), raised by one each for: three or more
    /// tactics; data that leaves or is destroyed (exfiltration, impact) with another tactic before it; ten or more alerts.
    ///
    /// ```
    /// use cf_types::{Score, incident::{IncidentSeverity, Tactic}};
    /// let steal = [Tactic::InitialAccess, Tactic::Discovery, Tactic::Exfiltration];
    /// assert_eq!(IncidentSeverity::of(Score::from_tenths(75), 3, &steal), IncidentSeverity::Sev1);
    /// assert_eq!(IncidentSeverity::of(Score::from_tenths(75), 3, &[]), IncidentSeverity::Sev3);
    /// ```
    #[must_use]
    pub fn of(highest: Score, alerts: usize, tactics: &[Tactic]) -> IncidentSeverity {
        let base = match highest.tenths() {
            90.. => 1,
            70..90 => 2,
            _ => 3,
        };
        let ends = tactics.iter().any(|tactic| *tactic >= Tactic::Exfiltration) && tactics.len() > 1;
        let raised = usize::from(tactics.len() >= 3) + usize::from(ends) + usize::from(alerts >= 10);
        match usize::saturating_sub(base, raised) {
            0 => IncidentSeverity::Sev1,
            1 => IncidentSeverity::Sev2,
            2 => IncidentSeverity::Sev3,
            _ => IncidentSeverity::Sev4,
        }
    }

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            IncidentSeverity::Sev1 => "SEV1",
            IncidentSeverity::Sev2 => "SEV2",
            IncidentSeverity::Sev3 => "SEV3",
            IncidentSeverity::Sev4 => "SEV4",
        }
    }
}

impl fmt::Display for IncidentSeverity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn techniques_stand_with_their_sub_techniques_and_no_others() {
        let of = |tag| IncidentKind::of_tags(std::iter::once(tag));
        for (tag, expect) in [
            ("attack.t1110.003", IncidentKind::BruteForce),
            ("attack.T1110", IncidentKind::BruteForce),
            ("attack.t11100", IncidentKind::Other),
            ("attack.t1505.003", IncidentKind::WebAttack),
            ("attack.t1505.001", IncidentKind::Other),
            ("incident.brute-force", IncidentKind::BruteForce),
            ("incident.unheard_of", IncidentKind::Other),
            ("attack.initial-access", IncidentKind::Other),
        ] {
            assert_eq!(of(tag), expect, "{tag}");
        }
    }

    #[test]
    fn severity_rises_with_score_number_and_progress() {
        use Tactic::{CredentialAccess, Exfiltration, Impact, InitialAccess, Persistence};
        for (tenths, alerts, tactics, expect) in [
            (95, 1, &[][..], "SEV2"),
            (95, 10, &[], "SEV1"),
            (75, 1, &[CredentialAccess], "SEV3"),
            (75, 1, &[InitialAccess, Persistence, CredentialAccess], "SEV2"),
            (75, 1, &[InitialAccess, Exfiltration], "SEV2"),
            (50, 1, &[Impact], "SEV4"),
            (50, 9, &[InitialAccess, Impact], "SEV3"),
            (10, 10, &[], "SEV3"),
            (100, 100, &[InitialAccess, Persistence, Impact], "SEV1"),
        ] {
            let got = IncidentSeverity::of(Score::from_tenths(tenths), alerts, tactics);
            assert_eq!(got.as_str(), expect, "{tenths} {alerts} {tactics:?}");
        }
    }

    #[test]
    fn incidents_of_before_read() {
        let old = r#"{"tenant":"default","id":"00000000000000000000000000000000","alerts":[],"entities":[]}"#;
        assert_eq!(serde_json::from_str::<Incident>(old).unwrap(), Incident::default());
    }
}
