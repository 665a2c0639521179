//! How often the champion was right, by the latest verdicts: when it has fallen too far, the one before it answers again.
//!
//! In: the control log. What counts are alerts of which the champion said that they are worth a person, while it answered
//! for them, and that somebody judged. Memory: [`ANSWERS_MAX`] answers and [`LATEST`] verdicts.

use std::collections::{BTreeMap, VecDeque};

use anyhow::Result;
use cf_ledger::ControlEntry;
use cf_types::{
    AlertId, FactBody,
    fact::Judgement,
    triage::{Answer, Worth},
};

/// Answers that a verdict may still come for.
const ANSWERS_MAX: usize = 50_000;
/// Verdicts that count, the latest.
const LATEST: usize = 100;
/// Standard deviations by which the share must lie below the gate: about one in twenty is chance.
const CHANCE: f64 = 1.645;

/// Answers and verdicts, in the order of the control log.
#[derive(Default)]
pub(super) struct Judged {
    /// The version that said "true" of an alert.
    answers: BTreeMap<AlertId, String>,
    order: VecDeque<AlertId>,
    /// Alert, version, whether it was an attack.
    verdicts: VecDeque<(AlertId, String, bool)>,
}

/// How often a version was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) attacks: u32,
    pub(super) verdicts: u32,
}

impl Judged {
    /// Takes in an entry of the control log.
    pub(super) fn entry(&mut self, entry: &ControlEntry) -> Result<()> {
        if let Some((fact, sign)) = entry.fact()? {
            if let FactBody::Verdict(verdict) = fact.body {
                // One verdict an alert, the last.
                self.verdicts.retain(|(alert, ..)| *alert != verdict.alert);
                if sign > 0
                    && let Some(version) = self.answers.get(&verdict.alert)
                {
                    let is_attack = verdict.judgement == Judgement::TruePositive;
                    self.verdicts.push_back((verdict.alert, version.clone(), is_attack));
                }
                while self.verdicts.len() > LATEST {
                    self.verdicts.pop_front();
                }
            }
        } else if let Some(decision) = entry.decision()? {
            let served = |answer: &&Answer| answer.role.is_served() && answer.verdict == Worth::True;
            if let Some(answer) = decision.answers.iter().find(served)
                && self.answers.insert(decision.alert, answer.model.to_string()).is_none()
            {
                self.order.push_back(decision.alert);
            }
            while self.order.len() > ANSWERS_MAX {
                self.order.pop_front().and_then(|alert| self.answers.remove(&alert));
            }
        }
        Ok(())
    }

    /// How often a version was right in the latest verdicts.
    pub(super) fn share(&self, version: &str) -> Share {
        let own = || self.verdicts.iter().filter(|(_, by, _)| by == version);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Share { attacks: count(own().filter(|(.., is)| *is).count()), verdicts: count(own().count()) }
    }
}

impl Share {
    /// Whether it lies below a gate in percent by more than chance (the upper bound of Wilson's interval, JASA 1927).
    pub(super) fn is_below(self, percent: u8, verdicts_min: u32) -> bool {
        if self.verdicts < verdicts_min.max(1) {
            return false;
        }
        let (n, z2) = (f64::from(self.verdicts), CHANCE * CHANCE);
        let share = f64::from(self.attacks) / n;
        let spread = CHANCE * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
        let upper = (share + z2 / (2.0 * n) + spread) / (1.0 + z2 / n);
        upper < f64::from(percent) / 100.0
    }
}

#[cfg(test)]
mod tests {
    use cf_ledger::{control::FACT_ADD, control::FACT_REMOVE, triage::SCORE};
    use cf_types::{
        Decision, Fact, Tenant, Time,
        fact::Verdict,
        triage::{Answer, Role},
    };

    use super::*;

    fn entry(kind: &str, body: String) -> ControlEntry {
        ControlEntry {
            seq: 1,
            kind: kind.to_owned(),
            body,
            author: String::new(),
            reason: String::new(),
            at: Time::default(),
        }
    }

    fn answered(alert: u8, model: &str, role: Role, verdict: Worth) -> ControlEntry {
        let answer =
            Answer { model: model.into(), role, probability_ppm: 1, verdict, set: Vec::new(), reasons: Vec::new() };
        let decision = Decision {
            tenant: Tenant::default(),
            alert: AlertId([alert; 16]),
            thread: AlertId([alert; 16]),
            cell: 0,
            rule: "a".into(),
            signature: 0,
            material: 0,
            entities: Vec::new(),
            first: true,
            upto: 0,
            recipe: "a".into(),
            features: Vec::new(),
            answers: vec![answer],
        };
        entry(SCORE, serde_json::to_string(&decision).unwrap())
    }

    fn judged(kind: &str, alert: u8, judgement: Judgement) -> ControlEntry {
        let verdict = Verdict { alert: AlertId([alert; 16]), judgement, rule: "a".into(), at: Time::default() };
        let fact = Fact { tenant: Tenant::default(), body: FactBody::Verdict(verdict) };
        entry(kind, serde_json::to_string(&fact).unwrap())
    }

    #[test]
    fn what_counts_is_what_a_version_served_as_worth_a_person_and_somebody_judged() {
        let mut share = Judged::default();
        let both = |attacks, verdicts| Share { attacks, verdicts };
        for alert in 0..6 {
            share.entry(&answered(alert, "one", Role::Champion, Worth::True)).unwrap();
        }
        share.entry(&answered(6, "one", Role::Champion, Worth::False)).unwrap();
        share.entry(&answered(7, "one", Role::Shadow, Worth::True)).unwrap();
        share.entry(&answered(8, "two", Role::B, Worth::True)).unwrap();
        for alert in [0, 1, 6, 7, 8, 9] {
            share.entry(&judged(FACT_ADD, alert, Judgement::FalsePositive)).unwrap();
        }
        assert_eq!((share.share("one"), share.share("two")), (both(0, 2), both(0, 1)));
        // Another verdict on the same alert takes its place.
        share.entry(&judged(FACT_REMOVE, 1, Judgement::FalsePositive)).unwrap();
        assert_eq!(share.share("one"), both(0, 1));
        share.entry(&judged(FACT_ADD, 1, Judgement::TruePositive)).unwrap();
        assert_eq!(share.share("one"), both(1, 2));
        assert_eq!(share.share("three"), both(0, 0));
    }

    #[test]
    fn a_share_is_below_the_gate_only_by_more_than_chance() {
        let below = |attacks, verdicts| Share { attacks, verdicts }.is_below(50, 20);
        assert!(!below(0, 19), "too few verdicts");
        assert!(below(0, 20) && below(5, 20) && !below(8, 20));
        assert!(below(40, 100) && !below(45, 100) && !below(100, 100));
        assert!(!Share { attacks: 0, verdicts: 0 }.is_below(50, 0));
    }
}
