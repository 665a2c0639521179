//! How often models were right, by the latest verdicts: when a champion has fallen too far, the one before it answers again.
//!
//! In: the control log, what of it is of one task. What counts are answers that were served and positive (an alert is worth
//! a person; an event is a detection), and that somebody judged. Memory: [`ANSWERS_MAX`] answers and [`LATEST`] verdicts.

use std::collections::{BTreeMap, VecDeque};

use cf_types::{
    AlertId,
    triage::{Answer, Role, Worth},
};

use super::{switch::ModelChange, trial::Trial};

/// Answers that a verdict may still come for.
const ANSWERS_MAX: usize = 50_000;
/// Verdicts that count, the latest.
const LATEST: usize = 100;
/// Standard deviations by which the share must lie below the gate: about one in twenty is chance.
const CHANCE: f64 = 1.645;

/// A positive answer that was served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Served {
    pub(super) version: String,
    pub(super) role: Role,
    /// Who it is about.
    pub(super) who: String,
}

impl Served {
    /// `None` of an answer that was not served, or not positive.
    pub(super) fn of(answer: &Answer, who: String) -> Option<Served> {
        let counts = answer.role.is_served() && answer.verdict == Worth::True;
        counts.then(|| Served { version: answer.model.to_string(), role: answer.role, who })
    }
}

/// Answers and verdicts of one task, in the order of the control log.
#[derive(Default)]
pub(super) struct Judged {
    /// What was served, by what verdicts find it by: an alert's id, or its group.
    answers: BTreeMap<String, Served>,
    order: VecDeque<String>,
    /// Alert, version, whether it was an attack.
    verdicts: VecDeque<(AlertId, String, bool)>,
    /// The comparison that runs.
    trial: Option<Trial>,
}

/// How often a version was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) attacks: u32,
    pub(super) verdicts: u32,
}

impl Judged {
    /// Takes in a positive answer; another about the same takes its place.
    pub(super) fn answered(&mut self, key: String, served: Served) {
        if self.answers.insert(key.clone(), served).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > ANSWERS_MAX {
            self.order.pop_front().and_then(|key| self.answers.remove(&key));
        }
    }

    /// Takes in a verdict on the alert of an answer, or that it was taken back.
    pub(super) fn verdict(&mut self, alert: AlertId, key: &str, is_attack: bool, sign: i64) {
        // One verdict an alert, the last.
        self.verdicts.retain(|(judged, ..)| *judged != alert);
        let Some(served) = self.answers.get(key) else { return };
        if let Some(trial) = &mut self.trial {
            trial.verdict(alert, served, is_attack, sign);
        }
        if sign > 0 {
            self.verdicts.push_back((alert, served.version.clone(), is_attack));
        }
        while self.verdicts.len() > LATEST {
            self.verdicts.pop_front();
        }
    }

    /// Takes in which models answer from here on: two begin a comparison.
    pub(super) fn models(&mut self, change: &ModelChange) {
        let both = change.champion.as_deref().zip(change.challenger.as_deref());
        self.trial = both.map(|(champion, challenger)| Trial::new(champion, challenger));
    }

    /// The comparison that runs.
    pub(super) fn trial(&self) -> Option<&Trial> {
        self.trial.as_ref()
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
    use super::*;

    fn answer(model: &str, role: Role, verdict: Worth) -> Answer {
        Answer { model: model.into(), role, probability_ppm: 1, verdict, set: Vec::new(), reasons: Vec::new() }
    }

    fn answered(judged: &mut Judged, alert: u8, model: &str, role: Role, verdict: Worth) {
        if let Some(served) = Served::of(&answer(model, role, verdict), format!("host:{alert}")) {
            judged.answered(alert.to_string(), served);
        }
    }

    fn verdict(judged: &mut Judged, alert: u8, is_attack: bool, sign: i64) {
        judged.verdict(AlertId([alert; 16]), &alert.to_string(), is_attack, sign);
    }

    #[test]
    fn what_counts_is_what_a_version_served_as_worth_a_person_and_somebody_judged() {
        let mut judged = Judged::default();
        let both = |attacks, verdicts| Share { attacks, verdicts };
        for alert in 0..6 {
            answered(&mut judged, alert, "one", Role::Champion, Worth::True);
        }
        answered(&mut judged, 6, "one", Role::Champion, Worth::False);
        answered(&mut judged, 7, "one", Role::Shadow, Worth::True);
        answered(&mut judged, 8, "two", Role::B, Worth::True);
        for alert in [0, 1, 6, 7, 8, 9] {
            verdict(&mut judged, alert, false, 1);
        }
        assert_eq!((judged.share("one"), judged.share("two")), (both(0, 2), both(0, 1)));
        // Another verdict on the same alert takes its place.
        verdict(&mut judged, 1, false, -1);
        assert_eq!(judged.share("one"), both(0, 1));
        verdict(&mut judged, 1, true, 1);
        assert_eq!(judged.share("one"), both(1, 2));
        assert_eq!(judged.share("three"), both(0, 0));
    }

    #[test]
    fn two_models_begin_a_comparison_and_another_change_ends_it() {
        let mut judged = Judged::default();
        let change = |challenger: Option<&str>| ModelChange {
            task: "urls".to_owned(),
            champion: Some("one".to_owned()),
            challenger: challenger.map(str::to_owned),
            why: String::new(),
        };
        judged.models(&change(None));
        assert!(judged.trial().is_none());
        judged.models(&change(Some("two")));
        assert!(judged.trial().is_some_and(|trial| trial.champion == "one" && trial.challenger == "two"));
        for alert in 0..30 {
            let (model, role) = if alert % 2 == 0 { ("one", Role::A) } else { ("two", Role::B) };
            answered(&mut judged, alert, model, role, Worth::True);
            verdict(&mut judged, alert, model == "two", 1);
        }
        let better = judged.trial().and_then(Trial::outcome).map(|(outcome, _)| outcome);
        assert_eq!(better, Some(crate::triage::trial::Outcome::Better));
        judged.models(&change(None));
        assert!(judged.trial().is_none());
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
