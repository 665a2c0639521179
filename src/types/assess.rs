//! Threat assessment: how bad an alert is and how sure we are, from published factors (RSK-01 to RSK-07).
//!
//! [`assess`] is a pure function of an alert and of what facts say of it, in integers: the same input gives the same
//! bytes on any machine and any number of workers (RSK-10).
//!
//! **Score.** `score = base × w1 × w2 × ... × w9`, rounded half up to tenths, at most 10.0. The base is the rule's level
//! ([`Score::of_level`]); each factor has a weight of which 1.000 says nothing, so an alert of which no fact speaks keeps
//! about the score of its level. Bands are those of CVSS 3.1 (section 5). What is taken from CVSS and how it is damped
//! stands at each factor; the multiplication instead of CVSS's own formula is ours, because an alert is something that
//! happened and not a weakness that could be used.
//!
//! | factor | values and weights |
//! |---|---|
//! | attack vector | network 1.000, adjacent 0.972, local 0.964, physical 0.923, unknown 1.000: CVSS 3.1 section 7.4 has 0.85, 0.62, 0.55, 0.20; w = 0.9 + 0.1 × AV / 0.85. Unknown is the worst, as section 2.1 advises |
//! | tactic | the furthest of the alert's ATT&CK tactics: reconnaissance, resource development 0.900, discovery 0.950, privilege escalation, lateral movement, command and control 1.050, exfiltration, impact 1.100, others 1.000 |
//! | technique | the worst: T1485, T1486, T1490, T1561 1.150, T1003, T1207, T1558 1.100, others 1.000 |
//! | asset criticality | the highest of its entities: 1 to 5 give 0.750, 0.880, 1.000, 1.150, 1.300: the security requirements of CVSS 3.1 section 7.4 (0.5, 1.0, 1.5), damped by half and in five steps |
//! | exposure | external 1.100, internal 0.950; one external asset makes the alert external |
//! | identity | a privileged account 1.150 (CVSS 3.1 section 2.1.3: what it takes to have privileges is taken already) |
//! | indicator | an entity is an indicator of confidence c: 1 + c / 500; the alert is *that* an indicator was seen: 0.8 + c / 250 |
//! | rule precision | share p of attacks among at least 5 verdicts, in steps of 5 %: 0.5 + p / 200 |
//! | time | outside of office hours, where they are set: 1.050 |
//!
//! **Confidence** is the chance in percent that the alert is an attack. With enough verdicts it is the rule's precision:
//! measured, hence calibrated. Else it is a prior that independent evidence raises: doubt = 0.3, times 0.7 when at least
//! two of the rules that a correlation lists were met, times (1 - 0.8 c) for an indicator of confidence c; the confidence
//! is 1 - doubt. Of an alert that an indicator was seen, the prior is the indicator's own confidence. Where a model has
//! judged the alert and its verdict is not "unknown", the confidence is the model's calibrated probability.
//!
//! **A model moves no score.** Its answer is a factor of weight 1.000: it moves the confidence, and with it the
//! [priority](Assessment::priority), the place in the queue. So no message, action, risk or incident depends on a model,
//! and an alert's content is the same with and without one.

mod attack;

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

pub use attack::Vector;

use crate::{
    alert::Alert,
    fact::{Asset, Exposure, Identity, Indicator, Judgement, Verdict},
    id::{AlertId, Tenant},
    risk::Score,
    time::Cell,
    triage::{Triage, Worth},
};

/// Id of the built-in rule whose alerts say that an indicator was seen.
pub const INDICATOR_RULE: &str = "indicator";
/// Id of the built-in rule whose alerts say that an entity's risk is high.
pub const RISK_RULE: &str = "risk";

/// What a number between 0.0 and 10.0 means: the bands of CVSS 3.1, section 5.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RiskLevel {
    /// 0.0.
    #[default]
    None,
    /// Up to 3.9.
    Low,
    /// Up to 6.9.
    Medium,
    /// Up to 8.9.
    High,
    /// From 9.0 on.
    Critical,
}

impl RiskLevel {
    /// The band of a score.
    #[must_use]
    pub const fn of(score: Score) -> RiskLevel {
        match score.tenths() {
            0 => RiskLevel::None,
            1..=39 => RiskLevel::Low,
            40..=69 => RiskLevel::Medium,
            70..=89 => RiskLevel::High,
            _ => RiskLevel::Critical,
        }
    }

