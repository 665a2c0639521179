//! A comparison of two models on halves of who is asked about, decided as soon as the evidence is enough (ML-09).
//!
//! In: verdicts on what either called positive, each entity once. An answer speaks for the challenger if it was the
//! challenger's and an attack, or the champion's and none. Which half an entity is in is a hash's toss, so if both are
//! alike, in what they find and in what they get wrong, every answer speaks for either with the chance of one half. Against
//! that stands Robbins' mixture over all other chances (Annals of Mathematical Statistics 41, 1970): it passes 20 in at most
//! one of 20 comparisons of models that are alike, *however often one looks* (Ville 1939). So it is looked at with every
//! verdict, and ends early where models differ much. Memory: [`ENTITIES_MAX`] entities; then it ends without a decision.

use std::collections::{BTreeMap, btree_map::Entry};

use cf_types::{AlertId, triage::Role};

use super::precision::Served;

/// Entities after which models count as alike.
const ENTITIES_MAX: usize = 2_000;
/// Evidence that decides, to one.
const EVIDENCE_MIN: f64 = 20.0;
/// Attacks that a challenger must have found before it can win: one that is silent has no false alarms.
const ATTACKS_MIN: u32 = 10;

/// One comparison.
#[derive(Clone, Debug, Default)]
pub(super) struct Trial {
    pub(super) champion: String,
    pub(super) challenger: String,
    /// The first judged answer about each entity.
    entities: BTreeMap<String, Unit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Unit {
    alert: AlertId,
    is_challengers: bool,
    is_attack: bool,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The challenger is better.
    Better,
    /// The challenger is worse.
    Worse,
    /// They are alike, as far as can be told.
    Alike,
}

/// Attacks and false alarms of one half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Half {
    attacks: u32,
    others: u32,
}

impl Trial {
    pub(super) fn new(champion: &str, challenger: &str) -> Trial {
        Trial { champion: champion.to_owned(), challenger: challenger.to_owned(), entities: BTreeMap::new() }
    }

    /// Takes in a verdict, or that it was taken back, on what was served as positive. Another verdict on the same alert
    /// takes its place; other alerts about the same entity say nothing new.
    pub(super) fn verdict(&mut self, alert: AlertId, served: &Served, is_attack: bool, sign: i64) {
        let is_challengers = match served.role {
            Role::A if served.version == self.champion => false,
            Role::B if served.version == self.challenger => true,
            _ => return,
        };
        let full = self.entities.len() >= ENTITIES_MAX;
        match self.entities.entry(served.who.clone()) {
            Entry::Occupied(known) if known.get().alert != alert => {}
            Entry::Occupied(known) if sign < 0 => drop(known.remove()),
            Entry::Occupied(mut known) => known.get_mut().is_attack = is_attack,
            Entry::Vacant(place) if sign > 0 && !full => {
                place.insert(Unit { alert, is_challengers, is_attack });
            }
            Entry::Vacant(_) => {}
        }
    }

    /// What came out, with the figures; `None` while it is open.
    pub(super) fn outcome(&self) -> Option<(Outcome, String)> {
        let (champion, challenger) = (self.half(false), self.half(true));
        let trials = champion.attacks + champion.others + challenger.attacks + challenger.others;
        let successes = challenger.attacks + champion.others;
        let odds = evidence(successes, trials);
        // Two thirds of what the other half shows, at least: evidence of fewer would come too late where attacks are few.
        let finds_as_much = challenger.attacks >= ATTACKS_MIN && 3 * challenger.attacks >= 2 * champion.attacks;
        let outcome = match (odds >= EVIDENCE_MIN, 2 * successes > trials) {
            (true, true) if finds_as_much => Outcome::Better,
            (true, false) => Outcome::Worse,
            _ if self.entities.len() >= ENTITIES_MAX => Outcome::Alike,
            _ => return None,
        };
        let said = format!(
            "{}: {} attacks and {} false alarms, against {} and {} of {} in the other half; evidence {odds:.1} to 1",
            self.challenger, challenger.attacks, challenger.others, champion.attacks, champion.others, self.champion
        );
        Some((outcome, said))
    }

    fn half(&self, is_challengers: bool) -> Half {
        self.entities.values().filter(|unit| unit.is_challengers == is_challengers).fold(
            Half::default(),
            |half, unit| {
                if unit.is_attack {
                    Half { attacks: half.attacks + 1, ..half }
                } else {
                    Half { others: half.others + 1, ..half }
                }
            },
        )
    }
}

/// The logarithm of how many ways there are to choose `k` of `n`.
fn ln_choose(n: u32, k: u32) -> f64 {
    let k = k.min(n.saturating_sub(k));
    (1..=k).map(|i| (f64::from(n - k + i) / f64::from(i)).ln()).sum()
}

/// How much better all other chances, each as likely as the other, explain `k` of `n` than a chance of one half does.
fn evidence(k: u32, n: u32) -> f64 {
    (f64::from(n) * std::f64::consts::LN_2 - f64::from(n + 1).ln() - ln_choose(n, k)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(who: &str, role: Role, version: &str) -> Served {
        Served { version: version.to_owned(), role, who: who.to_owned() }
    }

    /// Numbers in 0..1000 that look random; the same for a seed.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % 1_000
        }
    }

    fn alert(number: usize) -> AlertId {
        AlertId(u128::try_from(number).unwrap().to_le_bytes())
    }

    /// A comparison in which, of 1,000 entities, the models find so many attacks and false alarms; looked at after each.
    fn lived(seed: u64, entities: usize, champion: (u64, u64), challenger: (u64, u64)) -> (Option<Outcome>, usize) {
        let (mut dice, mut trial) = (Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)), Trial::new("one", "two"));
        for number in 0..entities {
            let is_challengers = dice.roll() < 500;
            let (role, version, (attacks, others)) =
                if is_challengers { (Role::B, "two", challenger) } else { (Role::A, "one", champion) };
            let roll = dice.roll();
            if roll < attacks + others {
                trial.verdict(alert(number), &served(&format!("host:{number}"), role, version), roll < attacks, 1);
            }
            if let Some((outcome, _)) = trial.outcome() {
                return (Some(outcome), number);
            }
        }
        (None, entities)
    }

    #[test]
    fn the_numbers_are_those_of_the_definitions() {
        for n in 0..=20_u32 {
            let (all, mut choose) = (f64::from(2_u32.pow(n)), 1_u32);
            for k in 0..=n {
                let expect = all / (f64::from(n + 1) * f64::from(choose));
                assert!((evidence(k, n) / expect - 1.0).abs() < 1e-9, "{k} of {n}");
                choose = choose * (n - k) / (k + 1);
            }
        }
    }

    /// ML-09: looked at after every verdict, at most one in 20 comparisons of two that are alike ends with a decision.
    #[test]
    fn of_models_that_are_alike_few_are_told_apart_however_often_one_looks() {
        for both in [(300, 300), (50, 400), (500, 20)] {
            let decided = (1..=200).filter(|seed| lived(*seed, 600, both, both).0.is_some()).count();
            assert!(decided <= 10, "{both:?}: {decided} of 200");
        }
    }

    #[test]
    fn a_model_that_is_better_wins_and_one_that_is_worse_loses_early() {
        let (good, bad) = ((300, 50), (300, 400));
        for seed in 1..=50 {
            let (won, at) = lived(seed, 1_500, bad, good);
            assert!(won == Some(Outcome::Better) && at < 800, "{seed}: {won:?} at {at}");
            let (lost, at) = lived(seed, 1_500, good, bad);
            assert!(lost == Some(Outcome::Worse) && at < 800, "{seed}: {lost:?} at {at}");
        }
    }

    /// A model that says nothing has no false alarms: that alone must not win.
    #[test]
    fn silence_does_not_win() {
        for seed in 1..=50 {
            assert_ne!(lived(seed, 1_500, (100, 500), (0, 0)).0, Some(Outcome::Better));
            assert_ne!(lived(seed, 1_500, (100, 500), (10, 0)).0, Some(Outcome::Better), "a tenth of the attacks");
        }
    }

    #[test]
    fn an_entity_counts_once_and_verdicts_can_change() {
        let mut trial = Trial::new("one", "two");
        let halves = |trial: &Trial| {
            let (a, b) = (trial.half(false), trial.half(true));
            (a.attacks, a.others, b.attacks, b.others)
        };
        let one = served("host:a", Role::A, "one");
        trial.verdict(alert(1), &one, true, 1);
        trial.verdict(alert(2), &one, false, 1);
        assert_eq!(halves(&trial), (1, 0, 0, 0), "another alert about the same");
        trial.verdict(alert(1), &one, false, 1);
        assert_eq!(halves(&trial), (0, 1, 0, 0), "another verdict on the same");
        trial.verdict(alert(1), &one, false, -1);
        assert_eq!(halves(&trial), (0, 0, 0, 0), "taken back");
        for (role, version) in [(Role::Champion, "one"), (Role::Shadow, "two"), (Role::B, "three"), (Role::A, "two")] {
            trial.verdict(alert(3), &served("host:b", role, version), true, 1);
        }
        assert_eq!(halves(&trial), (0, 0, 0, 0), "not of this comparison");
    }

    #[test]
    fn a_comparison_ends_also_without_a_difference() {
        let mut trial = Trial::new("one", "two");
        for number in 0..ENTITIES_MAX {
            assert_eq!(trial.outcome(), None);
            let (role, version) = if number % 2 == 0 { (Role::A, "one") } else { (Role::B, "two") };
            trial.verdict(alert(number), &served(&number.to_string(), role, version), number % 4 < 2, 1);
        }
        assert_eq!(trial.outcome().map(|(outcome, _)| outcome), Some(Outcome::Alike));
    }
}