    /// Its word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            RiskLevel::None => "none",
            RiskLevel::Low => "low",
            RiskLevel::Medium => "medium",
            RiskLevel::High => "high",
            RiskLevel::Critical => "critical",
        }
    }
}

/// How sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ConfidenceLevel {
    /// Below 50 %.
    Low,
    /// From 50 % on.
    Moderate,
    /// From 75 % on.
    High,
    /// From 95 % on.
    Certain,
}

impl ConfidenceLevel {
    /// The level of a confidence in percent.
    #[must_use]
    pub const fn of(percent: u8) -> ConfidenceLevel {
        match percent {
            0..=49 => ConfidenceLevel::Low,
            50..=74 => ConfidenceLevel::Moderate,
            75..=94 => ConfidenceLevel::High,
            _ => ConfidenceLevel::Certain,
        }
    }
}

/// What a factor looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FactorKind {
    /// How the attacker gets there.
    AttackVector,
    /// What for.
    Tactic,
    /// How.
    Technique,
    /// How much the assets matter.
    AssetCriticality,
    /// Who can reach them.
    Exposure,
    /// What the account may.
    Identity,
    /// How sure the sources of indicators are.
    Indicator,
    /// How often the rule was right.
    RulePrecision,
    /// Office hours or not.
    Time,
    /// What a model says; only where one has judged the alert.
    Triage,
}

impl fmt::Display for FactorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FactorKind::AttackVector => "attack vector",
            FactorKind::Tactic => "tactic",
            FactorKind::Technique => "technique",
            FactorKind::AssetCriticality => "asset criticality",
            FactorKind::Exposure => "exposure",
            FactorKind::Identity => "identity",
            FactorKind::Indicator => "indicator",
            FactorKind::RulePrecision => "rule precision",
            FactorKind::Time => "time",
            FactorKind::Triage => "triage",
        })
    }
}

/// One factor of a score: what was seen and what it weighs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Factor {
    /// What it looks at.
    pub factor: FactorKind,
    /// What it saw, for people.
    pub value: Arc<str>,
    /// What it weighs, in thousandths; 1,000 says nothing.
    pub weight_permille: u16,
}

/// How often a rule was right, by verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Precision {
    /// Share of attacks, in percent, a multiple of 5.
    pub percent: u8,
}

impl Precision {
    /// Verdicts before a rule's precision says anything.
    pub const VERDICTS_MIN: u64 = 5;
    /// Points by which the measured share must leave a step before another is taken: more than half a step, so that a
    /// share on an edge does not re-score every alert of the rule with each verdict.
    const LEAVE_POINTS: u64 = 3;

    /// The precision by these verdicts in the order in which they were said. It keeps its step until the share has left
    /// it by more than [`Precision::LEAVE_POINTS`], so it is a function of the verdicts and their order alone.
    #[must_use]
    pub fn of<'a>(verdicts: impl IntoIterator<Item = &'a Verdict>) -> Option<Precision> {
        let mut verdicts: Vec<&Verdict> = verdicts.into_iter().collect();
        verdicts.sort_by_key(|verdict| (verdict.at, verdict.alert, verdict.judgement));
        let (mut attacks, mut all, mut step) = (0u64, 0u64, None::<u64>);
        for verdict in verdicts {
            attacks += u64::from(verdict.judgement == Judgement::TruePositive);
            all += 1;
            let leaves = |step: u64| (100 * attacks).abs_diff(step * all) > Self::LEAVE_POINTS * all;
            if all >= Self::VERDICTS_MIN && step.is_none_or(leaves) {
                // The nearest multiple of 5, half up: (100 a / n + 2.5) / 5 · 5.
                step = Some((200 * attacks + 5 * all) / (10 * all) * 5);
            }
        }
        step.and_then(|percent| u8::try_from(percent).ok()).map(|percent| Precision { percent })
    }
}

/// What facts say of an alert.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// Of its entities.
    pub assets: Vec<Asset>,
    /// Of its users, also by another name.
    pub identities: Vec<Identity>,
    /// That an entity of it meets while they hold, or that it was raised for.
    pub indicators: Vec<Indicator>,
    /// Of its rule.
    pub precision: Option<Precision>,
    /// When people are at work; `None` where it does not matter.
    pub office_hours: Option<OfficeHours>,
    /// What a model says of it.
    pub triage: Option<Triage>,
}

/// When people are at work, by event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OfficeHours {
    /// First hour of the day, 0 to 23.
    pub from_hour: u8,
    /// The hour after the last, 1 to 24.
    pub until_hour: u8,
    /// Bit 0 is Monday, bit 6 Sunday.
    pub days: u8,
    /// Minutes east of UTC.
    pub offset_minutes: i16,
}

impl OfficeHours {
    /// Whether people are at work in this second.
    #[must_use]
    pub fn contains(&self, cell: Cell) -> bool {
        let local = cell.saturating_add(i64::from(self.offset_minutes) * 60);
        let hour = local.rem_euclid(86_400) / 3_600;
        // 1970-01-01 was a Thursday: day 3 of a week that begins with Monday.
        let weekday = (local.div_euclid(86_400) + 3).rem_euclid(7);
        let at_work = (i64::from(self.from_hour)..i64::from(self.until_hour)).contains(&hour);
        at_work && u8::try_from(weekday).is_ok_and(|day| self.days >> day & 1 == 1)
    }
}

/// How bad an alert is, how sure we are, and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Assessment {
    /// Whose.
    pub tenant: Tenant,
    /// The alert.
    pub alert: AlertId,
    /// What the rule's level alone would give.
    pub base: Score,
    /// Its score.
    pub score: Score,
    /// The score's band.
    pub level: RiskLevel,
    /// The chance that it is an attack, in percent.
    pub confidence_percent: u8,
    /// That chance in a word.
    pub confidence: ConfidenceLevel,
    /// How the attacker gets there.
    pub vector: Vector,
    /// ATT&CK techniques of its rule, as published, sorted.
    pub techniques: Vec<Arc<str>>,
    /// ATT&CK tactics of its rule, as published, sorted.
    pub tactics: Vec<Arc<str>>,
    /// Every factor, in the order of the table; last what a model says, if one does.
    pub factors: Vec<Factor>,
    /// What a model says.
    #[serde(default)]
    pub triage: Option<Triage>,
}

impl Assessment {
    /// The place in the queue, the highest first: score × confidence, 0 to 1,000. What a person does first is what is
    /// bad and likely.
    #[must_use]
    pub fn priority(&self) -> u16 {
        self.score.tenths() * u16::from(self.confidence_percent.min(100)) / 10
    }
}

/// Assesses an alert. Its own score does not count; the result's takes its place.
#[must_use]
pub fn assess(alert: &Alert, context: &Context) -> Assessment {
    let (techniques, tactics) = attack::of_tags(&alert.tags);
    let vector = attack::vector(&techniques, &tactics, &alert.entities);
    let of_indicator = &*alert.rule == INDICATOR_RULE;
    let mut factors = vec![
        factor(FactorKind::AttackVector, vector.as_str(), vector.weight_permille()),
        named(FactorKind::Tactic, attack::worst(&tactics, attack::tactic_permille)),
        named(FactorKind::Technique, attack::worst(&techniques, attack::technique_permille)),
        criticality(&context.assets),
        exposure(&context.assets),
        identity(&context.identities),
        indicator(&context.indicators, of_indicator),
        precision(context.precision),
        time(context.office_hours, alert.anchor),
    ];
    let base = Score::of_level(alert.level);
    let score = product(base, &factors);
    factors.extend(context.triage.as_ref().map(|triage| factor(FactorKind::Triage, triage.to_string(), 1_000)));
    let confidence_percent = confidence(alert, context, of_indicator);
    Assessment {
        tenant: alert.tenant.clone(),
        alert: alert.id,
        base,
        score,
        level: RiskLevel::of(score),
        confidence_percent,
        confidence: ConfidenceLevel::of(confidence_percent),
        vector,
        techniques,
        tactics,
        factors,
        triage: context.triage.clone(),
    }
}

/// The base times all weights, rounded once, half up.
fn product(base: Score, factors: &[Factor]) -> Score {
    // Nine weights below 2,000 and a base of at most 100 are below 2^106.
    let (mut above, mut below) = (u128::from(base.tenths()), 1u128);
    for factor in factors {
        above *= u128::from(factor.weight_permille);
        below *= 1_000;
    }
    Score::from_tenths(u16::try_from((above + below / 2) / below).unwrap_or(u16::MAX))
}

fn factor(kind: FactorKind, value: impl Into<Arc<str>>, weight_permille: u16) -> Factor {
    Factor { factor: kind, value: value.into(), weight_permille }
}

fn named(kind: FactorKind, worst: Option<(&str, u16)>) -> Factor {
    let (name, weight) = worst.unwrap_or(("unknown", 1_000));
    factor(kind, name, weight)
}

fn criticality(assets: &[Asset]) -> Factor {
    let kind = FactorKind::AssetCriticality;
    let highest = assets.iter().max_by(|a, b| a.criticality.cmp(&b.criticality).then(b.entity.cmp(&a.entity)));
    let Some(asset) = highest else { return factor(kind, "unknown", 1_000) };
    let weight = match asset.criticality {
        0 | 1 => 750,
        2 => 880,
        3 => 1_000,
        4 => 1_150,
        _ => 1_300,
    };
    factor(kind, format!("{} ({})", asset.criticality, asset.entity), weight)
}

fn exposure(assets: &[Asset]) -> Factor {
    let kind = FactorKind::Exposure;
    match assets.iter().filter_map(|asset| asset.exposure).max() {
        None => factor(kind, "unknown", 1_000),
        Some(Exposure::Internal) => factor(kind, "internal", 950),
        Some(Exposure::External) => factor(kind, "external", 1_100),
    }
}

fn identity(identities: &[Identity]) -> Factor {
    let kind = FactorKind::Identity;
    match identities.iter().filter(|identity| identity.privileged).map(|identity| &identity.user).min() {
        Some(user) => factor(kind, format!("privileged ({user})"), 1_150),
        None if identities.is_empty() => factor(kind, "unknown", 1_000),
        None => factor(kind, "not privileged", 1_000),
    }
}

/// The indicator of the highest confidence.
fn surest(indicators: &[Indicator]) -> Option<&Indicator> {
    indicators.iter().max_by(|a, b| a.confidence.cmp(&b.confidence).then(b.cmp(a)))
}

fn indicator(indicators: &[Indicator], of_indicator: bool) -> Factor {
    let kind = FactorKind::Indicator;
    let Some(Indicator { pattern, confidence, source, .. }) = surest(indicators) else {
        return factor(kind, "none", 1_000);
    };
    let from = if source.is_empty() { String::new() } else { format!(" by {source}") };
    let confidence = u16::from(*confidence);
    let weight = if of_indicator { 800 + 4 * confidence } else { 1_000 + 2 * confidence };
    factor(kind, format!("{pattern}{from}, confidence {confidence} %"), weight)
}

fn precision(precision: Option<Precision>) -> Factor {
    let kind = FactorKind::RulePrecision;
    match precision {
        None => factor(kind, "unknown", 1_000),
        Some(Precision { percent }) => factor(kind, format!("{percent} %"), 500 + 5 * u16::from(percent)),
    }
}

fn time(hours: Option<OfficeHours>, anchor: Cell) -> Factor {
    let kind = FactorKind::Time;
    match hours.map(|hours| hours.contains(anchor)) {
        None => factor(kind, "any", 1_000),
        Some(true) => factor(kind, "office hours", 1_000),
        Some(false) => factor(kind, "outside of office hours", 1_050),
    }
}

/// In percent, rounded down.
fn confidence(alert: &Alert, context: &Context, of_indicator: bool) -> u8 {
    if let Some(triage) = context.triage.as_ref().filter(|triage| triage.verdict != Worth::Unknown) {
        return triage.percent();
    }
    if let Some(Precision { percent }) = context.precision {
        return percent;
    }
    let sure = surest(&context.indicators).map_or(0, |indicator| u64::from(indicator.confidence.min(100)));
    if of_indicator {
        return u8::try_from(sure).unwrap_or(100);
    }
    let references = alert.reference_counts.iter().filter(|count| **count > 0).count();
    // 0.3 × (0.7 or 1) × (1 - 0.8 c / 100), in hundred-thousandths.
    let doubt = 3 * if references >= 2 { 7 } else { 10 } * (1_000 - 8 * sure);
    u8::try_from((100_000 - doubt) / 1_000).unwrap_or(100)
}

#[cfg(test)]
mod tests;
